"""`facilitair run | watch | cancel`."""

from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, connect, segment
from cli.follow import follow
from cli.inputs import parse
from cli.options import DataOption, InputJsonOption, InputOption, JsonOption, UrlOption
from cli.output import FAILED, err, out, print_json, print_warnings, told
from cli.tree import print_end, result

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id that `run` printed.")]


@told
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="name, name@version or name@alias.")],
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    id: Annotated[str | None, typer.Option("--id", help="The run's own id.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it has ended.")] = True,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a collaboration and show how it goes, its answer and what each step took."""
    value = parse(inputs or [], input_json)
    api = connect(url, data)
    body = {"definition": name, "input": value} | ({"id": id} if id else {})
    accepted = api.post("/collaborations", body)
    if not as_json:
        print_warnings(accepted)
    if wait:
        to_its_end(api, accepted["id"], as_json=as_json)
    elif as_json:
        print_json(accepted)
    else:
        out().print(accepted["id"], markup=False)
        err().print(f"`facilitair watch {accepted['id']}` shows how it goes", markup=False)


@told
def watch(
    id: IdArgument, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show how a run goes, until it has ended."""
    to_its_end(connect(url, data), id, as_json=as_json)


@told
def cancel(
    id: IdArgument, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Ask a run to stop."""
    answer: dict[str, Any] = connect(url, data).post(f"/collaborations/{segment(id)}/cancel")
    if as_json:
        print_json(answer)
    else:
        out().print(f"cancelling {answer['id']}", markup=False)


def to_its_end(api: Api, id: str, *, as_json: bool) -> None:
    """Show a run until it has ended; exits with 1 when it failed."""
    try:
        seen = follow(api, id)
    except KeyboardInterrupt:
        err().print(Text(f"\n{id} goes on without you. `facilitair watch {id}` or `facilitair cancel {id}`."))
        raise
    if as_json:
        print_json(result(seen.run, seen.steps()))
    else:
        print_end(out(), seen.run, seen.steps())
    if seen.run["status"] != "completed":
        raise typer.Exit(FAILED)
