"""Traces kept in Postgres while no OTLP endpoint is set, so that `facilitair trace` can show them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import spans


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


def save(engine: Engine, batch: Sequence[Span]) -> None:
    """Keep spans; synchronous, because the exporter's thread calls it."""
    with engine.begin() as connection:
        connection.execute(upsert(spans).on_conflict_do_nothing(), [asdict(span) for span in batch])


async def of_trace(connection: AsyncConnection, trace_id: str) -> list[Span]:
    """The spans of one trace in the order they began."""
    rows = await connection.execute(
        select(spans).where(spans.c.trace_id == trace_id).order_by(spans.c.started_at, spans.c.span_id)
    )
    return [Span(**row._mapping) for row in rows]
