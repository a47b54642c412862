"""What a collaboration must know of those around and within it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.errors import NotFound
from schema.tables import agent_executions, collaborations, workflows


@dataclass(frozen=True)
class End:
    """How a collaboration stands."""

    status: str
    output: Any
    error_code: str | None
    error_message: str | None


async def end_of(connection: AsyncConnection, tenant: str, collaboration: UUID) -> End:
    """Raises NotFound."""
    c = collaborations.c
    row = (
        await connection.execute(
            select(c.status, c.final_output, c.error_code, c.error_message).where(
                c.id == collaboration, c.tenant_id == tenant
            )
        )
    ).one_or_none()
    if row is None:
        raise NotFound("collaboration_unknown", f"found no collaboration {collaboration}.")
    return End(*row)


@dataclass(frozen=True)
class Begun:
    """A sub-collaboration of another run."""

    id: UUID
    version: UUID
    input: Any


async def begun_elsewhere(connection: AsyncConnection, execution: UUID) -> Begun | None:
    """What a forked run's execution goes on from: the sub-collaboration of the one it was copied from."""
    c, own, source = collaborations.c, agent_executions.alias("own"), agent_executions.alias("source")
    row = (
        await connection.execute(
            select(c.id, c.workflow_id, c.input)
            .join_from(own, source, source.c.id == own.c.reused_from)
            .join(
                collaborations,
                (c.parent_id == source.c.collaboration_id) & (c.parent_path == source.c.path),
            )
            .where(own.c.id == execution)
            .order_by(c.started_at.desc())
            .limit(1)
        )
    ).one_or_none()
    return Begun(*row) if row else None


async def planned_levels(connection: AsyncConnection, collaboration: UUID) -> int:
    """How many of a run and the runs around it run a definition that an agent planned."""
    c = collaborations.c
    lineage = (
        select(c.id, c.parent_id, c.workflow_id, literal(0).label("depth"))
        .where(c.id == collaboration)
        .cte("lineage", recursive=True)
    )
    lineage = lineage.union_all(
        select(c.id, c.parent_id, c.workflow_id, lineage.c.depth + 1).join(
            lineage, lineage.c.parent_id == c.id
        )
    )
    counted = await connection.execute(
        select(func.count())
        .select_from(lineage)
        .join(workflows, workflows.c.id == lineage.c.workflow_id)
        .where(workflows.c.planned_by.is_not(None))
    )
    return int(counted.scalar_one())
