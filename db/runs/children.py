"""Facts about the runs around and within a collaboration."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.errors import NotFound, StepError
from schema.tables.definitions import workflows
from schema.tables.runs import agent_executions, collaborations


@dataclass(frozen=True)
class ChildResult:
    """The status and result of a collaboration."""

    status: str
    output: Any
    error_code: str | None
    error_message: str | None


async def end_of(connection: AsyncConnection, tenant: str, collaboration: UUID) -> ChildResult:
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
    return ChildResult(*row)


@dataclass(frozen=True)
class ChildRecord:
    """A sub-collaboration of another run."""

    id: UUID
    version: UUID
    input: Any


async def begun_elsewhere(connection: AsyncConnection, execution: UUID) -> ChildRecord | None:
    """Return the sub-collaboration that the source of a forked execution had begun; None if it had none."""
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
    return ChildRecord(*row) if row else None


# The root's row is locked until the transaction ends: it is the last thing that a transaction takes.
_COUNT: Final = text("""
WITH RECURSIVE lineage AS (
    SELECT id, parent_id, tenant_id FROM collaborations WHERE id = :run
    UNION ALL
    SELECT c.id, c.parent_id, c.tenant_id FROM collaborations c JOIN lineage ON lineage.parent_id = c.id
)
INSERT INTO run_trees AS tree (root_id, tenant_id, children)
SELECT id, tenant_id, :more FROM lineage WHERE parent_id IS NULL
ON CONFLICT (root_id) DO UPDATE SET children = tree.children + :more
RETURNING children
""")
_COUNTED: Final = text("""
WITH RECURSIVE lineage AS (
    SELECT id, parent_id FROM collaborations WHERE id = :run
    UNION ALL
    SELECT c.id, c.parent_id FROM collaborations c JOIN lineage ON lineage.parent_id = c.id
)
SELECT children FROM run_trees WHERE root_id IN (SELECT id FROM lineage WHERE parent_id IS NULL)
""")


async def count(connection: AsyncConnection, run: UUID, most: int, more: int = 1) -> None:
    """Count sub-collaborations that a run begins, at the outermost run around it.

    Raises StepError("too_many_children") where they are more than one start may lead to.
    """
    counted = (await connection.execute(_COUNT, {"run": run, "more": more})).scalar()
    if counted is not None and counted > most:
        raise StepError(
            "too_many_children",
            f"found more than {most:,} sub-collaborations after one start, those within each other "
            "included; expected at most so many (FACILITAIR_MAX_SUB_COLLABORATIONS). Let fewer of them do "
            "more, or start several runs.",
        )


async def counted(connection: AsyncConnection, run: UUID) -> int:
    """Count the sub-collaborations begun in this run's tree."""
    return (await connection.execute(_COUNTED, {"run": run})).scalar() or 0


async def count_resumed(connection: AsyncConnection, run: UUID, most: int) -> None:
    """Count those that a forked run goes on with: they begin as runs of their own. Raises StepError."""
    e = agent_executions.c
    query = select(func.count()).where(
        e.collaboration_id == run, e.kind == "collaboration", e.status == "running"
    )
    if resumed := (await connection.execute(query)).scalar_one():
        await count(connection, run, most, resumed)


async def planned_levels(connection: AsyncConnection, collaboration: UUID) -> int:
    """Count the levels, this run included, that run a definition planned by an agent."""
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
