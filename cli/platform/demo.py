"""`facilitair demo`: the whole of it in one command, from nothing to a finished collaboration."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from cli.client import Api
from cli.command import command
from cli.options import JsonOption
from cli.output import FAILED, err, out, print_json
from cli.watch.events import WatchedRun
from cli.watch.follow import RunSnapshot, follow
from cli.watch.tree import print_end, result
from schema.errors import FacilitairError, Unavailable

if TYPE_CHECKING:
    from infra.local.state import PlatformState

_EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
_SOURCE: Final = _EXAMPLES / "inputs" / "templates.py"
_NEEDED: Final = ("temporal", "postgres", "migrate", "simulator", "api", "worker")
_START_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.1


@command
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", envvar="FACILITAIR_DATA", file_okay=False, help="Directory that holds everything."
        ),
    ] = None,
    crash: Annotated[
        bool, typer.Option("--crash", help="Kill the worker in the middle, and see the run resume.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the platform, run a code review on a real file, and show the answer and where to look."""
    from infra.local.state import without_password
    from schema.settings import default_data_dir

    directory = (data or default_data_dir()).expanduser().resolve()
    console = err() if as_json else out()
    started = _start(directory, console)
    api = Api(started.addresses["api"], key=os.environ.get("FACILITAIR_API_KEY", ""))
    stored = api.upload((_EXAMPLES / "code-review.json").read_bytes(), is_yaml=False, name=None)
    console.print(
        f"uploaded code-review@{stored['version']}; running it on {_SOURCE.relative_to(_EXAMPLES.parent)}"
    )
    accepted = api.post(
        "/collaborations", {"definition": "code-review", "input": {"file": _SOURCE.read_text()}}
    )
    killer = Killer(directory, console) if crash else None
    watched = killer.look if killer else lambda seen: None
    seen = follow(api, accepted["id"], on_change=watched)
    found = result(seen.run, seen.steps()) | {
        "addresses": {name: without_password(one) for name, one in started.addresses.items()}
    }
    if killer:
        found["crash"] = killer.verdict(seen)
    if as_json:
        print_json(found)
    else:
        console.print()
        print_end(console, seen.run, seen.steps())
        if killer:
            _print_crash(console, found["crash"])
        _print_where(console, directory, api, accepted["id"])
    if seen.run["status"] != "completed" or (killer and not found["crash"]["survived"]):
        raise typer.Exit(FAILED)


def _start(directory: Path, console: Console) -> "PlatformState":
    """The running platform, started where there is none; waits for what the main job needs, and no longer."""
    from infra.local import read_state, start_detached

    now = read_state(directory)
    if now is not None and now.running:
        console.print(f"using the platform that runs under {directory}", markup=False)
    else:
        console.print(f"starting the platform under {directory}", markup=False)
        start_detached(directory)
    deadline = time.monotonic() + _START_SECONDS
    shown = {one.name: one.status for one in now.services.values()} if now is not None and now.ready else {}
    while time.monotonic() < deadline:
        now = read_state(directory)
        if now is None or not now.running:
            raise Unavailable("platform_failed", f"the platform ended; see {directory / 'logs'}")
        needed = [now.services[name] for name in _NEEDED if name in now.services]
        for one in needed:
            if shown.get(one.name) != one.status:
                shown[one.name] = one.status
                err().print(f"  {one.name}: {one.status} {one.message}".rstrip(), markup=False, style="dim")
        failed = [one for one in needed if one.status == "failed"]
        if failed:
            raise Unavailable(
                "platform_failed",
                f"{failed[0].name} did not start: {failed[0].message}. See {directory / 'logs'}, and "
                "`facilitair doctor` for this machine.",
            )
        if all(one.answers for one in needed):
            return now
        time.sleep(_POLL_SECONDS)
    waiting = ", ".join(name for name, status in shown.items() if status not in ("ready", "external"))
    raise Unavailable("platform_failed", f"{waiting} did not come up in {_START_SECONDS:.0f} s")


@dataclass
class Killer:
    """Kills the worker once, when some steps have finished and another is under way."""

    directory: Path
    console: Console
    killed_at: float | None = None
    finished: dict[str, str] = field(default_factory=dict)
    """step → execution of those that had finished before the kill."""

    def look(self, seen: WatchedRun) -> None:
        steps = seen.root.within.values()
        done = {one.name: one.execution for one in steps if one.status == "completed"}
        running = [one.name for one in steps if one.status == "running"]
        if self.killed_at is None and len(done) >= 2 and running:
            self._kill(running[0])
            self.finished = done

    def _kill(self, step: str) -> None:
        from infra.local import read_state

        state = read_state(self.directory)
        pid = state.services["worker"].pid if state is not None else None
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed_at = time.monotonic()
            self.console.print(
                Text(f"kill -9 {pid}: the worker dies in the middle of step {step}", style="red")
            )

    def verdict(self, seen: RunSnapshot) -> dict[str, Any]:
        """Return whether every finished step kept its one execution."""
        after: dict[str, list[str]] = {}
        for one in seen.run["steps"]:
            after.setdefault(one["step"], []).append(one["id"])
        again = [step for step, execution in self.finished.items() if after.get(step) != [execution]]
        return {
            "killed": self.killed_at is not None,
            "finished_before": sorted(self.finished),
            "run_again": again,
            "survived": self.killed_at is not None and not again and seen.run["status"] == "completed",
        }


def _print_crash(console: Console, verdict: dict[str, Any]) -> None:
    if not verdict["killed"]:
        console.print("\nthe run ended before the worker could be killed", style="yellow")
    elif verdict["run_again"]:
        console.print(f"\nrun again after the kill: {', '.join(verdict['run_again'])}", style="red")
    else:
        kept = ", ".join(verdict["finished_before"])
        console.print(f"\nkilled and resumed: {kept} had finished and were not run again", style="green")


def _print_where(console: Console, directory: Path, api: Api, id: str) -> None:
    from infra.local import read_state
    from infra.local.state import without_password

    state = read_state(directory)
    if state is None:
        return
    console.print("\nwhere to look", style="bold")
    for name, address in state.addresses.items():
        console.print(Text(f"  {name:<18}{without_password(address)}"))
    _print_projections(console, state, api)
    option = f" --data {directory}" if "FACILITAIR_DATA" not in os.environ else ""
    console.print(
        Text(
            f"\nIt stays up: `uv run facilitair trace {id}{option}`, "
            f"`uv run facilitair graph issues-by-pair{option}`; `uv run facilitair down{option}` stops it."
        )
    )


def _print_projections(console: Console, state: "PlatformState", api: Api) -> None:
    for server, projection in (("neo4j", "graph"), ("weaviate", "memory")):
        one = state.services.get(server)
        if one is not None and not one.answers:
            message = f"{one.status} {one.message.splitlines()[-1] if one.message else ''}".rstrip()
            console.print(
                Text(f"  {server} is not there yet ({message}); the {projection} catches up by itself")
            )
            continue
        with contextlib.suppress(FacilitairError):
            lag = api.get("/health/projections")[projection]
            if lag["events"]:
                console.print(Text(f"  the {projection} is catching up: {lag['events']} events to go"))
