"""`facilitair up | down | status | doctor`: the servers and processes of the platform on this machine."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.output import UNREACHABLE, columns, print_json
from cli.terminal import Terminal
from schema.errors import FacilitairError, Refused

if TYPE_CHECKING:
    from infra.local.doctor import CheckResult
    from infra.local.state import PlatformState

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Directory that holds everything.", envvar="FACILITAIR_DATA", file_okay=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_COLOURS = {
    "ready": "green",
    "external": "green",
    "good": "green",
    "failed": "red",
    "bad": "red",
    "stopped": "dim",
}
_REFRESH_SECONDS = 0.2
_DETACHED_READY_SECONDS = 300.0

out = Terminal()
err = Terminal(stderr=True)


def up(
    data: DataOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running and return.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the whole platform, or use the one that runs already."""
    from infra.local import private, read_state, start, start_detached

    directory = _directory(data)
    try:
        running = read_state(directory)
        adopted = running is not None and running.running
        if detach or adopted:
            if not adopted:
                start_detached(directory)
            elif not as_json:
                out.print(f"already running under {directory}")
            ready = _follow(lambda: read_state(directory), as_json=as_json)
            raise typer.Exit(0 if ready else 1)
        os.umask(private.UMASK)
        supervisor = start(directory)
    except FacilitairError as error:
        _fail(error, as_json)
    try:
        _follow(lambda: supervisor.state, as_json=as_json, until=_told_to_stop())
    finally:
        if not as_json:
            out.print("stopping …")
        supervisor.stop()


def down(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Stop the platform; its data stays."""
    from infra.local import stop_running

    directory = _directory(data)
    stopped = stop_running(directory)
    if as_json:
        print_json({"stopped": stopped, "data": str(directory)})
    else:
        out.print("stopped" if stopped else f"nothing was running under {directory}")


def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what runs and where it listens. Ends with 3 when nothing runs, and with 1 when something that is
    needed does not answer, or when the disk is too full for new runs."""
    from infra.local import read_state

    directory = _directory(data)
    now = read_state(directory)
    if as_json:
        sys.stdout.write(
            json.dumps(now.as_json() if now else {"running": False, "ready": False}, indent=1) + "\n"
        )
    elif now is None or not now.running:
        out.print(f"not running under {directory}: start it with `facilitair up`")
    else:
        out.print(_table(now))
        _print_addresses(now)
    if now is None or not now.running:
        raise typer.Exit(UNREACHABLE)
    raise typer.Exit(0 if now.ready and not now.disk_full else 1)


def doctor(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and say how to cure what is wrong."""
    from dataclasses import asdict

    from infra.local.doctor import examine

    findings = examine(_directory(data))
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in findings], indent=1) + "\n")
    else:
        out.print(_findings_table(findings))
    raise typer.Exit(1 if any(one.verdict == "bad" for one in findings) else 0)


def _directory(data: Path | None) -> Path:
    if data is None:
        from schema.settings import default_data_dir

        data = default_data_dir()
    return data.expanduser().resolve()


def _fail(error: FacilitairError, as_json: bool) -> NoReturn:
    if as_json:
        sys.stdout.write(json.dumps({"error": {"code": error.code, "message": error.message}}) + "\n")
    else:
        err.print(Text.assemble((error.code, "red"), ": ", error.message))
    raise typer.Exit(2 if isinstance(error, Refused) else 1)


def _told_to_stop() -> threading.Event:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: told.set())
    return told


def _follow(
    read: Callable[[], "PlatformState | None"], *, as_json: bool, until: threading.Event | None = None
) -> bool:
    """Show how the services come up; says once when the main job can be done.

    Without `until`, returns then (or when something needed has failed); with it, stays until it is set.
    """
    told = until or threading.Event()
    deadline = time.monotonic() + _DETACHED_READY_SECONDS
    announced = False
    live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal and not as_json else None
    lines = _Lines(silent=as_json or live is not None)
    with live or nullcontext():
        while not told.is_set():
            if (now := read()) is not None:
                lines.show(now)
                if live is not None:
                    live.update(_table(now), refresh=True)
                if now.ready and not announced:
                    announced = True
                    _announce(now, as_json)
                over = now.ready or _given_up(now) or time.monotonic() > deadline
                if until is None and over:
                    break
            told.wait(_REFRESH_SECONDS)
    if not announced and until is None and now is not None:
        _announce(now, as_json)
    return announced


def _given_up(now: "PlatformState") -> bool:
    return not now.running or any(one.essential and one.status == "failed" for one in now.services.values())


def _announce(now: "PlatformState", as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(now.as_json()) + "\n")
        sys.stdout.flush()
        return
    missing = [one for one in now.services.values() if not one.answers]
    if now.ready:
        out.print("ready", style="green")
    _print_addresses(now)
    for one in missing:
        what = "still arriving" if not one.essential and one.status != "failed" else one.status
        out.print(
            Text(f"{one.name}: {what} {one.message}".rstrip(), style=_COLOURS.get(one.status, "yellow"))
        )


def _print_addresses(now: "PlatformState") -> None:
    from infra.local.state import without_password
    from infra.local.temporal import RUNS_ONLY

    table = Table.grid(padding=(0, 2))
    for name, address in now.addresses.items():
        shown = address + RUNS_ONLY if name == "temporal_ui" else without_password(address)
        table.add_row(name, Text(shown))
    out.print(table)
    if full := now.disk_full:
        out.print(Text(full, style="red"))


def _table(now: "PlatformState") -> Table:
    table = columns("service", "status", "address", "restarts", "")
    for one in now.services.values():
        message = one.message.splitlines()[-1] if one.message else ""
        status = Text(one.status, style=_COLOURS.get(one.status, "yellow"))
        table.add_row(
            one.name, status, one.address, str(one.restarts or ""), Text(message, overflow="ellipsis")
        )
    return table


def _findings_table(findings: "list[CheckResult]") -> Table:
    table = columns("check", "", "found", "cure")
    for one in findings:
        verdict = Text(one.verdict, style=_COLOURS.get(one.verdict, "yellow"))
        table.add_row(one.check, verdict, Text(one.found, overflow="fold"), Text(one.cure))
    return table


class _Lines:
    """One line per change, for output that is no terminal."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._shown: dict[str, str] = {}

    def show(self, now: "PlatformState") -> None:
        for one in now.services.values():
            if not self._silent and self._shown.get(one.name) != one.status:
                self._shown[one.name] = one.status
                out.print(f"{one.name}: {one.status} {one.message}".rstrip(), soft_wrap=True)
