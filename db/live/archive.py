"""Old tokens: moved out of the way of those that are being made, and at last forgotten.

Only of runs that have ended. A fork keeps outputs of the run it goes on from, and those stay where they are:
nobody but a reader needs what was said on the way to them, and readers find it here (`tokens.spoken`).
"""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import transaction
from db.isolation import befalls_all
from db.live.tokens import SpokenToken, pack, unpack
from schema.tables.log import token_archives as table

FIRST: Final = UUID(int=0)
BATCH: Final = 100
"""Executions of one transaction."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchivedBatch:
    """One archived batch."""

    executions: int
    tokens: int
    behind: UUID | None
    """The last execution that was looked at; None when all were."""


@dataclass(frozen=True)
class SweepTotals:
    """Totals of a sweep so far."""

    executions: int = 0
    """Executions whose tokens were archived."""
    tokens: int = 0
    forgotten: int = 0
    """Archives that were deleted."""


async def sweep(
    engine: AsyncEngine, archive_before: datetime, forget_before: datetime | None
) -> AsyncIterator[SweepTotals]:
    """Archive and forget in batches of a transaction each, so that it may be stopped at any of them."""
    done, behind = SweepTotals(), FIRST
    while True:
        async with transaction(engine) as connection:
            moved = await archive(connection, archive_before, BATCH, behind)
        done = SweepTotals(done.executions + moved.executions, done.tokens + moved.tokens)
        yield done
        if moved.behind is None:
            break
        behind = moved.behind
    while forget_before:
        async with transaction(engine) as connection:
            forgotten = await forget(connection, forget_before, BATCH)
        done = SweepTotals(done.executions, done.tokens, done.forgotten + forgotten)
        yield done
        if forgotten < BATCH:
            break


# Postgres has no loose index scan of its own: this one takes a step per execution, not per token. A token
# younger than its run's end, of a worker that nobody waits for any more, keeps its execution here.
_OLD: Final = """
WITH RECURSIVE speaking AS (
    (SELECT execution_id, 1 AS number FROM token_stream WHERE execution_id > :behind
     ORDER BY execution_id LIMIT 1)
    UNION ALL
    SELECT found.execution_id, number + 1
    FROM speaking CROSS JOIN LATERAL (
        SELECT execution_id FROM token_stream WHERE execution_id > speaking.execution_id
        ORDER BY execution_id LIMIT 1
    ) AS found
    WHERE CAST(:limit AS int) IS NULL OR number < :limit
)
SELECT execution_id, e.tenant_id, last.seq + 1 AS tokens,
    c.status <> 'running' AND c.completed_at < :older_than AND last.timestamp < :older_than AS old
FROM speaking
JOIN agent_executions e ON e.id = execution_id
JOIN collaborations c ON c.id = e.collaboration_id
CROSS JOIN LATERAL (
    SELECT seq, timestamp FROM token_stream t WHERE t.execution_id = e.id ORDER BY seq DESC LIMIT 1
) AS last
ORDER BY execution_id
"""
_TAKE: Final = text("""
    WITH taken AS (DELETE FROM token_stream WHERE execution_id = :execution RETURNING seq, token, timestamp)
    SELECT seq, token, timestamp FROM taken ORDER BY seq
""")
_ALONE: Final = text("SELECT pg_advisory_xact_lock(hashtext('facilitair.archive'))")


async def archive(
    connection: AsyncConnection, older_than: datetime, limit: int, behind: UUID = FIRST
) -> ArchivedBatch:
    """Move the tokens of runs that ended before a date; `limit` executions are looked at, in the order of
    their ids. All of it is one transaction, so that a token is always in exactly one place."""
    await connection.execute(_ALONE)
    rows = await _spoken_by(connection, older_than, limit, behind)
    moved = [tokens for row in rows if row.old and (tokens := await _moved(connection, row)) is not None]
    more = len(rows) == limit
    return ArchivedBatch(len(moved), sum(moved), rows[-1].execution_id if more else None)


async def _moved(connection: AsyncConnection, row: Any) -> int | None:
    """The number of tokens that were moved; None where they cannot be, and then no others stay for them."""
    try:
        async with connection.begin_nested():
            return await _move(connection, row)
    except Exception as error:
        if befalls_all(error):
            raise
        _log.error("Tokens could not be archived", exc_info=error, extra={"execution": str(row.execution_id)})
        return None


async def waiting(connection: AsyncConnection, older_than: datetime) -> ArchivedBatch:
    """Return what `archive` would move."""
    rows = [row for row in await _spoken_by(connection, older_than, None, FIRST) if row.old]
    return ArchivedBatch(len(rows), sum(row.tokens for row in rows), None)


async def forget(connection: AsyncConnection, older_than: datetime, limit: int) -> int:
    """Delete archives that were made before a date, the oldest first; how many."""
    oldest = (
        select(table.c.execution_id)
        .where(table.c.archived_at < older_than)
        .order_by(table.c.archived_at)
        .limit(limit)
    )
    return (await connection.execute(delete(table).where(table.c.execution_id.in_(oldest)))).rowcount


async def _spoken_by(
    connection: AsyncConnection, older_than: datetime, limit: int | None, behind: UUID
) -> list[Any]:
    asked = {"behind": behind, "limit": limit, "older_than": older_than}
    return list(await connection.execute(text(_OLD), asked))


async def _move(connection: AsyncConnection, row: Any) -> int:
    """Move one execution's tokens. Readers and late writers see them before or after this, never in
    between."""
    taken = (await connection.execute(_TAKE, {"execution": row.execution_id})).all()
    mine = table.c.execution_id == row.execution_id
    had = (await connection.execute(select(table.c.tokens, table.c.first_at).where(mine))).one_or_none()
    said = list(unpack(had.tokens, had.first_at)) if had else []
    # A worker that nobody waits for any more may have written some of them once more, or more of them.
    said += [SpokenToken(one.token, one.timestamp) for one in taken if one.seq >= len(said)]
    values = {
        "tokens": pack(said),
        "count": len(said),
        "first_at": said[0].at,
        "archived_at": datetime.now(UTC),
    }
    await connection.execute(
        upsert(table)
        .values(execution_id=row.execution_id, tenant_id=row.tenant_id, **values)
        .on_conflict_do_update(index_elements=[table.c.execution_id], set_=values)
    )
    return len(taken)
