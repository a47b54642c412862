"""A client's way through a run, in its dialect: from where it was, until the run has ended."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg
from sqlalchemy.exc import DBAPIError

from api.dialects.frames import CatchUp, Cursor, Dialect, DialectFrame, Mark, frame, numbered
from api.http.shared_models import CollaborationDetail
from api.live.playback import playback
from api.runs import service
from api.state import ApiState
from db.live import catch_up
from db.runs import collaborations
from schema.bugs import bug
from schema.errors import FacilitairError, NotFound, Refused, Unavailable
from schema.live import PlacedEvent, parse_place

SILENCE_SECONDS: Final = 10.0
"""After as much silence a client is told that the line still stands."""
_BEGIN_SECONDS: Final = 2.0
"""After as much silence a run that nobody has seen in Postgres yet is looked for in Temporal."""
_LOOKS: Final = 6
"""Silences after which Temporal is asked whether the run still lives."""

_log = logging.getLogger("facilitair.api")


@dataclass(frozen=True)
class Subscription:
    """The run and speed that a client subscribes to."""

    tenant: str
    id: str
    """The run's id as the client uses it."""
    run: UUID
    speed: float | None = None
    """Speed of a playback; None for a live run."""


async def find(state: ApiState, tenant: str, id: str) -> UUID:
    """The run that is meant, also one that was accepted a moment ago. Raises NotFound or Refused."""
    async with state.transaction() as connection:
        known = await collaborations.uuid_of(connection, tenant, id)
    if known:
        return known
    begun = await service.not_in_postgres(state.temporal, tenant, id)
    if begun.status != "running":
        raise _lost(begun)
    execution = await state.temporal.describe(id, tenant)
    return UUID(execution.first_run_id)


def _lost(run: CollaborationDetail) -> Refused:
    if run.error is None:
        return Refused("run_failed", "found a run that ended without a word.")
    return Refused(run.error.code, run.error.message)


def checked(cursor: Cursor, run: UUID, *, played: bool = False) -> Cursor:
    """The cursor, if it belongs to this run; raises Refused."""
    if cursor.run not in (None, run):
        raise Refused(
            "stream_place_invalid",
            f"found the id of an event of the run {cursor.run}; expected one of this run, {run}.",
        )
    # Who joins is told what was before a place, also where what follows is played back.
    if cursor.joining is not None or (cursor.place and not played):
        parse_place(cursor.place)
    return cursor


async def follow(
    state: ApiState, followed: Subscription, dialect: Dialect, cursor: Cursor, *, join: bool = False
) -> AsyncGenerator[bytes]:
    """Yield the events that the client lacks, a list at a time; b"" after a silence.

    `join`: the client has received nothing before the cursor.
    """
    run = str(followed.run)
    if cursor.ended:
        return
    if join and followed.speed is None:
        cursor = Cursor(cursor.run, cursor.place, joining=0 if cursor.place else None)
    if cursor.joining is not None:
        yield await _joined(state, followed.run, dialect, cursor)
    marks = tuple(one for one in cursor.marks if one.kind == "m")
    for mark in cursor.marks:
        if mark.kind == "b":
            yield await _rest(state, followed.run, dialect, replace(cursor, marks=marks), mark)
    before = cursor.place
    try:
        async with _source(state, followed, before) as source:
            async for lives in source:
                if lives is None:
                    yield b""
                    continue
                frames = []
                for live in lives:
                    if marks:
                        blocks, marks = numbered(dialect, run, before, live, marks)
                        frames += [dialect.write(*one) for one in blocks]
                    else:
                        frames.append(frame(dialect, run, before, live))
                    before = live.place
                yield b"".join(frames)
    except (psycopg.Error, DBAPIError):
        _log.warning("Closing a stream, Postgres unavailable", extra={"run": str(run)})
    except FacilitairError as error:
        yield _end(dialect, run, before, dialect.refused(error.code, error.message))
    except Exception as error:
        told = bug(error, _log, run=run)
        yield _end(dialect, run, before, dialect.refused(told.code, told.message))


