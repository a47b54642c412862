"""`facilitair apply | validate | list | runs`: definitions, and the runs of them."""

import re
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.client import Api
from cli.command import command
from cli.options import JsonOption, LimitOption
from cli.output import InputRefused, columns, err, out, print_json, print_page, print_warnings
from cli.runs.inputs import read_bytes
from schema.errors import Refused

if TYPE_CHECKING:
    from schema.errors import Problem
    from schema.rules.validate import ValidDefinition

_SUFFIXES = (".json", ".yaml", ".yml")
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
    from schema.rules.positions import lines

    found = lines(content.decode("utf-8", "replace"), [one.pointer for one in refusal.problems])
    return InputRefused(refusal.code, refusal.message, refusal.problems, found)


def _print_inferred(inferred: dict[str, Any]) -> None:
    for step, names in inferred.items():
        err().print(Text(f"  {step} needs {', '.join(names)} (inferred from its references)", style="dim"))


@command
def apply(
    api: Api,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Definitions as JSON or YAML, or folders of them; - reads JSON.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Upload definitions: each the next version of its name, or the one it already is. Those that others run
    go first."""
    stored = _uploaded(api, {file: read_bytes(file) for file in _expanded(files)}, quiet=as_json)
    if as_json:
        print_json(stored[0] if len(files) == len(stored) == 1 else {"items": stored})


def _expanded(files: list[str]) -> list[str]:
    """Return the files that are meant, those of a folder in the order of their names. Raises Refused."""
    found = []
    for file in files:
        if not Path(file).is_dir():
            found.append(file)
        elif inside := sorted(path for path in Path(file).iterdir() if path.suffix in _SUFFIXES):
            found += [str(path) for path in inside]
        else:
            raise Refused(
                "file_unreadable",
                f"found no definition in the folder {file!r}; expected files that end "
                f"in {', '.join(_SUFFIXES)}.",
            )
    return found


def _uploaded(api: Api, contents: dict[str, bytes], *, quiet: bool) -> list[dict[str, Any]]:
    """Upload all, those that are refused for want of another again behind the others. Raises InputRefused."""
    stored: list[dict[str, Any]] = []
    waiting: dict[str, InputRefused] = {}
    for file, content in contents.items():
        try:
            one = api.upload(content, is_yaml=_is_yaml(file), name=_name(file))
        except InputRefused as refusal:
            told = _with_lines(_of_file(refusal, file, contents), content)
            if {problem.code for problem in refusal.problems} != {"collaboration_unknown"}:
                raise told from None
            waiting[file] = told
            continue
        stored.append(one)
        if not quiet:
            _print_stored(one)
    if waiting and not stored:
        raise next(iter(waiting.values()))
    return stored + (_uploaded(api, {one: contents[one] for one in waiting}, quiet=quiet) if waiting else [])


def _of_file(refusal: InputRefused, file: str, contents: dict[str, bytes]) -> InputRefused:
    if len(contents) == 1:
        return refusal
    return InputRefused(refusal.code, f"{file}: {refusal.message}", refusal.problems)


def _print_stored(stored: dict[str, Any]) -> None:
    state = "new" if stored["created"] else "unchanged"
    out().print(Text.assemble((f"{stored['name']}@{stored['version']}", "bold"), f"  {state}"))
    _print_inferred(stored["inferred"])
    print_warnings(stored)


def read_definition(file: str) -> "ValidDefinition":
    """A definition that was checked on this machine; raises InputRefused with every problem and its line."""
    from schema.errors import InvalidDefinition
    from schema.rules.validate import validate_bytes

    content = read_bytes(file)
    try:
        return validate_bytes(content, is_yaml=_is_yaml(file), name=_name(file))
    except InvalidDefinition as error:
        problems = [_offline(one) for one in error.problems]
        refusal = InputRefused(error.code, _count(problems), problems)
        raise _with_lines(refusal, content) from None


def _offline(problem: "Problem") -> "Problem":
    """Tell whether a problem can be found offline; what only the platform knows may still be right."""
    short = problem.code == "agent_without_model" and not problem.pointer.startswith("/agents")
    model = problem.code == "model_unknown" and "/" in problem.found
    if not (short or model or problem.code in ("role_unknown", "skill_unknown", "prompt_unknown")):
        return problem
    fix = f"{problem.fix} Or upload it: your tenant may know it, this machine alone does not."
    return replace(problem, fix=fix)


@command
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


@command
def list_(
    api: Api,
    runs: Annotated[bool, typer.Option("--runs", help="List runs, newest first.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Runs of this definition only.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="running, completed or failed; runs only.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List definitions, or the runs of them."""
    if runs or name is not None or status is not None:
        _print_runs(api, limit, as_json=as_json, name=name, status=status)
        return
    page = api.get("/definitions", limit=limit)
    if as_json:
        print_json(page)
        return
    table = columns("name", "version", "stored", "sha256")
    for one in page["items"]:
        table.add_row(*_definition_row(one))
    print_page(page, table, limit)


@command
def runs(
    api: Api,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Runs of this definition only.")
    ] = None,
    status: Annotated[str | None, typer.Option("--status", help="running, completed or failed.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Words of the id, the definition's name or the task.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="ISO 8601: started then or later.")
    ] = None,
    least_usd: Annotated[
        float | None, typer.Option("--least-usd", min=0, help="Cost at least so many dollars.")
    ] = None,
    simulated: Annotated[
        bool | None, typer.Option("--simulated/--real", help="Only simulated runs, or only real ones.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    _print_runs(
        api,
        limit,
        as_json=as_json,
        name=name,
        status=status,
        q=search,
        since=since,
        least_usd=least_usd,
        simulated=simulated,
    )


def _print_runs(api: Api, limit: int, *, as_json: bool, **query: str | float | None) -> None:
    page = api.get("/collaborations", limit=limit, **query)
    if as_json:
        print_json(page)
        return
    table = columns("id", "definition", "status", "started", "seconds", "$")
    for one in page["items"]:
        table.add_row(*_run_row(one))
    print_page(page, table, limit)


def _run_row(one: dict[str, Any]) -> list[str]:
    return [
        one["id"],
        f"{one['name']}@{one['version']}",
        one["sub_state"] or one["status"],
        one["started_at"][:19],
        f"{one['seconds']:.1f}",
        f"{one['cost_usd']:.4f}",
    ]


def _definition_row(one: dict[str, Any]) -> list[str]:
    return [one["name"], str(one["version"]), one["created_at"][:19], one["sha256"][:12]]
