"""Embedded tasks in Postgres: the source of Weaviate's copy, and the answer while Weaviate is away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Float, cast, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.outbox import Position
from schema.tables.definitions import workflows
from schema.tables.runs import agent_executions, collaborations, recalls, task_vectors
from schema.temporal.steps import StepRequest


@dataclass(frozen=True)
class MemoryEntry:
    """A completed collaboration as memory keeps it."""

    collaboration: UUID
    tenant: str
    name: str
    task: str
    final_output: Any
    quality_score: float | None
    cost_usd: float
    embedding: list[float] | None
    simulated: bool


async def completed(connection: AsyncConnection, ids: Sequence[UUID]) -> list[MemoryEntry]:
    """The completed ones among `ids` in the order they began, with their vector where it is known."""
    cost = (
        select(func.coalesce(func.sum(agent_executions.c.cost_usd), 0))
        .where(agent_executions.c.collaboration_id == collaborations.c.id)
        .scalar_subquery()
    )
    rows = await connection.execute(
        select(
            collaborations.c.id,
            collaborations.c.tenant_id,
            workflows.c.name,
            collaborations.c.task,
            collaborations.c.final_output,
            collaborations.c.quality_score,
            cast(cost, Float),
            collaborations.c.simulated,
            task_vectors.c.embedding,
        )
        .join(workflows, workflows.c.id == collaborations.c.workflow_id)
        .outerjoin(task_vectors, task_vectors.c.collaboration_id == collaborations.c.id)
        .where(collaborations.c.id.in_(ids), collaborations.c.status == "completed")
        .order_by(collaborations.c.started_at, collaborations.c.id)
    )
    return [
        MemoryEntry(
            *row[:7], [float(x) for x in row.embedding] if row.embedding is not None else None, row.simulated
        )
        for row in rows
    ]


async def save(
    connection: AsyncConnection, encoder: str, vectors: Sequence[tuple[UUID, str, Sequence[float]]]
) -> None:
    """Keep (collaboration, tenant, embedding); a known one stays as it is."""
    if vectors:
        await connection.execute(
            upsert(task_vectors)
            .values(
                [
                    {
                        "collaboration_id": id,
                        "tenant_id": tenant,
                        "encoder": encoder,
                        "embedding": list(vector),
                    }
                    for id, tenant, vector in vectors
                ]
            )
            .on_conflict_do_nothing()
        )


# Vectors are saved in the order of the log, a batch in one transaction: the newest event whose task has
# one is how far the log is embedded, and it needs no cursor that could be wrong.
_EMBEDDED_TO = text("""
    SELECT o.xid::text::bigint AS xid, o.seq
    FROM outbox o
    JOIN task_vectors v ON v.collaboration_id = CAST(o.payload ->> 'collaboration_id' AS uuid)
    WHERE o.type = 'CollaborationFinished'
    ORDER BY o.xid DESC, o.seq DESC
    LIMIT 1
""")


async def embedded_to(connection: AsyncConnection) -> Position:
    """The place in the log up to which completed tasks are embedded."""
    row = (await connection.execute(_EMBEDDED_TO)).one_or_none()
    return Position(row.xid, row.seq) if row else Position()


async def nearest(
    connection: AsyncConnection,
    tenant: str,
    embedding: Sequence[float],
    limit: int,
    min_cosine: float,
    *,
    simulated: bool,
) -> list[tuple[float, MemoryEntry]]:
    """(cosine similarity, memory) of real runs, or of simulated ones, best first."""
    # The index knows no tenants: without this it would stop after its 40 nearest of all tenants together.
    await connection.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
    distance = task_vectors.c.embedding.cosine_distance(list(embedding))
    rows = await connection.execute(
        select(
            (1 - distance).label("cosine"),
            collaborations.c.id,
            collaborations.c.tenant_id,
            workflows.c.name,
            collaborations.c.task,
            collaborations.c.final_output,
            collaborations.c.quality_score,
        )
        .join(collaborations, collaborations.c.id == task_vectors.c.collaboration_id)
        .join(workflows, workflows.c.id == collaborations.c.workflow_id)
        .where(task_vectors.c.tenant_id == tenant, collaborations.c.simulated == simulated)
        .order_by(distance)
        .limit(limit)
    )
    return [
        (row.cosine, MemoryEntry(*row[1:], cost_usd=0.0, embedding=None, simulated=simulated))
        for row in rows
        if row.cosine >= min_cosine
    ]


async def record_recall(
    connection: AsyncConnection, request: StepRequest, source: str, hits: list[dict[str, Any]]
) -> None:
    await connection.execute(
        upsert(recalls)
        .values(
            collaboration_id=UUID(request.collaboration),
            path=request.path,
            step_id=request.step,
            iteration=request.iteration,
            tenant_id=request.tenant,
            source=source,
            hits=hits,
        )
        .on_conflict_do_nothing()
    )


async def recalled(connection: AsyncConnection, request: StepRequest) -> list[dict[str, Any]]:
    """The hints found for a step; empty when none were looked for."""
    row = await connection.execute(
        select(recalls.c.hits).where(
            recalls.c.collaboration_id == UUID(request.collaboration),
            recalls.c.path == request.path,
        )
    )
    return list(row.scalar() or [])
