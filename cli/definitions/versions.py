"""`facilitair versions | diff | alias | rollback | deprecate`: which version of a definition is meant."""

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.definitions.definitions import read_definition
from cli.options import JsonOption, LimitOption
from cli.output import columns, err, out, print_json, print_more, print_warnings
from schema.errors import Refused

if TYPE_CHECKING:
    from schema.language.diff import ChangedPart, Difference, FieldChange

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a definition.")]

_MARKS: Final = {
    "added": ("+", "green"),
    "add": ("+", "green"),
    "removed": ("-", "red"),
    "remove": ("-", "red"),
    "changed": ("~", "yellow"),
    "replace": ("~", "yellow"),
    "move": ("~", "yellow"),
}
_SHOWN_CHARS: Final = 100


@command
def versions(
    api: Api,
    name: NameArgument,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a definition, newest first, with their aliases."""
    page = api.get(f"/definitions/{segment(name)}/versions", limit=limit)
    named = api.get(f"/definitions/{segment(name)}/aliases")
    if as_json:
        print_json({"versions": page["items"], "aliases": named["items"], "meant": named["meant"]})
        return
    table = columns("version", "stored", "by", "sha256", "known as")
    for one in page["items"]:
        number = one["version"]
        names = [f"@{alias['alias']}" for alias in named["items"] if alias["version"] == number]
        known = Text(", ".join([name, *names] if number == named["meant"] else names))
        if one["deprecated"]:
            known.append(f"{' ' if known else ''}deprecated: {one['deprecated']}", style="red")
        table.add_row(str(number), one["created_at"][:19], one["created_by"] or "", one["sha256"][:12], known)
    out().print(table)
    print_more(page, limit)


@command
def diff(
    api: Api,
    what: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A definition's name, or a file with its next version.")
    ],
    before: Annotated[
        str | None, typer.Argument(metavar="A", help="A version or alias; left out for a file.")
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="A version or alias. Default: what the name means.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two versions, or between the newest one and a file, by step and field."""
    if before is None:
        found, title = _with_file(api, what)
    else:
        query = {"from": before, "to": after}
        found = api.get(f"/definitions/{segment(what)}/diff", **query)
        title = f"{what}@{found['from']} → {what}@{found['to']}"
    if as_json:
        print_json(found)
    else:
        _print_difference(out(), title, found)


def _with_file(api: Api, path: str) -> tuple[dict[str, Any], str]:
    """(the difference in the API's shape, its title)."""
    from schema.language.diff import changes, difference, unified

    definition = read_definition(path).definition
    mine = definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    name = definition.name
    newest = api.get(f"/definitions/{name}/versions", limit=1)["items"][0]["version"]
    stored = api.get(f"/definitions/{name}", version=newest)["definition"]
    found = _as_api(difference(stored, mine))
    title = f"{name}@{newest} → {PurePath(path).name}"
    more = {
        "name": name,
        "from": newest,
        "to": None,
        "changes": [_change(one) for one in changes(stored, mine)],
        "text": unified(stored, mine, f"{name}@{newest}", path),
    }
    return more | found, title


def _as_api(found: "Difference") -> dict[str, Any]:
    return {
        "steps": [_part(one) for one in found.steps],
        "agents": [_part(one) for one in found.agents],
        "input": [_change(one) for one in found.input],
        "rest": [_change(one) for one in found.rest],
        "breaking": [vars(one) for one in found.breaking],
    }


def _part(one: "ChangedPart") -> dict[str, Any]:
    return vars(one) | {"fields": [_change(change) for change in one.fields]}


def _change(one: "FieldChange") -> dict[str, Any]:
    return {"op": one.op, "path": one.path, "from": one.before, "to": one.after}


def _print_difference(console: Console, title: str, found: dict[str, Any]) -> None:
    console.print(Text(title, style="bold"))
    parts = [("step", one) for one in found["steps"]] + [("agent", one) for one in found["agents"]]
    for what, part in parts:
        mark, style = _MARKS[part["change"]]
        kind = f" ({part['kind']})" if what == "step" else ""
        console.print(Text(f"{mark} {what} {part['id']}{kind}", style=style))
        for change in part["fields"]:
            console.print(_line(change, indent="    "))
    rest = [*found["input"], *found["rest"], *found.get("pins", ())]
    for change in rest:
        console.print(_line(change, indent=""))
    for one in found["breaking"]:
        console.print(Text(f"! breaking: {one['reason']} ({one['path']})", style="red bold"))
    if not parts and not rest:
        console.print("no difference")


def _line(change: dict[str, Any], *, indent: str) -> Text:
    mark, style = _MARKS[change["op"]]
    line = Text.assemble(indent, (f"{mark} {change['path']}", style), "  ")
    if change["op"] in ("remove", "replace", "move"):
        line.append(_shown(change["from"]), style="red")
    if change["op"] in ("replace", "move"):
        line.append(" → ")
    if change["op"] in ("add", "replace", "move"):
        line.append(_shown(change["to"]), style="green")
    return line


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


@command
def alias(
    api: Api,
    what: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="Such as code-review@stable.")],
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="The version it means.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Name a version, or move the name to another. `current` is what the bare name means."""
    name, _, own = what.partition("@")
    if not own or (version is None) is not remove:
        raise Refused(
            "input_invalid", f"found {what!r}; expected NAME@ALIAS VERSION, or NAME@ALIAS --remove."
        )
    path = f"/definitions/{segment(name)}/aliases/{segment(own)}"
    if remove:
        api.delete(path)
        answer: dict[str, Any] = {"name": name, "alias": own, "version": None}
    else:
        answer = api.put(path, {"version": version})
    if as_json:
        print_json(answer)
        return
    out().print(f"{what} removed" if remove else f"{what} is {name}@{version}", markup=False)
    print_warnings(answer)


@command
def rollback(
    api: Api,
    name: NameArgument,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="Default: the one before what the name means now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a name mean an earlier version, until a new one is uploaded. Runs under way keep theirs."""
    answer = api.post(f"/definitions/{segment(name)}/rollback", {"version": version})
    if as_json:
        print_json(answer)
        return
    out().print(Text.assemble((f"{name}@{answer['to']}", "bold"), f"  instead of {name}@{answer['from']}"))
    err().print(f"the next `facilitair apply` of a new version makes {name} mean that one", markup=False)


@command
def deprecate(
    api: Api,
    name: NameArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Shown to everyone who starts it.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Warn of a version: the bare name does not mean it any more, and who starts it is told why."""
    if bool(reason) is undo:
        raise Refused("input_invalid", "found no --reason or one too many; expected --reason TEXT or --undo.")
    path = f"/definitions/{segment(name)}/versions/{version}/deprecate"
    answer = api.delete(path) if undo else api.post(path, {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        out().print(f"{name}@{version} {'can be used again' if undo else 'is deprecated'}", markup=False)
