"""All runs: found, watched from afar, started."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from api.console import forms
from api.console.client import Fault, segment
from api.console.html import badge, dollars, empty, moment, number, seconds, simulated, text
from api.console.layout import Frame

_PAGE: Final = 50
_LOOK_SECONDS: Final = 1.0
_STATUSES: Final = ("running", "completed", "failed")
_TASK_CHARS: Final = 160


class _Runs:
    """The list that one page shows."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.q = frame.query.get("q", "")[:200]
        self.status = frame.query.get("status", "")
        self.name = frame.query.get("name", "")
        self.pages = 1
        self.visible = True
        self.more: str | None = None
        self._sent = ""

    async def rows(self) -> str:
        """Everything that the page has unfolded, as rows of its table."""
        status = self.status if self.status in _STATUSES else ""
        items: list[dict[str, Any]] = []
        after: str | None = None
        for _ in range(self.pages):
            found = await self.frame.api.get(
                "/collaborations", q=self.q, status=status, name=self.name, after=after, limit=_PAGE
            )
            items += found["items"]
            after = found["next"]
            if after is None:
                break
        self.more = after
        if not items:
            return f'<tr class="none"><td colspan="8">{self._none()}</td></tr>'
        return "".join(_row(one) for one in items)

    def _none(self) -> str:
        if self.q or self.status or self.name:
            return empty("No run fits.", "Search looks at ids, names and tasks.")
        return empty(
            "Nothing has run yet.",
            'Choose <b>Start a run</b>, or <a href="definitions">write a definition</a>.',
        )

    async def send(self, *, always: bool = False) -> None:
        rows = await self.rows()
        if always or rows != self._sent:
            self._sent = rows
            self.frame.call("runs.show", rows, self.more is not None)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.visible:
                try:
                    await self.send()
                except Fault:
                    continue  # the next look may succeed


async def show(frame: Frame) -> None:
    runs = _Runs(frame)
    try:
        rows = await runs.rows()
    except Fault as fault:
        wrong = empty("The runs cannot be read just now.", text(fault))
        rows = f'<tr class="none"><td colspan="8">{wrong}</td></tr>'
    frame.show("Runs", "runs", _page(runs, rows), "runs.js")

    async def search(facts: dict[str, Any]) -> None:
        runs.q, runs.status = str(facts["q"])[:200].strip(), str(facts["status"])
        runs.pages = 1
        await runs.send(always=True)

    async def further(facts: dict[str, Any]) -> None:
        runs.pages += 1
        await runs.send(always=True)

    async def visible(facts: dict[str, Any]) -> None:
        runs.visible = bool(facts["is"])

    frame.on("search", search)
    frame.on("more", further)
    frame.on("visible", visible)
    starts(frame)
    frame.when_connected(runs.watch)


def _page(runs: _Runs, rows: str) -> str:
    chips = "".join(
        f'<button type="button" class="chip" data-status="{one}" '
        f'aria-pressed="{str(one == runs.status).lower()}">'
        f"{one.capitalize() or 'All'}</button>"
        for one in ("", *_STATUSES)
    )
    of_name = f' of <a href="definitions/{segment(runs.name)}">{text(runs.name)}</a>' if runs.name else ""
    return f"""<div class="head"><h1>Runs{of_name}</h1>
<button class="primary" id="new-run" title="Start a run (n)">Start a run</button></div>
<div class="filters" role="search">
<input type="search" id="search" value="{text(runs.q)}" placeholder="Search id, name or task"
aria-label="Search runs">
<div class="chips" role="group" aria-label="Status">{chips}</div></div>
<table class="list runs" aria-label="Runs, newest first"><thead><tr><th>Status</th><th>Definition</th>
<th>Task</th>
<th>Started</th><th class="n">Time</th><th class="n">Tokens</th><th class="n">Cost</th><th>
<span class="sr">Simulated</span></th></tr></thead>
<tbody id="rows">{rows}</tbody></table>
<div class="row center"><button id="more"{"" if runs.more else " hidden"}>Show more</button></div>
{dialog()}"""


def state_of(run: Mapping[str, Any]) -> str:
    """How a run stands, in one word."""
    return str(run["sub_state"] or run["status"])


def task_of(run: Mapping[str, Any]) -> str:
    """What the run is about; of an empty input nothing."""
    return "" if run["task"] == "{}" else str(run["task"])


def _row(run: Mapping[str, Any]) -> str:
    address = f"/console/runs/{segment(run['id'])}"
    version = f"@{run['version']}" if run["version"] else ""
    task = text(task_of(run), _TASK_CHARS) or '<span class="muted">no task</span>'
    # The browser counts the seconds of what runs: a row is sent again only when it says something new.
    lasts = (
        f'<span data-since="{text(run["started_at"])}"></span>'
        if run["status"] == "running"
        else seconds(run["seconds"])
    )
    return (
        f'<tr data-id="{text(run["id"])}"><td>{badge(state_of(run))}</td>'
        f'<td><a class="name" href="{address}">{text(run["name"])}<span class="muted">{version}</span></a>'
        f'<span class="id">{text(run["id"])}</span></td><td class="task">{task}</td>'
        f'<td class="when">{moment(run["started_at"])}</td><td class="n">{lasts}</td>'
        f'<td class="n" data-label="tokens">{number(run["tokens"])}</td>'
        f'<td class="n">{dollars(run["cost_usd"])}</td><td>{simulated(run.get("simulated", False))}</td></tr>'
    )


def dialog() -> str:
    """Where a run is started; any page may hold it."""
    return """<dialog id="start" aria-labelledby="start-title"><form id="start-form">
<h2 id="start-title">Start a run</h2>
<div class="field"><label for="start-name">Definition</label>
<select id="start-name" required></select></div>
<div id="start-fields"></div>
<p class="bad" id="start-wrong" role="alert"></p>
<div class="row end"><button type="button" data-close>Cancel</button>
<button class="primary" type="submit">Start</button></div></form></dialog>"""


def starts(frame: Frame) -> None:
    """Let a page that has the dialog start runs."""

    async def names(facts: dict[str, Any]) -> None:
        found = await frame.api.get("/definitions", limit=200)
        frame.call("start.names", [one["name"] for one in found["items"]], facts.get("name") or "")

    async def chosen(facts: dict[str, Any]) -> None:
        found = await frame.api.get(f"/definitions/{segment(facts['name'])}", version=facts.get("version"))
        frame.call("start.fields", found["name"], forms.fields(found["definition"].get("input"), "start"))

    async def start(facts: dict[str, Any]) -> None:
        wanted = {"definition": str(facts["name"]), "input": facts["input"]}
        try:
            begun = await frame.api.post("/collaborations", wanted)
        except Fault as fault:
            frame.call("start.wrong", str(fault))
            return
        frame.go(f"/console/runs/{segment(begun['id'])}")

    frame.on("start-names", names)
    frame.on("start-chosen", chosen)
    frame.on("start", start)
