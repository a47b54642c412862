"""Live events of a run in order, and a watcher's position among them.

A position is a string from which any API process can go on: `<xid>.<seq>` of the last settled event, `+` the
unsettled ones already told, `~` the running executions with the number of their tokens told.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from schema.errors import Refused

AGENT: Final = "agent"
# As large as the database's integers of 64 and of 32 bits.
_LONG: Final = r"(?:[0-7][0-9a-f]{15}|[0-9a-f]{1,15})"
_SHORT: Final = r"(?:[0-7][0-9a-f]{7}|[0-9a-f]{1,7})"
PLACE: Final = rf"({_LONG})\.({_LONG})((?:\+{_LONG})*)((?:~[0-9a-f]{{12}}:{_SHORT})*)"
_PLACE: Final = re.compile(PLACE)
MAX_PLACE_CHARS: Final = 32_000


@dataclass(frozen=True, slots=True)
class RunBegan:
    id: str
    """The run's id for people: Temporal's workflow id."""
    run_id: str
    name: str
    version: int
    task: str
    kept: dict[str, str] = field(default_factory=dict)
    """For a forked run: path → status of the steps that it took over."""
    forked_from: str = ""
    """The run, by its UUID, that it goes on from."""


@dataclass(frozen=True, slots=True)
class StepBegan:
    """An attempt at a step is under way."""

    execution: str
    path: str
    step: str
    kind: str
    attempt: int
    agent: str
    model: str


@dataclass(frozen=True, slots=True)
class TokensCame:
    """More of what an agent says. `first` counts the tokens before these, `count` these."""

    execution: str
    path: str
    text: str
    first: int
    count: int
    agent: str = ""


@dataclass(frozen=True, slots=True)
class StepEnded:
    """An attempt ended: completed, failed, skipped, caught, or superseded by the next one, in which case
    readers forget what it said."""

    execution: str
    """Empty of a step that was skipped or caught: no attempt of its own ended."""
    path: str
    step: str
    kind: str
    attempt: int
    agent: str
    status: str
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    latency_ms: int = 0
    error_code: str | None = None
    simulated: bool = False
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class ToolsCalled:
    """A model called tools. Each call has an id that is the only one of its kind in the run."""

    execution: str
    """The attempt that called them; it has ended."""
    path: str
    agent: str
    calls: list[dict[str, Any]]
    """id, name and arguments of each, the arguments as text."""


@dataclass(frozen=True, slots=True)
class ToolsReturned:
    path: str
    results: list[dict[str, Any]]
    """id, content as text, and error, the code of what failed or None, of each."""


@dataclass(frozen=True, slots=True)
class PeopleAsked:
    task_id: str
    path: str
    title: str
    assignees: list[str]
    actions: list[dict[str, Any]] = field(default_factory=list)
    """Actions to choose from, as a human step lists them."""
    form: dict[str, Any] | None = None
    show: dict[str, Any] | None = None
    """The shown values; None if they are too large to be sent, or were asked before they were."""


@dataclass(frozen=True, slots=True)
class PeopleDecided:
    task_id: str
    path: str
    actor: str
    action: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Steered:
    """A person paused, resumed, told or adjusted the run."""

    action: str
    actor: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunEnded:
    status: str
    """completed or failed."""
    sub_state: str
    """cancelled, where somebody stopped it."""
    error_code: str | None
    cost_usd: float
    """This, `tokens` and `simulated` are of the run and all its sub-collaborations."""
    quality: float | None
    latency_ms: int
    tokens: int = 0
    simulated: bool = False
    error_message: str = ""
    error_step: str = ""
    """The path of the step that failed the run; empty where none did."""
    output: Any = None
    """The definition's `output`; for a large one its address."""


LiveEvent = (
    RunBegan
    | StepBegan
    | TokensCame
    | StepEnded
    | ToolsCalled
    | ToolsReturned
    | PeopleAsked
    | PeopleDecided
    | Steered
    | RunEnded
)


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """One event, and the place of a watcher who has been told of it."""

    place: str
    at: datetime
    event: LiveEvent
    frames: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Dialect → the event on the wire, made once for all who watch."""


@dataclass(slots=True)
class StreamPosition:
    """A watcher's position in the stream."""

    xid: int = 0
    seq: int = 0
    """(xid, seq) of the last settled event that was told; all before it were."""
    beyond: set[int] = field(default_factory=set)
    """seq of events that were told before they were settled."""
    open: dict[str, int] = field(default_factory=dict)
    """Execution under way, by its key → how many of its tokens were told."""

    def __str__(self) -> str:
        beyond = "".join(f"+{seq:x}" for seq in sorted(self.beyond))
        return f"{self.xid:x}.{self.seq:x}{beyond}" + "".join(f"~{k}:{n:x}" for k, n in self.open.items())

    def copy(self) -> "StreamPosition":
        return StreamPosition(self.xid, self.seq, set(self.beyond), dict(self.open))


def key_of(execution: UUID | str) -> str:
    """An execution within its run, shorter than its id."""
    return str(execution).replace("-", "")[:12]


def parse_place(text: str) -> StreamPosition:
    """The place that a client sent back; raises Refused."""
    found = _PLACE.fullmatch(text) if len(text) <= MAX_PLACE_CHARS else None
    if found is None:
        raise Refused(
            "stream_place_invalid",
            f"found {text[:60]!r}; expected the `id` of an event of this run's stream, as it was sent.",
        )
    opened = (one.split(":") for one in found.group(4).split("~")[1:])
    return StreamPosition(
        int(found.group(1), 16),
        int(found.group(2), 16),
        {int(seq, 16) for seq in found.group(3).split("+")[1:]},
        {key: int(count, 16) for key, count in opened},
    )