def _end(dialect: Dialect, run: str, place: str, blocks: Iterable[DialectFrame]) -> bytes:
    # A client that comes again is told to stay away.
    return b"".join(dialect.write(f"{run}:{place}!e", block) for block in blocks)


async def _joined(state: ApiState, run: UUID, dialect: Dialect, cursor: Cursor) -> bytes:
    async with state.transaction() as connection:
        missed = await catch_up.missed(connection, run, parse_place(cursor.place))
    if missed.began is None:
        return b""
    blocks = dialect.joined(
        CatchUp(
            missed.began,
            list(missed.ended.values()),
            missed.said,
            missed.open,
            missed.called,
            missed.returned,
        )
    )
    had = cursor.joining or 0
    ids = [f"{run}:{cursor.place}!j.{number}" for number in range(1, len(blocks))] + [f"{run}:{cursor.place}"]
    return b"".join(dialect.write(*one) for one in list(zip(ids, blocks, strict=False))[had:])


async def _rest(state: ApiState, run: UUID, dialect: Dialect, cursor: Cursor, mark: Mark) -> bytes:
    """Return the rest of a beginning that the client has received in part."""
    async with state.transaction() as connection:
        begun = await catch_up.begun(connection, run, [mark.key])
    frames = []
    for began in begun:
        live = PlacedEvent(cursor.place, datetime.now(UTC), began)
        blocks, _ = numbered(dialect, str(run), cursor.place, live, (mark, *cursor.marks))
        frames += [dialect.write(*one) for one in blocks]
    return b"".join(frames)


@asynccontextmanager
async def _source(
    state: ApiState, followed: Subscription, place: str
) -> AsyncIterator[AsyncIterator[list[PlacedEvent] | None]]:
    if followed.speed is None:
        async with state.hub.watch(followed.run, place) as watcher:
            yield _patiently(state, followed, aiter(watcher), fresh=not place)
    else:
        async with AsyncExitStack() as stack:
            played = playback(state, followed.run, followed.speed, place)
            stack.push_async_callback(played.aclose)  # type: ignore[attr-defined]
            yield _played(played)


async def _played(lives: AsyncIterator[list[PlacedEvent]]) -> AsyncIterator[list[PlacedEvent] | None]:
    async for some in lives:
        yield some


async def _patiently(
    state: ApiState, followed: Subscription, lives: AsyncIterator[list[PlacedEvent]], *, fresh: bool
) -> AsyncIterator[list[PlacedEvent] | None]:
    """The same, and None after a silence. Raises what Temporal knows of a run that can say no more."""
    silences = 0
    while True:
        try:
            async with asyncio.timeout(_BEGIN_SECONDS if fresh and silences == 0 else SILENCE_SECONDS):
                some = await anext(lives)
        except StopAsyncIteration:
            return
        except TimeoutError:
            silences += 1
            if fresh or silences % _LOOKS == 0:
                await _look(state, followed)
            yield None
            continue
        fresh, silences = False, 0
        yield some


async def _look(state: ApiState, followed: Subscription) -> None:
    """Raises Refused where a run has ended in Temporal and could not say so in Postgres."""
    try:
        detail = await _known(state, followed)
    except (NotFound, Unavailable):
        return
    if detail.status != "running":
        raise _lost(detail)


async def _known(state: ApiState, followed: Subscription) -> CollaborationDetail:
    try:
        async with state.transaction() as connection:
            found = await collaborations.find(connection, followed.tenant, str(followed.run))
    except NotFound:
        return await service.not_in_postgres(state.temporal, followed.tenant, followed.id)
    if found.status == "running":
        detail = CollaborationDetail(**service.summary(found).model_dump(), steps=[])
        return await service.checked_with_temporal(state.temporal, followed.tenant, detail)
    raise NotFound("collaboration_ended", "its end is about to be told.")
