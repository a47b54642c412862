"""The event log: appended in the transaction of the change, read in an order that never gains a past."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import wakeups
from schema.errors import Unavailable
from schema.events import Event
from schema.tables.log import outbox

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Position:
    """A place in the log. Rows at or before it are settled; 0, 0 is the beginning."""

    xid: int = 0
    seq: int = 0


@dataclass(frozen=True)
class LoggedEvent:
    position: Position
    id: str
    type: str
    aggregate_id: str
    tenant: str
    payload: dict[str, Any]
    created_at: datetime
    traceparent: str | None


def row(tenant: str, aggregate_id: str, event: Event, traceparent: str | None = None) -> dict[str, Any]:
    """Return what the log keeps of an event."""
    return {
        "id": uuid4(),
        "tenant_id": tenant,
        "aggregatetype": event.aggregate,
        "aggregateid": aggregate_id,
        "type": type(event).__name__,
        "payload": event.payload(),
        "traceparent": traceparent,
    }


async def append(
    connection: AsyncConnection, tenant: str, aggregate_id: str, event: Event, traceparent: str | None = None
) -> None:
    await connection.execute(insert(outbox).values(row(tenant, aggregate_id, event, traceparent)))
    if event.aggregate == "collaboration":
        wakeups.note(connection, aggregate_id)


# Transactions commit out of order, so a plain "seq > cursor" would skip rows that appear late. Everything
# below the oldest running transaction is settled, and (xid, seq) orders it for good.
_READ_AFTER = text("""
    SELECT xid::text::bigint AS xid, seq, id, type, aggregateid, tenant_id, payload, created_at, traceparent
    FROM outbox
    WHERE xid >= CAST(:xid AS text)::xid8
      AND (xid > CAST(:xid AS text)::xid8 OR seq > :seq)
      AND xid < pg_snapshot_xmin(pg_current_snapshot())
      AND (CAST(:types AS text[]) IS NULL OR type = ANY(:types))
    ORDER BY xid, seq
    LIMIT :limit
""")


async def read_after(
    connection: AsyncConnection, position: Position, limit: int, types: list[str] | None = None
) -> list[LoggedEvent]:
    """The next settled events behind `position`, oldest first, of the given types only."""
    rows = await connection.execute(
        _READ_AFTER, {"xid": str(position.xid), "seq": position.seq, "limit": limit, "types": types}
    )
    return [
        LoggedEvent(
            Position(row.xid, row.seq),
            str(row.id),
            row.type,
            row.aggregateid,
            row.tenant_id,
            row.payload,
            row.created_at,
            row.traceparent,
        )
        for row in rows
    ]


async def read_up_to(
    connection: AsyncConnection, end: Position, types: list[str] | None = None
) -> list[LoggedEvent]:
    """The log from its beginning to `end`."""
    events: list[LoggedEvent] = []
    after = Position()
    while batch := await read_after(connection, after, 5_000, types):
        events.extend(event for event in batch if event.position <= end)
        after = batch[-1].position
        if after > end:
            break
    return events


MAX_READS: Final = 10
"""Reads of a whole copy before a comparison gives up, because events arrive during each."""


async def read_at_rest(
    position: Callable[[], Awaitable[Position]], read: Callable[[], Awaitable[T]]
) -> tuple[Position, T]:
    """Read a copy of the log while it stands still; return its place in the log with what was read.

    Raises Unavailable("copy_moving") if it moved on during each of MAX_READS reads."""
    for _ in range(MAX_READS):
        before = await position()
        found = await read()
        if await position() == before:
            return before, found
    raise Unavailable(
        "copy_moving", f"the copy moved on during {MAX_READS} reads; compare it when less is happening."
    )


_BEHIND = text("""
    SELECT count(*) AS events, extract(epoch FROM clock_timestamp() - min(created_at)) AS seconds
    FROM outbox
    WHERE xid >= CAST(:xid AS text)::xid8 AND (xid > CAST(:xid AS text)::xid8 OR seq > :seq)
      AND (CAST(:types AS text[]) IS NULL OR type = ANY(:types))
""")


async def behind(
    connection: AsyncConnection, position: Position, types: list[str] | None = None
) -> tuple[int, float]:
    """(events, seconds since the oldest of them) that lie behind `position`, settled or not."""
    row = (
        await connection.execute(_BEHIND, {"xid": str(position.xid), "seq": position.seq, "types": types})
    ).one()
    return row.events, float(row.seconds or 0.0)


_OF_AGGREGATE = text("""
    SELECT xid::text::bigint AS xid, seq, id, type, aggregateid, tenant_id, payload, created_at, traceparent
    FROM outbox
    WHERE aggregatetype = :aggregate AND aggregateid = :id AND tenant_id = :tenant
      AND (xid > CAST(:xid AS text)::xid8 OR (xid = CAST(:xid AS text)::xid8 AND seq > :seq))
      AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, seq
    LIMIT :limit
""")


async def of_aggregate(
    connection: AsyncConnection, tenant: str, aggregate: str, id: str, position: Position, limit: int
) -> list[LoggedEvent]:
    """The next settled events of one aggregate behind `position`, oldest first."""
    rows = await connection.execute(
        _OF_AGGREGATE,
        {
            "tenant": tenant,
            "aggregate": aggregate,
            "id": id,
            "xid": str(position.xid),
            "seq": position.seq,
            "limit": limit,
        },
    )
    return [
        LoggedEvent(
            Position(row.xid, row.seq),
            str(row.id),
            row.type,
            row.aggregateid,
            row.tenant_id,
            row.payload,
            row.created_at,
            row.traceparent,
        )
        for row in rows
    ]
