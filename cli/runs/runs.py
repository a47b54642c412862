"""`facilitair run | watch | playback | cancel`."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Api, segment
from cli.command import command
from cli.options import InputJsonOption, InputOption, JsonOption
from cli.output import FAILED, err, out, print_json, print_warnings
from cli.runs.inputs import parse
from cli.watch.follow import RunSnapshot, WatcherLeft, follow, play
from cli.watch.tree import print_end, result

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id that `run` printed.")]
TokensOption = Annotated[bool, typer.Option("--tokens", help="Print what agents say, as they say it.")]


@command
def run(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="name, name@version or name@alias.")],
    inputs: InputOption = None,
    input_json: InputJsonOption = None,
    id: Annotated[str | None, typer.Option("--id", help="The run's own id.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it has ended.")] = True,
    tokens: TokensOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a collaboration and show how it goes, its answer and what each step took."""
    value = parse(inputs or [], input_json)
    body = {"definition": name, "input": value} | ({"id": id} if id else {})
    accepted = api.post("/collaborations", body)
    if not as_json:
        print_warnings(accepted)
    if wait:
        to_its_end(api, accepted["id"], as_json=as_json, tokens=tokens)
    elif as_json:
        print_json(accepted)
    else:
        out().print(accepted["id"], markup=False)
        err().print(f"`facilitair watch {shlex.quote(accepted['id'])}` shows how it goes", markup=False)


@command
def watch(
    api: Api,
    id: IdArgument,
    tokens: TokensOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how a run goes, until it has ended."""
    to_its_end(api, id, as_json=as_json, tokens=tokens)


@command
def playback(
    api: Api,
    id: IdArgument,
    speed: Annotated[
        float,
        typer.Option("--speed", "-s", min=0, max=1_000, help="1 as it was, 10 ten times as fast, 0 at once."),
    ] = 1.0,
    tokens: TokensOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a past run once more as it went. Nothing is run, nothing is paid."""
    with _leaving(""):
        _print(play(api, id, speed, speak=tokens), as_json=as_json)


@command
def cancel(api: Api, id: IdArgument, as_json: JsonOption = False) -> None:
    """Ask a run to stop."""
    cancel_run(api, id, as_json=as_json)


def cancel_run(api: Api, id: str, *, as_json: bool) -> None:
    answer: dict[str, Any] = api.post(f"/collaborations/{segment(id)}/cancel")
    if as_json:
        print_json(answer)
    else:
        out().print(f"cancelling {answer['id']}", markup=False)


def to_its_end(api: Api, id: str, *, as_json: bool, tokens: bool = False) -> None:
    """Show a run until it has ended; exits with 1 when it failed."""
    quoted = shlex.quote(id)
    with _leaving(f"{id} goes on without you. `facilitair watch {quoted}` or `facilitair cancel {quoted}`."):
        seen = follow(api, id, speak=tokens and not as_json)
        _print(seen, as_json=as_json)
        if seen.run["status"] != "completed":
            raise typer.Exit(FAILED)


@contextmanager
def _leaving(last_words: str) -> Iterator[None]:
    """Tell a person who leaves how to come back."""
    try:
        yield
    except (KeyboardInterrupt, WatcherLeft) as left:
        if last_words:
            err().print(Text(f"\n{last_words}"))
        if isinstance(left, KeyboardInterrupt):
            raise


def _print(seen: RunSnapshot, *, as_json: bool) -> None:
    if as_json:
        print_json(result(seen.run, seen.steps()))
    else:
        print_end(out(), seen.run, seen.steps())
