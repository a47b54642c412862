"""Read a past run page by page: its log, and the beginnings of its attempts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.live.reader import ENDS, KEPT
from schema.live import StepBegan

PAGE: Final = 1_000
_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PlaybackBounds:
    """The end of a playback: the run's end, or the time of the request if it is still running."""

    xid: str
    until: datetime


_BOUNDS: Final = text("""
    SELECT status = 'running' AS running, pg_snapshot_xmin(pg_current_snapshot())::text AS xid,
        clock_timestamp() AS now
    FROM collaborations WHERE id = :run
""")


async def bounds(connection: AsyncConnection, run: UUID) -> PlaybackBounds:
    row = (await connection.execute(_BOUNDS, {"run": run})).one_or_none()
    if row is None or row.running:
        return PlaybackBounds(row.xid if row else "0", row.now if row else datetime.min.replace(tzinfo=UTC))
    # All that a run did is there when its end is.
    return PlaybackBounds(str(2**63 - 1), _EVER)


_LOG: Final = text("""
    SELECT xid::text AS xid, seq, type, payload, created_at FROM outbox
    WHERE aggregateid = :run AND (xid, seq) > (CAST(:xid AS text)::xid8, :seq)
        AND xid < CAST(:end AS text)::xid8
    ORDER BY xid, seq LIMIT :most
""")


async def log(connection: AsyncConnection, run: UUID, to: PlaybackBounds, last: Any = None) -> list[Any]:
    """The next events behind `last`, in the order of the log."""
    asked = {"run": str(run), "xid": last.xid if last else "0", "seq": last.seq if last else 0}
    return list(await connection.execute(_LOG, asked | {"end": to.xid, "most": PAGE}))


@dataclass(frozen=True, slots=True)
class PlayedAttempt:
    """An attempt at a step of which a watcher was told."""

    id: UUID
    at: datetime
    step: StepBegan
    given_up_at: datetime | None
    """Start of the next attempt, if this one's worker had died."""


# What is told of is under way, was given up, or has its end in the log: items of maps have none, nor has what
# a fork took over.
_BEGUN: Final = text("""
    SELECT id, started_at, path, step_id, kind, attempt, agent_name,
        coalesce(requested_model, model_id) AS model,
        CASE WHEN status = 'abandoned' THEN coalesce(completed_at, started_at) END AS given_up_at
    FROM agent_executions AS e
    WHERE collaboration_id = :run AND kind <> 'item' AND (started_at, id) > (:at, :id)
        AND started_at <= :until
        AND (status IN ('running', 'abandoned') OR EXISTS (
            SELECT FROM outbox
            WHERE aggregateid = :aggregate AND type IN ('StepFinished', 'AttemptFailed')
                AND payload->>'execution_id' = e.id::text))
    ORDER BY started_at, id LIMIT :most
""")


async def begun(
    connection: AsyncConnection, run: UUID, to: PlaybackBounds, last: PlayedAttempt | None = None
) -> list[PlayedAttempt]:
    """The next attempts that began behind `last`."""
    asked = {
        "run": run,
        "aggregate": str(run),
        "until": to.until,
        "most": PAGE,
        "at": last.at if last else datetime.min.replace(tzinfo=UTC),
        "id": last.id if last else UUID(int=0),
    }
    return [
        PlayedAttempt(
            row.id,
            row.started_at,
            StepBegan(str(row.id), row.path, row.step_id, row.kind, row.attempt, row.agent_name, row.model),
            row.given_up_at,
        )
        for row in await connection.execute(_BEGUN, asked)
    ]


async def kept(connection: AsyncConnection, run: UUID) -> dict[str, str]:
    """Path → status of what a forked run took over."""
    rows = await connection.exec_driver_sql(KEPT, ([run],))
    return {row.path: row.status for row in rows}


async def end(connection: AsyncConnection, run: UUID) -> Any:
    """Return what is to be told with the end of a run, as `db.live.fold.with_end` takes it."""
    return (await connection.exec_driver_sql(ENDS, ([run],))).one_or_none()
