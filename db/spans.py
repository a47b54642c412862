"""Traces kept in Postgres while no OTLP endpoint is set, so that `facilitair trace` can show them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, Text, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.log import spans
from schema.tables.runs import collaborations


@dataclass(frozen=True)
class StoredSpan:
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
class OwnedSpan(StoredSpan):
    """A span, and the run that it is part of."""

    tenant_id: str
    collaboration_id: str | None


def save(engine: Engine, batch: Sequence[OwnedSpan]) -> None:
    """Keep spans; synchronous, because the exporter's thread calls it."""
    with engine.begin() as connection:
        connection.execute(upsert(spans).on_conflict_do_nothing(), [asdict(span) for span in batch])


_SPAN: Final = [spans.c[one.name] for one in fields(StoredSpan)]


async def of_run(
    connection: AsyncConnection,
    tenant: str,
    collaboration: UUID,
    trace_id: str,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[StoredSpan], bool]:
    """Spans of a run and of the runs that are steps of it, in the order they began, behind the (started_at,
    span_id) of the last one seen; and whether there are more. What somebody else has written under the same
    trace id is none of them. A page holds one at least, and beyond it no more bytes than `max_bytes`."""
    run = collaborations.c
    family = (
        select(run.id).where(run.id == collaboration, run.tenant_id == tenant).cte("family", recursive=True)
    )
    below = select(run.id).where(run.parent_id == family.c.id, run.tenant_id == tenant)
    family = family.union(below)
    order = spans.c.started_at, spans.c.span_id
    query = select(*_SPAN).where(
        spans.c.trace_id == trace_id,
        spans.c.tenant_id == tenant,
        spans.c.collaboration_id.in_(select(family.c.id)),
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    found = query.order_by(*order).limit(limit + 1).cte("found")
    place = found.c.started_at, found.c.span_id
    size = func.octet_length(cast(found.c.attributes, Text)) + func.octet_length(found.c.name)
    sized = select(
        found,
        func.sum(size).over(order_by=place).label("bytes"),
        func.row_number().over(order_by=place).label("number"),
        func.count().over().label("in_all"),
    ).subquery()
    # What is too large stays in the server.
    fits = (sized.c.number == 1) | (sized.c.bytes <= max_bytes)
    rows = await connection.execute(
        select(sized).where(fits, sized.c.number <= limit).order_by(sized.c.number)
    )
    page = list(rows)
    facts = [StoredSpan(**{one.name: row._mapping[one.name] for one in fields(StoredSpan)}) for row in page]
    return facts, bool(page) and len(page) < page[0].in_all
