"""Watch a run to its end."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from cli.client import Api, segment
from cli.output import NothingRunning, err, out
from cli.watch import tree
from cli.watch.agui import Reader
from cli.watch.events import WatchedRun
from cli.watch.keys import keys
from cli.watch.lines import ChangeLines, Speech
from cli.watch.picture import picture
from cli.watch.stream import RECONNECT_TIMEOUT_SECONDS, Stream
from schema.errors import FacilitairError, NotFound, Unavailable
from schema.live import LiveEvent, PeopleAsked, RunBegan, StepBegan

_FRAME_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 5.0
"""Silence after which the run itself is asked: one that Temporal ended emits nothing."""
_KEYS: Final = "p pause  r resume  q leave"


class WatcherLeft(Exception):
    """The watcher went away; the run goes on."""


@dataclass
class RunSnapshot:
    """A run as it was last seen, and the order of its steps."""

    run: dict[str, Any]
    order: list[str]

    @property
    def ended(self) -> bool:
        return bool(self.run["status"] != "running")

    def steps(self) -> list[dict[str, Any]]:
        return tree.steps(self.run, self.order)


def follow(
    api: Api, id: str, *, speak: bool = False, on_change: Callable[[WatchedRun], None] = lambda seen: None
) -> RunSnapshot:
    """Show a run while it goes on; returns it, with its output, when it has ended. Raises Left.

    `speak` prints what agents say instead of showing the tree.
    """
    view = _View(api, id, speak=speak, on_change=on_change)
    run = _read(api, id)
    with view.shown():
        while run["status"] == "running" or speak:
            try:
                if _show_stream(view, run):
                    break
            except NotFound:  # accepted, and not known yet
                pass
            run = _read(api, id)
            if run["status"] != "running":
                break
            time.sleep(_PAUSE_SECONDS)
    run = _read(api, id, include="output")
    view.catch_up(run)
    return RunSnapshot(run, view.seen.order or order_of(api, run))


def play(api: Api, id: str, speed: float, *, speak: bool = False) -> RunSnapshot:
    """Show a run once more as it went."""
    view = _View(api, id, speak=speak, pace=speed, steered=False)
    run = _read(api, id)
    with view.shown():
        _show_stream(view, run, playback=speed)
    return RunSnapshot(_read(api, id, include="output"), order_of(api, run))


@dataclass
class _View:
    """A person's view of a run: a tree, lines, or its text alone."""

    api: Api
    id: str
    speak: bool
    on_change: Callable[[WatchedRun], None] = lambda seen: None
    pace: float = 1.0
    """Speed of the run's time."""
    steered: bool = True
    """Whether the run is live and a key may pause it."""
    console: Console = field(default_factory=err)
    seen: WatchedRun = field(init=False)
    told: bool = False
    known_seconds: dict[str, float] = field(default_factory=dict)
    """Execution → how long it had been under way when the watching began."""

    def __post_init__(self) -> None:
        self.seen = WatchedRun(self.id)
        self.started = time.time()
        self.live: Live | None = None
        self.pressed: Callable[[], str] | None = None
        self.speech = Speech(out()) if self.speak else None
        lines = self.speak or not self.console.is_terminal
        self.changes = ChangeLines(self.console, self.speech) if lines else None

    def now(self) -> float:
        return self.started + (time.time() - self.started) * self.pace

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        if self.changes:
            yield
            return
        with keys() as pressed, Live(console=self.console, auto_refresh=False, transient=True) as live:
            self.live = live
            self.pressed = pressed if self.steered else None
            yield

    def begin(self, run: dict[str, Any]) -> None:
        """The stream is told from its beginning."""
        self.seen = WatchedRun(run["id"])
        if self.steered:
            self.known_seconds = {one["id"]: one["seconds"] for one in run["steps"]}
            self.known_seconds[run["run_id"]] = run["seconds"]
            self.started = time.time()

    def tell(self, event: LiveEvent) -> None:
        self.told = True
        if isinstance(event, RunBegan):
            self.seen.put_in_order(order_of(self.api, {"name": event.name, "version": event.version}))
        self.seen.apply(event, self._time_of(event))
        if isinstance(event, PeopleAsked):
            self.seen.actions[event.task_id] = self._actions(event.task_id)
        if self.speech:
            self.speech.tell(event)
        if self.changes:
            self.changes.tell(event, self.seen)
        self.on_change(self.seen)

    def draw(self) -> None:
        if self.live is not None:
            hint = _KEYS if self.pressed else ""
            size = self.console.size
            self.live.update(picture(self.seen, self.now(), size.width, size.height, keys=hint), refresh=True)

    def press(self) -> None:
        """Handle a key."""
        key = self.pressed() if self.pressed else ""
        if key == "q":
            raise WatcherLeft
        if key in ("p", "r"):
            with contextlib.suppress(FacilitairError):  # of a run that has just ended, there is nothing to do
                self.api.post(f"/collaborations/{segment(self.id)}/{'pause' if key == 'p' else 'resume'}", {})

    def wait_for(self, told: list[str]) -> None:
        """Say what keeps the run from going on."""
        if told and not self.seen.waits_for and self.changes:
            self.changes.wait_for(told)
        self.seen.waits_for = told

    def catch_up(self, run: dict[str, Any]) -> None:
        if self.changes and not self.told:
            self.changes.catch_up(run)

    def _time_of(self, event: LiveEvent) -> float:
        """Return the time of an event: now for new ones, the run's own for earlier ones."""
        if isinstance(event, RunBegan):
            return self.started - self.known_seconds.get(event.run_id, 0.0)
        if isinstance(event, StepBegan) and event.execution in self.known_seconds:
            return self.started - self.known_seconds[event.execution]
        return self.now()

    def _actions(self, task: str) -> list[str]:
        try:
            return [one["id"] for one in self.api.get(f"/tasks/{segment(task)}")["actions"]]
        except FacilitairError:
            return []


def _show_stream(view: _View, run: dict[str, Any], **query: Any) -> bool:
    """Show what a run tells; whether it told of its end. Raises NotFound."""
    view.begin(run)
    reader, looked = Reader(), time.monotonic()
    with Stream(view.api, view.id, **query) as stream:
        while True:
            events, over = stream.take(_FRAME_SECONDS)
            for event in events:
                for live in reader.read(event):
                    view.tell(live)
            view.draw()
            view.press()
            if over or view.seen.ended:
                return view.seen.ended is not None
            if events:
                looked = time.monotonic()
                view.wait_for([])
                if view.live is not None:
                    time.sleep(_FRAME_SECONDS)  # a busy run is drawn no more often than one can see
            elif not query and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                run = view.api.get(f"/collaborations/{segment(view.id)}", limit=1)
                if run["status"] != "running":
                    return False
                view.wait_for(run.get("waits_for", []))


def _read(api: Api, id: str, **query: Any) -> dict[str, Any]:
    """The run; an API that is away for a moment is waited for."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT_SECONDS
    while True:
        try:
            run: dict[str, Any] = api.whole(f"/collaborations/{segment(id)}", "steps", **query)
            return run
        except (NothingRunning, Unavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def order_of(api: Api, run: dict[str, Any]) -> list[str]:
    """The steps of a run in the order of its plan."""
    try:
        plan = api.get(f"/definitions/{segment(run['name'])}/plan", version=run["version"])
    except (NotFound, Unavailable):
        return []
    return [step["id"] for step in plan["steps"]]
