"""Every time that the router learned, or tried to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import desc, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.errors import NotFound
from schema.tables.router import trainings as table


@dataclass(frozen=True)
class Training:
    id: UUID
    tenant: str
    status: str
    """running, registered, refused or failed."""
    until: datetime
    seed: int
    arguments: dict[str, Any]
    data: dict[str, Any]
    """{"outcomes", "held_out", "models", "refused": {reason: count}, "sources", "by_another", "network"}"""
    curve: list[dict[str, Any]]
    """[{"epoch", …}], by epoch."""
    figures: dict[str, Any]
    reason: str
    started_by: str | None
    started_at: datetime
    ended_at: datetime | None
    simulated: bool
    """Whether it learns from simulated runs; never from both kinds."""


_COLUMNS: Final = (
    table.c.id,
    table.c.tenant_id,
    table.c.status,
    table.c.until,
    table.c.seed,
    table.c.arguments,
    table.c.data,
    table.c.curve,
    table.c.figures,
    table.c.reason,
    table.c.started_by,
    table.c.started_at,
    table.c.ended_at,
    table.c.simulated,
)


async def start(
    connection: AsyncConnection,
    id: UUID,
    tenant: str,
    until: datetime,
    seed: int,
    by: str,
    arguments: dict[str, Any],
    *,
    simulated: bool,
) -> Training:
    """Open a training, or return the one that was opened under this id before."""
    added = await connection.execute(
        upsert(table)
        .values(
            id=id,
            tenant_id=tenant,
            until=until,
            seed=seed,
            started_by=by,
            arguments=arguments,
            simulated=simulated,
        )
        .on_conflict_do_nothing()
        .returning(table.c.id)
    )
    if added.first():
        await audit.append(connection, tenant, by, "training.start", str(id), seed=seed, simulated=simulated)
    return await find(connection, tenant, id)


async def find(connection: AsyncConnection, tenant: str, id: UUID) -> Training:
    """Raises NotFound."""
    row = (
        await connection.execute(select(*_COLUMNS).where(table.c.id == id, table.c.tenant_id == tenant))
    ).one_or_none()
    if row is None:
        raise NotFound(
            "training_unknown",
            f"found no training {id}; `facilitair router trainings` lists those that there are.",
        )
    return Training(*tuple(row))


async def page(
    connection: AsyncConnection,
    tenant: str,
    *,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 50,
    simulated: bool | None = None,
) -> list[Training]:
    """The newest first, from behind (started_at, id) on; `simulated` None: whatever they learned from."""
    query = select(*_COLUMNS).where(table.c.tenant_id == tenant)
    if simulated is not None:
        query = query.where(table.c.simulated == simulated)
    if after is not None:
        query = query.where(tuple_(table.c.started_at, table.c.id) < after)
    rows = await connection.execute(query.order_by(desc(table.c.started_at), desc(table.c.id)).limit(limit))
    return [Training(*tuple(row)) for row in rows]


async def note_data(connection: AsyncConnection, id: UUID, data: dict[str, Any]) -> None:
    """Add to what is known of what it learns from."""
    await connection.execute(update(table).where(table.c.id == id).values(data=table.c.data + data))


async def note_epoch(connection: AsyncConnection, id: UUID, point: dict[str, Any]) -> None:
    """One point of the curve; an epoch that was made again takes its own place, and what had followed it
    goes, as that is made again too."""
    row = (await connection.execute(select(table.c.curve).where(table.c.id == id).with_for_update())).one()
    curve = [one for one in row.curve if one["epoch"] < point["epoch"]] + [point]
    await connection.execute(update(table).where(table.c.id == id).values(curve=curve))


async def note_figures(connection: AsyncConnection, id: UUID, figures: dict[str, Any], reason: str) -> None:
    """Record the verdict of judging, in figures and in words."""
    await connection.execute(update(table).where(table.c.id == id).values(figures=figures, reason=reason))


async def end(
    connection: AsyncConnection, tenant: str, id: UUID, status: str, reason: str, by: str
) -> Training:
    """Close a training; one that was closed before stays as it is."""
    closed = await connection.execute(
        update(table)
        .where(table.c.id == id, table.c.tenant_id == tenant, table.c.status == "running")
        .values(status=status, reason=reason, ended_at=func.clock_timestamp())
    )
    if closed.rowcount:
        await audit.append(connection, tenant, by, f"training.{status}", str(id), reason=reason)
    return await find(connection, tenant, id)


# A challenger is given a week to gather evidence before another takes its place. What ended long before the
# last training has been learned from, or refused, already.
_DUE: Final = text("""
SELECT tenant, made_up FROM (
    SELECT DISTINCT tenant_id AS tenant, simulated AS made_up FROM collaborations
) AS known
CROSS JOIN LATERAL (
    SELECT max(until) AS until FROM trainings WHERE tenant_id = tenant AND simulated = made_up
        AND status IN ('registered', 'refused')
) AS last
WHERE NOT EXISTS (
    SELECT 1 FROM checkpoints WHERE tenant_id = tenant AND simulated = made_up
        AND state IN ('shadow', 'share')
        AND state_since > now() - interval '7 days'
) AND (
    SELECT count(*) FROM (
        SELECT 1 FROM agent_executions AS done JOIN collaborations AS run ON run.id = done.collaboration_id
        WHERE done.tenant_id = tenant AND run.simulated = made_up AND run.status <> 'running'
            AND done.kind = 'agent' AND strpos(done.path, '~') = 0 AND done.reused_from IS NULL
            AND done.status IN ('completed', 'failed', 'caught')
            AND done.completed_at > coalesce(last.until, '-infinity')
        LIMIT :enough
    ) AS fresh
) >= :enough
ORDER BY made_up, tenant LIMIT :limit
""")


async def due(connection: AsyncConnection, enough: int, limit: int = 1_000) -> list[tuple[str, bool]]:
    """(tenant, whether of simulated runs) where agents did `enough` steps since the tenant last learned from
    such runs, and the challenger is not new."""
    rows = await connection.execute(_DUE, {"enough": enough, "limit": limit})
    return [(row.tenant, row.made_up) for row in rows]
