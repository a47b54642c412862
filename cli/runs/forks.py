"""`facilitair fork | rerun | show`: go on from a run, and see where runs come from."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import InputJsonOption, InputOption, JsonOption
from cli.output import err, out, print_json, print_warnings
from cli.runs.inputs import parse, read_bytes, read_json
from cli.runs.runs import IdArgument, to_its_end
from cli.watch.follow import order_of
from cli.watch.tree import print_end, steps
from schema.errors import Refused

DefinitionOption = Annotated[
    str | None,
    typer.Option("--definition", "-d", help="name, name@3, name@alias, or a version's number."),
]
NewIdOption = Annotated[str | None, typer.Option("--id", help="The new run's own id.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it has ended.")]


@command
def fork(
    api: Api,
    id: IdArgument,
    from_steps: Annotated[
        list[str] | None,
        typer.Option("--from", "-f", help="A step that runs again, with all that depends on it. Repeat it."),
    ] = None,
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="step=JSON or step=@file: output that replaces the step's own. Repeat it."
        ),
    ] = None,
    definition: DefinitionOption = None,
    new_id: NewIdOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run some steps of a run again, in a new run. What it had finished besides is kept and costs nothing.

    --input changes fields of the run's own input; --input-json replaces it.
    """
    body: dict[str, Any] = {"from": from_steps or [], "outputs": dict(_output(one) for one in outputs or [])}
    if inputs or input_json:
        body["input"] = _input(api, id, inputs or [], input_json)
    _go_on(api, id, "fork", body, definition, new_id, wait=wait, as_json=as_json)


@command
def rerun(
    api: Api,
    id: IdArgument,
    definition: DefinitionOption = None,
    new_id: NewIdOption = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Go on where a run failed, in a new run. What it had finished is kept and costs nothing."""
    _go_on(api, id, "rerun", {}, definition, new_id, wait=wait, as_json=as_json)


@command
def show(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Show a run: its answer, its steps, where it comes from and what came of it."""
    run: dict[str, Any] = api.whole(f"/collaborations/{segment(id)}", "steps", include="output,lineage")
    if as_json:
        print_json(run)
        return
    print_end(out(), run, steps(run, order_of(api, run)))
    for line in lineage_lines(run.get("lineage") or {}):
        out().print(line)


def lineage_lines(lineage: dict[str, Any]) -> list[Text]:
    """Return the run's source and its forks, one line each."""
    found: list[Text] = []
    if source := lineage.get("forked_from"):
        again = ", ".join(lineage["forked_at"]) or "nothing"
        found.append(_line("forked from", source, f"ran again: {again}"))
    if parent := lineage.get("parent"):
        found.append(_line("part of", parent))
    found += [_line("child", child, child["path"]) for child in lineage.get("children") or ()]
    found += [_line("fork", one) for one in lineage.get("forks") or ()]
    return found


def _line(what: str, relative: dict[str, Any], more: str = "") -> Text:
    version = f"{relative['name']}@{relative['version']}"
    return Text.assemble(
        (f"{what}  ", "dim"), (relative["id"], "bold"), f"  {version}  {relative['status']}  {more}".rstrip()
    )


def _output(pair: str) -> tuple[str, Any]:
    step, equals, value = pair.partition("=")
    if not equals or not step:
        raise Refused("request_invalid", f"found --set {pair!r}; expected step=JSON or step=@file.")
    given = read_bytes(value[1:]) if value.startswith("@") else value
    hint = f" A text stands in quotes: --set '{step}=\"…\"'."
    return step, read_json(given, f"--set {step}", hint=hint)


def _input(api: Api, id: str, pairs: list[str], json_path: str | None) -> Any:
    given = parse(pairs, json_path)
    if json_path is not None:
        return given
    own = api.get(f"/collaborations/{segment(id)}", include="input", limit=1)["input"]
    return {**own, **given} if isinstance(own, dict) else given


def _go_on(
    api: Api,
    id: str,
    how: str,
    body: dict[str, Any],
    definition: str | None,
    new_id: str | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    if definition:
        body["definition"] = int(definition) if definition.isdecimal() else definition
    if new_id:
        body["id"] = new_id
    accepted = api.post(f"/collaborations/{segment(id)}/{how}", body)
    if not as_json:
        print_warnings(accepted)
        for what in ("kept", "resumed", "again"):
            if accepted[what]:
                err().print(Text.assemble((f"{what}: ", "dim"), ", ".join(accepted[what])))
    if wait:
        to_its_end(api, accepted["id"], as_json=as_json)
    elif as_json:
        print_json(accepted)
    else:
        out().print(accepted["id"], markup=False)
