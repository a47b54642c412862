"""Traces kept in Postgres while no OTLP endpoint is set, so that `facilitair trace` can show them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import collaborations, spans


@dataclass(frozen=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    service: str
    started_at: datetime
    ended_at: datetime
    status: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class OwnedSpan(Span):
    """A span, and the run that it is part of."""

    tenant_id: str
    collaboration_id: str | None


def save(engine: Engine, batch: Sequence[OwnedSpan]) -> None:
    """Keep spans; synchronous, because the exporter's thread calls it."""
    with engine.begin() as connection:
        connection.execute(upsert(spans).on_conflict_do_nothing(), [asdict(span) for span in batch])


_SPAN: Final = [spans.c[one.name] for one in fields(Span)]


async def of_run(connection: AsyncConnection, tenant: str, collaboration: UUID, trace_id: str) -> list[Span]:
    """The spans of a run and of the runs that are steps of it, in the order they began. What somebody else
    has written under the same trace id is none of them."""
    run = collaborations.c
    family = (
        select(run.id).where(run.id == collaboration, run.tenant_id == tenant).cte("family", recursive=True)
    )
    below = select(run.id).where(run.parent_id == family.c.id, run.tenant_id == tenant)
    family = family.union(below)
    rows = await connection.execute(
        select(*_SPAN)
        .where(
            spans.c.trace_id == trace_id,
            spans.c.tenant_id == tenant,
            spans.c.collaboration_id.in_(select(family.c.id)),
        )
        .order_by(spans.c.started_at, spans.c.span_id)
    )
    return [Span(**row._mapping) for row in rows]
