"""Output of commands: results on stdout, everything else on stderr, errors with a code and a cure."""

import logging
import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

import typer
from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

from cli.terminal import Terminal, json_text
from schema.errors import FacilitairError, InvalidDefinition, NotFound, Problem, Refused

FAILED: Final = 1
REFUSED: Final = 2
UNREACHABLE: Final = 3

_FILE_WIDTH: Final = 200


class NothingRunning(FacilitairError):
    """There is no platform to talk to."""


class InputRefused(Refused):
    """Raised for refused input; `problems` says where, with the line in the file if it is known."""

    def __init__(
        self, code: str, message: str, problems: list[Problem], lines: dict[str, int] | None = None
    ) -> None:
        super().__init__(code, message)
        self.problems = problems
        self.lines = lines or {}


def out() -> Console:
    # Made when used: NO_COLOR and a test's captured stream are looked up then.
    return _console(stderr=False)


def err() -> Console:
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Terminal(stderr=stderr)
    if not console.is_terminal:
        console.width = _FILE_WIDTH  # a file or a pipe has no edge: tables keep their words whole
    return console


def columns(*titles: str, overflow: OverflowMethod = "ellipsis") -> Table:
    """A table without lines, which reads the same in a file."""
    found = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        found.add_column(title, overflow=overflow)
    return found


def print_page(page: dict[str, Any], table: Table, limit: int, none: str = "none yet") -> None:
    out().print(table if page["items"] else none)
    print_more(page, limit)


def print_more(page: dict[str, Any], limit: int) -> None:
    """Say so where a page is not all there is."""
    if page["next"]:
        err().print(f"more than {limit}: raise --limit")


def print_json(value: Any) -> None:
    sys.stdout.write(json_text(value) + "\n")
    sys.stdout.flush()


def print_warnings(answer: dict[str, Any]) -> None:
    """Print the warnings in an answer of the API."""
    for warning in answer.get("warnings") or ():
        err().print(Text(f"! {warning}", style="yellow"))


def exit_code(error: FacilitairError) -> int:
    if isinstance(error, NothingRunning):
        return UNREACHABLE
    return REFUSED if isinstance(error, (Refused, NotFound, InvalidDefinition)) else FAILED


def fail(error: FacilitairError, *, as_json: bool) -> NoReturn:
    """Tell the error and end the command."""
    problems = getattr(error, "problems", [])
    lines: dict[str, int] = getattr(error, "lines", {})
    if as_json:
        told: dict[str, Any] = {"code": error.code, "message": error.message}
        if problems:
            told["problems"] = [
                one.as_json() | ({"line": lines[one.pointer]} if one.pointer in lines else {})
                for one in problems
            ]
        print_json({"error": told})
    else:
        console = err()
        console.print(Text.assemble((error.code, "red bold"), ": ", error.message))
        for one in problems:
            _print_problem(console, one, lines.get(one.pointer))
    raise typer.Exit(exit_code(error))


def tell_bug(error: Exception, *, as_json: bool) -> NoReturn:
    """Tell of a fault of the command itself, whose text is for a file of the user's alone, and end."""
    from schema.bugs import bug
    from schema.settings import default_data_dir

    log = logging.getLogger("facilitair.cli")
    log.propagate = False
    where = Path(os.environ.get("FACILITAIR_DATA") or default_data_dir()) / "logs" / "cli.log"
    try:
        with _private_log(where) as file:
            handler = logging.StreamHandler(file)
            handler.setFormatter(logging.Formatter("%(asctime)s %(bug)s %(message)s"))
            log.addHandler(handler)
            found = bug(error, log)
            log.removeHandler(handler)
        message = f"{found.message} Look into {where}."
    except OSError as full:
        message = f"found {type(error).__name__}, and {where} cannot be written ({type(full).__name__})."
    try:
        fail(FacilitairError("internal_error", message), as_json=as_json)
    except typer.Exit as end:
        sys.exit(end.exit_code)


def _private_log(where: Path) -> TextIO:
    where.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return os.fdopen(file, "a", encoding="utf-8", errors="backslashreplace")


def _print_problem(console: Console, problem: Problem, line: int | None) -> None:
    place = problem.pointer or "/"
    where = f"line {line}, {place}" if line else place
    console.print(Text.assemble("\n", (problem.code, "yellow"), f"  {where}"))
    console.print(Text(f"  found     {problem.found}"))
    console.print(Text(f"  expected  {problem.expected}"))
    console.print(Text(f"  fix       {problem.fix}"))
