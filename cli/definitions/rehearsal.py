"""`facilitair plan | dry-run`: what a definition would do, before anything runs."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from rich.tree import Tree

from cli.client import Api
from cli.command import command
from cli.definitions.definitions import read_definition
from cli.options import InputJsonOption, InputOption, JsonOption
from cli.output import FAILED, InputRefused, columns, err, out, print_json
from cli.runs.inputs import parse, read_bytes, read_json
from cli.watch.tree import print_output
from schema.errors import Problem

WhatArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME", help="A definition as JSON or YAML, or a stored one: name, name@version."
    ),
]

_STYLES: Final = {
    "completed": "green",
    "failed": "red",
    "stopped": "yellow",
    "caught": "yellow",
    "skipped": "dim",
    "cancelled": "dim",
}
_SHOWN_CHARS: Final = 60


def is_file(what: str) -> bool:
    """Tell whether the argument is a file rather than a stored name."""
    return what == "-" or what.endswith((".json", ".yaml", ".yml")) or Path(what).is_file()


@command
def plan(
    api: Api,
    what: WhatArgument,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a definition would do in which order; a file is read on this machine."""
    found = _plan_of_file(what) if is_file(what) else api.post("/definitions/plan", {"name": what})
    if mermaid:
        out().print(found["mermaid"], markup=False, soft_wrap=True)
    elif as_json:
        print_json(found)
    else:
        out().print(_tree(found))
        out().print(_estimate(found["estimate"]))


def _plan_of_file(file: str) -> dict[str, Any]:
    from gateway.prices import per_token
    from plan import diagram
    from plan.compile import compile_plan

    definition = read_definition(file).definition
    whole = compile_plan(definition)
    picture = diagram.as_json(definition, whole, per_token)
    return picture | {"mermaid": diagram.mermaid(definition, whole)}


def _tree(found: dict[str, Any]) -> Tree:
    root = Tree(Text(found["name"], style="bold"))
    branches = {"": root}
    for node in found["nodes"]:
        branches[node["id"]] = branches[node["frame"]].add(_line(node, found["edges"]))
    return root


def _line(node: dict[str, Any], edges: list[dict[str, str]]) -> Text:
    line = Text.assemble((node["id"], "cyan"), f"  {_short(node['what'])}")
    after = [_source(edge) for edge in edges if edge["to"] == node["id"] and edge["kind"] != "stream"]
    if after:
        line.append(f"  after {', '.join(after)}")
    if node["quorum"]:
        line.append(f"  {node['quorum']} of them are enough")
    if node["when"]:
        line.append(f"  when {_short(node['when'])}")
    line.append(f"  {node['done']}", style="dim")
    return line


def _source(edge: dict[str, str]) -> str:
    match edge["kind"]:
        case "branch":
            return f"{edge['from']}:{edge['label']}"
        case "catch":
            return f"{edge['from']} failed ({edge['label']})"
        case "wait":
            return f"{edge['from']} or its skipping"
        case "live":
            return f"the first {edge['label']} of {edge['from']}"
    return edge["from"]


def _estimate(most: dict[str, Any]) -> Text:
    cost = "" if most["usd"] is None else f", ${most['usd']:.4f}"
    tree = most["tree"]
    within = (
        f", with sub-collaborations {tree['executions']:,} executions in {tree['children'] + 1:,} runs"
        if most["children"]
        else ""
    )
    return Text(
        f"At most {most['executions']:,} executions, {most['events']:,} events, {most['model_calls']:,} "
        f"model calls{cost}{within}; retries apart.",
        style="dim",
    )


@command
def dry_run(
    api: Api,
    what: WhatArgument,
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    mocks: Annotated[
        str | None,
        typer.Option("--mocks", metavar="FILE", help="step to list of answers, as JSON; - reads stdin."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Walk a definition with mocked answers: no model, person or network is asked, nothing is recorded."""
    value = parse(inputs or [], input_json)
    answers = _mocks(mocks)
    if is_file(what):
        found = _rehearsed(what, value, answers)
    else:
        body = {"name": what, "input": value, "mocks": answers}
        found = api.post("/definitions/dry-run", body)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["status"] != "completed":
        raise typer.Exit(FAILED)


def _mocks(file: str | None) -> Any:
    if file is None:
        return {}
    return read_json(read_bytes(file), file, code="mocks_invalid")


def _rehearsed(file: str, value: Any, given: Any) -> dict[str, Any]:
    from activities.rehearsal.walk import MocksInvalid, rehearse
    from schema.rules.mocks import read

    definition = read_definition(file).definition
    answers, problems = read(given)
    if problems:
        raise _mocks_refused(problems)
    try:
        return rehearse(definition, value, answers).as_json()
    except MocksInvalid as error:
        raise _mocks_refused(error.problems) from None


def _mocks_refused(problems: list[Problem]) -> InputRefused:
    return InputRefused("mocks_invalid", "the mocks do not fit the definition", problems)


def _print(found: dict[str, Any]) -> None:
    table = columns("step", "kind", "status", "given", "came to", "", overflow="fold")
    for entry in found["trace"]:
        again = f" (attempt {entry['attempt']})" if entry["attempt"] > 1 else ""
        came_to = entry["error"]["code"] if entry["error"] else _cell(entry["output"])
        table.add_row(
            entry["path"],
            entry["kind"],
            Text(entry["status"] + again, style=_STYLES[entry["status"]]),
            Text(_cell(entry["input"])),
            Text(came_to),
            Text("made up" if entry["mocked"] == "default" else entry["mocked"], style="yellow"),
        )
    out().print(table)
    out().print()
    if found["status"] == "completed":
        print_output(out(), found["output"])
    else:
        error = found["error"]
        out().print(Text.assemble((error["code"], "red bold"), ": ", error["message"]))
    out().print(
        Text(
            f"\n{found['status']}; {found['executed']:,} steps, {found['model_calls']:,} model calls", "bold"
        )
    )
    for title, names in (("made up", found["defaulted"]), ("never reached", found["never_reached"])):
        if names:
            err().print(Text(f"{title}: {', '.join(names)}", style="yellow"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 1]}…"
