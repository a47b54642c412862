"""Keep one copy of the log up to date: vectors in Postgres, memory in Weaviate, the graph in Neo4j."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

import graph.projection
import memory.projection
from activities.guard import translate
from activities.heartbeats import heartbeats
from activities.spans import Value, span
from db import outbox
from db.engine import transaction
from db.isolation import Isolation
from db.outbox import LoggedEvent, Position
from db.runs import vectors
from graph import constraints
from graph.client import GraphDrivers
from graph.fold import EVENT_TYPES as GRAPH_EVENTS
from memory import collections
from memory.client import WeaviateMemory
from memory.projection import EVENT_TYPES as MEMORY_EVENTS
from memory.projection import Encode, completed_in, forgotten_in
from router.data.encoder import ENCODER
from schema import telemetry
from schema.errors import NotFound, Unavailable
from schema.temporal.upkeep import ProjectionPass

PASS_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.25
BATCH_EVENTS: Final = 500
BATCH_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 15.0
# A rebuild must not write spans into the traces of last year.
SPAN_AGE: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)


class Copy(Protocol):
    """A copy of the log that knows its own place in it."""

    @property
    def event_types(self) -> Sequence[str]: ...

    async def prepare(self) -> None: ...

    async def position(self) -> Position: ...

    async def apply(self, after: Position, events: Sequence[LoggedEvent]) -> None:
        """Copy the next events behind `after`. Doing it twice changes nothing."""

    async def pass_over(self, after: Position, event: LoggedEvent) -> None:
        """Leave out the next event behind `after`, which cannot be copied. Raises where the copy's server
        takes nothing at all, so that a full disk leaves out no event."""


class GraphCopy:
    event_types = GRAPH_EVENTS

    def __init__(self, graph: GraphDrivers) -> None:
        self._graph = graph

    async def prepare(self) -> None:
        await constraints.ensure(self._graph)

    async def position(self) -> Position:
        found = await graph.projection.position(self._graph)
        if found == Position():
            # Emptied, perhaps with its constraints.
            await self.prepare()
        return found

    async def apply(self, after: Position, events: Sequence[LoggedEvent]) -> None:
        # When another projector was faster, the place read next tells where to go on.
        await graph.projection.apply(self._graph, after, events)

    async def pass_over(self, after: Position, event: LoggedEvent) -> None:
        await graph.projection.pass_over(self._graph, after, event.position)


class VectorCopy:
    """Tasks of completed collaborations, embedded in Postgres."""

    event_types = MEMORY_EVENTS

    def __init__(self, engine: AsyncEngine, encode: Encode) -> None:
        self._engine = engine
        self._encode = encode
        self._at: Position | None = None

    async def prepare(self) -> None:
        # Read once per pass: what the vectors tell stands still while only failed runs go by.
        self._at = None

    async def position(self) -> Position:
        if self._at is None:
            async with transaction(self._engine) as connection:
                self._at = await vectors.embedded_to(connection)
        return self._at

    async def apply(self, after: Position, events: Sequence[LoggedEvent]) -> None:
        async with transaction(self._engine) as connection:
            found = await vectors.completed(connection, completed_in(events))
        missing = [item for item in found if item.embedding is None]
        rows = await asyncio.to_thread(self._encode, [item.task for item in missing])
        # All of a batch at once: the newest vector says that everything before it is there.
        async with transaction(self._engine) as connection:
            await vectors.save(
                connection,
                ENCODER,
                [(item.collaboration, item.tenant, row) for item, row in zip(missing, rows, strict=True)],
            )
        self._at = events[-1].position

    async def pass_over(self, after: Position, event: LoggedEvent) -> None:
        self._at = event.position


class MemoryCopy:
    """Completed collaborations in Weaviate."""

    event_types = MEMORY_EVENTS

    def __init__(self, engine: AsyncEngine, memory: WeaviateMemory, encode: Encode) -> None:
        self._engine = engine
        self._memory = memory
        self._encode = encode

    async def prepare(self) -> None:
        await collections.ensure(self._memory)

    async def position(self) -> Position:
        return await memory.projection.position(self._memory)

    async def apply(self, after: Position, events: Sequence[LoggedEvent]) -> None:
        async with transaction(self._engine) as connection:
            batch = await memory.projection.remembered(connection, events, ENCODER, self._encode)
        # Before the place in the log moves on. The batch holds none of them: Postgres has them no more.
        await memory.projection.forget(self._memory, forgotten_in(events))
        await memory.projection.apply(self._memory, batch, events[-1].position)

    async def pass_over(self, after: Position, event: LoggedEvent) -> None:
        await memory.projection.move(self._memory, event.position)


class ProjectActivity:
    def __init__(self, engine: AsyncEngine, copies: Mapping[str, Copy]) -> None:
        self._engine = engine
        self._copies = copies

    @activity.defn(name="project")
    async def project(self, name: str) -> ProjectionPass:
        """Copy what is new, and wait for more, for some minutes."""
        copy = self._copies.get(name)
        if copy is None:
            raise NotFound(
                "projection_unknown",
                f"found no projection {name!r}; expected one of {', '.join(self._copies)}.",
            )
        applied, waiting = 0, False
        until = time.monotonic() + PASS_SECONDS
        async with heartbeats(), _never_for_good(name):
            async with _answer_within(ANSWER_SECONDS, name):
                await copy.prepare()
            while time.monotonic() < until and not activity.is_worker_shutdown():
                copied = await copy_batch(self._engine, name, copy)
                applied += copied
                waiting = copied == BATCH_EVENTS
                if not copied:
                    await _rest()
        return ProjectionPass(applied, waiting)


async def copy_batch(engine: AsyncEngine, name: str, copy: Copy) -> int:
    """Copy the next events; how many there were."""
    async with _answer_within(ANSWER_SECONDS, name):
        after = await copy.position()
    async with transaction(engine) as connection:
        events = await outbox.read_after(connection, after, BATCH_EVENTS, list(copy.event_types))
    with _spans(name, events):
        await _apply_apart(name, copy, after, Isolation(events))
    return len(events)


async def _apply_apart(name: str, copy: Copy, after: Position, isolation: Isolation[LoggedEvent]) -> None:
    """Copy events of all runs together, and leave out alone what cannot be copied."""
    for part in isolation:
        async with _answer_within(BATCH_SECONDS, name):
            try:
                await copy.apply(after, part)
            except Exception as error:
                isolation.refuse(error)
                if len(part) > 1:
                    continue
                await copy.pass_over(after, part[0])
                told = {"projection": name, "event": part[0].id, "run": part[0].aggregate_id}
                _log.error("Projection skipped an event that its server refused", exc_info=error, extra=told)
        after = part[-1].position


@contextlib.asynccontextmanager
async def _answer_within(seconds: float, name: str) -> AsyncIterator[None]:
    """A server that hangs is away, too: Temporal should show it and try again."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(
            "projection_timeout", f"the server of {name} did not answer within {seconds:.0f} s."
        ) from None


