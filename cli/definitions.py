"""`facilitair apply | validate | list`: definitions, and the runs of them."""

import re
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.client import connect
from cli.inputs import read_bytes
from cli.options import DataOption, JsonOption, LimitOption, UrlOption
from cli.output import InputRefused, columns, err, out, print_json, print_page, print_warnings, told

if TYPE_CHECKING:
    from schema.errors import Problem
    from schema.validate import Checked

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="A definition as JSON or YAML; - reads JSON.")
]


def _is_yaml(path: str) -> bool:
    return path.endswith((".yaml", ".yml"))


def _name(path: str) -> str | None:
    """The name that a bare short-form list gets: its file's."""
    stem = PurePath(path).stem.lower().replace(" ", "-")
    return stem if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", stem) else None


def _with_lines(refusal: InputRefused, content: bytes) -> InputRefused:
    from cli.locate import lines

    found = lines(content.decode("utf-8", "replace"), [one.pointer for one in refusal.problems])
    return InputRefused(refusal.code, refusal.message, refusal.problems, found)


def _print_inferred(inferred: dict[str, Any]) -> None:
    for step, names in inferred.items():
        err().print(Text(f"  {step} needs {', '.join(names)} (inferred from its references)", style="dim"))


@told
def apply(
    file: FileArgument, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Upload a definition: the next version of its name, or the one it already is."""
    content = read_bytes(file)
    try:
        stored = connect(url, data).upload(content, is_yaml=_is_yaml(file), name=_name(file))
    except InputRefused as refusal:
        raise _with_lines(refusal, content) from None
    if as_json:
        print_json(stored)
        return
    state = "new" if stored["created"] else "unchanged"
    out().print(Text.assemble((f"{stored['name']}@{stored['version']}", "bold"), f"  {state}"))
    _print_inferred(stored["inferred"])
    print_warnings(stored)


def read_definition(file: str) -> "Checked":
    """A definition that was checked on this machine; raises InputRefused with every problem and its line."""
    from schema.errors import InvalidDefinition
    from schema.validate import validate_bytes

    content = read_bytes(file)
    try:
        return validate_bytes(content, is_yaml=_is_yaml(file), name=_name(file))
    except InvalidDefinition as error:
        problems = [_offline(one) for one in error.problems]
        refusal = InputRefused(error.code, _count(problems), problems)
        raise _with_lines(refusal, content) from None


def _offline(problem: "Problem") -> "Problem":
    """What only the platform knows may still be right."""
    short = problem.code == "agent_without_model" and not problem.pointer.startswith("/agents")
    model = problem.code == "model_unknown" and "/" in problem.found
    if not (short or model or problem.code in ("role_unknown", "skill_unknown", "prompt_unknown")):
        return problem
    fix = f"{problem.fix} Or upload it: your tenant may know it, this machine alone does not."
    return replace(problem, fix=fix)


@told
def validate(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check a definition on this machine; no platform needs to run."""
    checked = read_definition(file)
    inferred = {step: list(names) for step, names in checked.inferred.items()}
    if as_json:
        steps = len(checked.definition.steps)
        print_json({"valid": True, "name": checked.definition.name, "steps": steps, "inferred": inferred})
        return
    out().print(Text.assemble((checked.definition.name, "bold"), "  valid"))
    _print_inferred(inferred)


def _count(problems: list[Any]) -> str:
    return "one thing is wrong" if len(problems) == 1 else f"{len(problems)} things are wrong"


@told
def list_(
    runs: Annotated[bool, typer.Option("--runs", help="List runs, newest first.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Runs of this definition only.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="running, completed or failed; runs only.")
    ] = None,
    limit: LimitOption = 50,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List definitions, or the runs of them."""
    api = connect(url, data)
    with_runs = runs or name is not None or status is not None
    if with_runs:
        page = api.get("/collaborations", name=name, status=status, limit=limit)
    else:
        page = api.get("/definitions", limit=limit)
    if as_json:
        print_json(page)
        return
    of_runs, of_definitions = "id definition status started seconds $", "name version stored sha256"
    table = columns(*(of_runs if with_runs else of_definitions).split())
    for one in page["items"]:
        table.add_row(*(_run_row(one) if with_runs else _definition_row(one)))
    print_page(page, table, limit)


def _run_row(one: dict[str, Any]) -> list[str]:
    return [
        one["id"], f"{one['name']}@{one['version']}", one["sub_state"] or one["status"],
        one["started_at"][:19], f"{one['seconds']:.1f}", f"{one['cost_usd']:.4f}",
    ]  # fmt: skip


def _definition_row(one: dict[str, Any]) -> list[str]:
    return [one["name"], str(one["version"]), one["created_at"][:19], one["sha256"][:12]]
