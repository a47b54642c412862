"""`facilitair tasks | tasks show | decide`: what people are asked, and what they decide."""

import getpass
import json
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text

from cli.client import Api, connect, segment
from cli.command import command
from cli.options import DataOption, JsonOption, LimitOption, UrlOption
from cli.output import columns, out, print_json, print_page
from cli.runs.inputs import parse, read_bytes, read_json
from schema.errors import Refused
from schema.rules.people import unnamed

app = typer.Typer()

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A question's id, or a run's that asks one question.")
]


@app.callback(invoke_without_command=True)
@command
def list_(
    context: typer.Context,
    assignee: Annotated[
        list[str] | None,
        typer.Option("--assignee", help="user:<name> or group:<name>: what they may decide. Repeat it."),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Questions of this run only.")] = None,
    status: Annotated[str, typer.Option("--status", help="open, decided, expired or cancelled.")] = "open",
    limit: LimitOption = 50,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what people are asked, oldest first."""
    if context.invoked_subcommand:
        return
    page = connect(url, data).get("/tasks", assignee=assignee, collaboration=run, status=status, limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("id", "run", "step", "asks", "whom", "can be", "until")
    for one in page["items"]:
        table.add_row(*map(Text, _row(one)))
    print_page(page, table, limit, "none")


def _row(one: dict[str, Any]) -> list[str]:
    return [
        one["id"],
        one["collaboration"],
        one["path"],
        one["title"],
        ", ".join(one["assignees"]) or "anybody",
        ", ".join(action["id"] for action in one["actions"]),
        (one["due_at"] or "")[:19],
    ]


@app.command()
@command
def show(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Show a question, what its people see, and what they have decided."""
    task = _find(api, id)
    if as_json:
        print_json(task)
    else:
        _print(task)


@command
def decide(
    api: Api,
    id: IdArgument,
    action: Annotated[str, typer.Argument(metavar="ACTION", help="One that `tasks show` lists.")],
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", help="Of the form: key=text, key=@file or key:=JSON. Repeat it."),
    ] = None,
    form: Annotated[str | None, typer.Option("--form", metavar="JSON", help="The whole form.")] = None,
    edit: Annotated[
        str | None,
        typer.Option("--edit", help="What replaces the shown value: @file, text, or JSON where JSON was."),
    ] = None,
    actor: Annotated[
        str | None, typer.Option("--as", envvar="FACILITAIR_USER", help="Who decides. Default: your login.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", help="A group that they belong to. Repeat it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide what people are asked."""
    task = _find(api, id)
    body: dict[str, Any] = {
        "action": action,
        "form": _form(form) | parse(fields or [], None),
        "groups": groups or [],
    }
    if name := actor or login():
        body["actor"] = f"user:{name.removeprefix('user:')}"
    if edit is not None:
        body["edited"] = _edited(task, action, edit)
    answer = api.post(f"/tasks/{segment(task['id'])}/decisions", body)
    if as_json:
        print_json(answer)
        return
    waiting = answer["status"] == "open"
    state = f"waiting for others ({len(answer['decided_by'])} so far)" if waiting else answer["status"]
    out().print(Text(f"{answer['title']}  {action}  {state}"))


def _find(api: Api, id: str) -> dict[str, Any]:
    """A question by its id, or by that of the run that asks it."""
    try:
        UUID(id)
    except ValueError:
        found = api.get("/tasks", collaboration=id)["items"]
        if len(found) != 1:
            listed = ", ".join(f"{one['id']} ({one['path']})" for one in found) or "none"
            raise Refused(
                "human_task_unknown",
                f"found {len(found)} open questions of the run {id!r}; expected one. Open: {listed}.",
            ) from None
        if found[0].get("asking", 1) > 1:
            raise unnamed(found[0]["id"], found[0]["path"]) from None
        id = found[0]["id"]
    task: dict[str, Any] = api.get(f"/tasks/{segment(id)}")
    return task


def login() -> str | None:
    """None where the machine does not know who this is, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None


def _form(text: str | None) -> dict[str, Any]:
    value = read_json(text or "{}", "--form", code="human_form_invalid")
    if not isinstance(value, dict):
        raise Refused("human_form_invalid", f"found --form {text!r}; expected a JSON object.")
    return value


def _edited(task: dict[str, Any], action: str, text: str) -> Any:
    """Text where text was shown; where it was anything else, JSON."""
    given = read_bytes(text[1:]) if text.startswith("@") else text.encode()
    edits = next((one["edits"] for one in task["actions"] if one["id"] == action), None)
    if edits is None or isinstance(task["show"].get(edits), str):
        return given.decode("utf-8", "replace")
    return read_json(given, "--edit", code="human_form_invalid", hint=f" {edits!r} is not text.")


def _print(task: dict[str, Any]) -> None:
    console = out()
    console.print(Text.assemble((task["title"], "bold"), f"\n{task['collaboration']} · {task['path']}"))
    for name, value in task["show"].items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        console.print(Text.assemble(f"\n{name}\n", (shown, "cyan")))
    console.print(Text(f"\n{task['status']}; asked: {', '.join(task['assignees']) or 'anybody'}"))
    if task["approvals"] > 1:
        console.print(Text(f"{task['approvals']} must decide the same"))
    for one in task["actions"]:
        console.print(Text.assemble("  ", (one["id"], "bold"), f"  {_hint(one)}"))
    if task["form"]:
        console.print(Text(f"form: {json.dumps(task['form'], ensure_ascii=False)}"))
    for one in task["decisions"]:
        console.print(Text(f"{one['at'][:19]}  {one['actor']}  {one['action']}  {json.dumps(one['form'])}"))


def _hint(action: dict[str, Any]) -> str:
    requires = f"requires {', '.join(action['requires'])}" if action["requires"] else ""
    edits = f"may replace {action['edits']}" if action["edits"] else ""
    return "; ".join(part for part in (action["title"], requires, edits) if part)