@contextlib.asynccontextmanager
async def _never_for_good(name: str) -> AsyncIterator[None]:
    """Keep a copy alive: turn unknown errors into retryable ones.

    A copy that ended would fall behind until somebody noticed. Temporal's UI shows the retries, and the copy
    goes on by itself once the cause is gone.
    """
    try:
        yield
    except Exception as error:
        translated = translate(error)
        if not isinstance(translated, ApplicationError) or not translated.non_retryable:
            raise
        _log.exception("Projection failed, retrying", extra={"projection": name})
        raise ApplicationError(translated.message, type="projection_failed") from error


async def _rest() -> None:
    """Wait for the next look; shorter when the worker stops."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_SECONDS):
            await activity.wait_for_worker_shutdown()


@dataclass(frozen=True)
class _CopiedRun:
    """A run whose events are copied."""

    tenant: str
    collaboration: str
    traceparent: str


@contextlib.contextmanager
def _spans(name: str, events: Sequence[LoggedEvent]) -> Iterator[None]:
    """One span per collaboration of a batch, in that collaboration's own trace."""
    recent = datetime.now(UTC) - SPAN_AGE
    seen: dict[_CopiedRun, list[LoggedEvent]] = {}
    for event in events:
        if event.traceparent and event.created_at > recent:
            run = _CopiedRun(event.tenant, event.aggregate_id, event.traceparent)
            seen.setdefault(run, []).append(event)
    with contextlib.ExitStack() as stack:
        for run, own in seen.items():
            attributes: dict[str, Value | None] = {
                telemetry.PROJECTION: name,
                telemetry.EVENTS: len(own),
                telemetry.COLLABORATION: run.collaboration,
            }
            stack.enter_context(span(f"project {name}", run, attributes))
        yield
