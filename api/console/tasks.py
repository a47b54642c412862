"""The page of open questions, and the form in which one is decided."""

from collections.abc import Mapping
from typing import Any, Final

from api.console import forms
from api.console.client import ApiFault, segment
from api.console.html import badge, empty, moment, pretty, text
from api.console.layout import Frame

_SHOWN_CHARS: Final = 20_000
_LIMIT: Final = 50


async def show(frame: Frame) -> None:
    try:
        cards = await cards_of(frame)
    except ApiFault as fault:
        cards = empty("The questions cannot be read just now.", text(fault))
    frame.show(
        "Tasks",
        "tasks",
        '<div class="head"><h1>Tasks</h1><p class="muted">Questions that runs wait on.</p></div>'
        f'<div id="asked" class="asked-list" aria-live="polite">{cards}</div>',
        "tasks.js",
    )

    async def refresh(facts: dict[str, Any]) -> None:
        frame.call("tasks.fill", await cards_of(frame))

    frame.on("tasks", refresh)
    decides(frame)


async def cards_of(frame: Frame, collaboration: str | None = None) -> str:
    """The open questions, of one run or of all."""
    page = await frame.api.get("/tasks", collaboration=collaboration, limit=_LIMIT)
    found = [await frame.api.get(f"/tasks/{one['id']}") for one in page["items"]]
    if not found and collaboration is None:
        return empty("Nobody is asked anything.", "A human step of a run puts its question here.")
    return "".join(_card(one, named=collaboration is None) for one in found)


def decides(frame: Frame) -> None:
    """Let a page that shows questions decide them."""

    async def decide(facts: dict[str, Any]) -> None:
        wanted = {"action": str(facts["action"]), "form": facts["form"], "groups": facts.get("groups") or []}
        if facts.get("actor"):
            wanted["actor"] = f"user:{str(facts['actor']).removeprefix('user:')}"
        if facts.get("edits"):
            wanted["edited"] = facts["edited"]
        task = await frame.api.post(f"/tasks/{segment(facts['task'])}/decisions", wanted)
        frame.toast("Decided." if task["status"] != "open" else "Noted. Others must decide as well.")
        frame.call("tasks.decided")

    frame.on("decide", decide)


def _card(task: Mapping[str, Any], *, named: bool) -> str:
    title, _, rest = str(task["title"]).partition("\n")
    edits = {action["edits"] for action in task["actions"] if action["edits"]}
    shown = "".join(
        _shown(str(task["id"]), key, value, may_edit=key in edits) for key, value in task["show"].items()
    )
    buttons = "".join(
        f'<button type="button" data-action="{text(action["id"])}" '
        f'data-edits="{text(action["edits"] or "")}" '
        f'data-requires="{text(",".join(action["requires"]))}"{" class=primary" if at == 0 else ""}>'
        f"{text(action['title'])}</button>"
        for at, action in enumerate(task["actions"])
    )
    users = [one.removeprefix("user:") for one in task["assignees"] if one.startswith("user:")]
    groups = [one for one in task["assignees"] if one.startswith("group:")]
    asked = f"asked of {', '.join(task['assignees'])}" if task["assignees"] else "asked of everybody"
    several = (
        f" · {len(task['decided_by'])} of {task['approvals']} have decided" if task["approvals"] > 1 else ""
    )
    run = (
        f'<a href="/console/runs/{segment(task["collaboration"])}">{text(task["collaboration"])}</a> · '
        if named
        else ""
    )
    form = forms.fields(task["form"], f"task-{task['id']}") if task["form"] else ""
    due = f" · due {moment(task['due_at'])}" if task["due_at"] else ""
    return f"""<form class="card asked" data-task="{text(task["id"])}" data-groups="{text(",".join(groups))}">
<div class="row">{badge("waiting")}<h2>{text(title)}</h2></div>
{f'<p class="rest">{text(rest.strip())}</p>' if rest.strip() else ""}
<p class="muted small">{run}step {text(task["path"])} · {text(asked)}{several} · since
{moment(task["opened_at"])}{due}</p>
{shown}{form}
<div class="decide"><label class="as">as <input name="actor" value="{text(users[0] if users else "")}"
 placeholder="your name" aria-label="Who decides" autocomplete="username"></label>{buttons}</div></form>"""


def _shown(task: str, key: str, value: Any, *, may_edit: bool) -> str:
    content = pretty(value)
    id = f"show-{text(task)}-{text(key)}"
    if may_edit:
        kind = "text" if isinstance(value, str) else "json"
        return (
            f'<div class="field">'
            f'<label for="{id}">{text(key)} <span class="muted">(may be changed)</span></label>'
            f'<textarea id="{id}" class="code" rows="8" data-edit="{text(key)}" '
            f'data-as="{kind}">{text(content)}'
            "</textarea></div>"
        )
    return (
        f'<div class="field"><h3>{text(key)}</h3><pre class="box">{text(content, _SHOWN_CHARS)}</pre></div>'
    )
