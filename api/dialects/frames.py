"""Encode a run's events for clients, each block under an id that records exactly what was sent.

A `PlacedEvent` becomes any number of blocks. A cut may fall between two blocks of one event, so the id of
each but the last says how many of them were sent, and of which event:

    <run>:<place>               all up to this place
    <run>:<place>!b<key>.<n>    of the beginning of an execution, which the place counts as told: n blocks
    <run>:<place>!m<mark>.<n>   of another event, which is still to come behind the place: n blocks; of
                                what an agent says, n characters
    <run>:<place>!j.<n>         of what one who joins in the middle is told first: n blocks
    <run>:<place>!e             the run has ended, nothing follows

A beginning is not told again from the place before it, should its worker have died meanwhile; every other
event is, but perhaps behind others, which have the mark behind their ids until it is used up.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from schema.errors import Refused
from schema.live import (
    MAX_PLACE_CHARS,
    PLACE,
    LiveEvent,
    PlacedEvent,
    RunBegan,
    RunEnded,
    StepBegan,
    StepEnded,
    TokensCame,
    ToolsCalled,
    ToolsReturned,
    key_of,
)

_CURSOR: Final = re.compile(
    r"(?:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):)?([0-9a-fp.+~:]*)"
    r"((?:![bm][0-9a-f]{12}\.\d{1,8})*)(?:!j\.(\d{1,3}))?(!e)?"
)
_MARK: Final = re.compile(r"!([bm])([0-9a-f]{12})\.(\d{1,8})")
_RUN: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:"
_MARKS: Final = r"(?:![bm][0-9a-f]{12}\.[0-9]{1,8})*"
_TOLD: Final = rf"(?:{PLACE}{_MARKS}!j\.[0-9]{{1,3}}|(?:{PLACE})?{_MARKS})(?:!e)?"
POSITION: Final = rf"^(?:{_RUN})?(?:{_TOLD}|p[0-9]{{1,12}}{_MARKS}(?:!e)?)$"
"""Ids as a stream takes them, for the OpenAPI document."""
POSITION_OF_RUN: Final = rf"^{_RUN}{_TOLD}$"
"""Positions that name their run."""


@dataclass(frozen=True, slots=True)
class DialectFrame:
    """One frame of a dialect: a server-sent event, or a message of a WebSocket."""

    data: str
    event: str = ""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """The state of a run up to a place, for a client that joins there."""

    began: RunBegan
    ended: list[StepEnded] = field(default_factory=list)
    said: list[tuple[StepEnded, str]] = field(default_factory=list)
    """Completed steps and what their agents said."""
    open: list[tuple[StepBegan, str]] = field(default_factory=list)
    """Running steps and what they have said."""
    called: dict[str, ToolsCalled] = field(default_factory=dict)
    """Execution → the tools that it called."""
    returned: dict[str, ToolsReturned] = field(default_factory=dict)
    """Path of a round of calls → its results."""


@dataclass(frozen=True)
class Dialect:
    """The encoding of a run's events for one kind of client. Pure."""

    name: str
    blocks: Callable[[str, LiveEvent], list[DialectFrame]]
    """Encodes an event of a run, given the run's UUID."""
    joined: Callable[[CatchUp], list[DialectFrame]]
    refused: Callable[[str, str], list[DialectFrame]]
    """(code, message) of what ends the stream before the run has."""
    write: Callable[[str, DialectFrame], bytes]
    """One block under its id."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """An event of which some blocks were sent."""

    kind: str
    """b: of a beginning, m: of another event."""
    key: str
    had: int

    def __str__(self) -> str:
        return f"!{self.kind}{self.key}.{self.had}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A client's progress through a run."""

    run: UUID | None = None
    place: str = ""
    marks: tuple[Mark, ...] = ()
    joining: int | None = None
    ended: bool = False


def parse(text: str) -> Cursor:
    """The id that a client sent back; raises Refused. The place in it is not checked."""
    found = _CURSOR.fullmatch(text) if len(text) <= MAX_PLACE_CHARS else None
    if found is None:
        raise Refused(
            "stream_place_invalid",
            f"found {text[:60]!r}; expected the `id` of an event of this run's stream, as it was sent.",
        )
    run, place, marks, joining, ended = found.groups()
    return Cursor(
        UUID(run) if run else None,
        place,
        tuple(Mark(kind, key, int(had)) for kind, key, had in _MARK.findall(marks)),
        int(joining) if joining else None,
        bool(ended),
    )


def mark_of(event: LiveEvent) -> str:
    """Return the mark that tells an event from others at the same place."""
    subject: Any = getattr(event, "execution", "") or getattr(event, "path", "")
    name = f"{type(event).__name__} {subject}"
    return hashlib.blake2s(name.encode("utf-8", "replace"), digest_size=6).hexdigest()


def numbered(
    dialect: Dialect, run: str, before: str, live: PlacedEvent, marks: Sequence[Mark] = ()
) -> tuple[list[tuple[str, DialectFrame]], tuple[Mark, ...]]:
    """The blocks of an event that are still to be sent, under their ids; the marks that are still to be used.

    `before` is the place of the event before it.
    """
    event = live.event
    blocks = dialect.blocks(run, event)
    begins = isinstance(event, StepBegan)
    key = key_of(event.execution) if isinstance(event, StepBegan) else mark_of(event)
    used = next((one for one in marks if one.key == key and (one.kind == "b") == begins), None)
    left = tuple(one for one in marks if one is not used)
    had = used.had if used else 0
    behind = "".join(str(one) for one in left)
    found = []
    for number, block in _left(dialect, run, event, blocks, had):
        if block is blocks[-1]:
            id = f"{run}:{live.place}{behind}" + ("!e" if isinstance(event, RunEnded) else "")
        else:
            place, kind = (live.place, "b") if begins else (before, "m")
            id = f"{run}:{place}{behind}!{kind}{key}.{number}"
        found.append((id, block))
    return found, left


def _left(
    dialect: Dialect, run: str, event: LiveEvent, blocks: list[DialectFrame], had: int
) -> list[tuple[int, DialectFrame]]:
    """Return the blocks that are still to be sent, each with the number that its id tells if it is not last.

    That is how many were sent. Only where what an agent says is told in two ways, it is how many characters
    were told in the first: a client that comes back may be told them together with what was said since.
    """
    if not isinstance(event, TokensCame):
        return list(enumerate(blocks[had:], had + 1))
    first = dialect.blocks(run, replace(event, text=event.text[had:]))[:-1] if had else blocks[:-1]
    return [(len(event.text), block) for block in (*first, *blocks[-1:])]


def failure(ended: RunEnded) -> str:
    """Say why a run did not complete, and at which step."""
    message = ended.error_message or f"The run {ended.sub_state or 'failed'}."
    # Errors of runs of older releases do not name it themselves.
    named = not ended.error_step or message.startswith("step '")
    return message if named else f"step {ended.error_step!r}: {message}"


def frame(dialect: Dialect, run: str, before: str, live: PlacedEvent) -> bytes:
    """An event on the wire, made once for all who have come equally far: so `before` is the same for all."""
    made = live.frames.get(dialect.name)
    if made is None:
        blocks, _ = numbered(dialect, run, before, live)
        made = live.frames[dialect.name] = b"".join(dialect.write(*one) for one in blocks)
    return made


def as_sse(id: str, block: DialectFrame) -> bytes:
    """A server-sent event. The data is one line: JSON has no others."""
    event = f"event: {block.event}\n" if block.event else ""
    return f"id: {id}\n{event}data: {block.data}\n\n".encode("utf-8", "replace")
