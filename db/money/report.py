"""Sum calls from the ledger."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.money import model_calls as call
from schema.tables.runs import collaborations

By = Literal["agent", "model", "definition", "user", "tenant", "day", "provider", "run"]
BYS: Final[tuple[By, ...]] = get_args(By)


@dataclass(frozen=True)
class CallTotals:
    """Totals of the calls in a period, by agent, model or another key."""

    name: str
    """Empty: of none."""
    calls: int
    open_calls: int
    """Under way, or lost and not yet known."""
    input_tokens: int
    cached_input_tokens: int
    """Part of input_tokens."""
    output_tokens: int
    usd: Decimal
    assumed_usd: Decimal
    """Part of usd: the most that lost calls can have cost."""
    open_usd: Decimal
    """Reserved by open calls, as far as limits hold for them. Not part of usd."""
    simulated_usd: Decimal
    """Part of usd: nobody is billed for it."""
    simulated: bool
    """Whether any of the calls was simulated."""


@dataclass(frozen=True)
class ReportPeriod:
    tenant: str
    since: datetime
    until: datetime


def _name(by: By) -> ColumnElement[Any]:
    c = call.c
    names: dict[By, ColumnElement[Any]] = {
        "agent": c.agent_name,
        "model": func.coalesce(c.answered_model, c.model),
        "definition": c.definition,
        "user": c.requested_by,
        "tenant": c.tenant_id,
        "day": func.to_char(func.timezone("UTC", c.opened_at), "YYYY-MM-DD"),
        "provider": c.provider,
        "run": func.coalesce(collaborations.c.temporal_workflow_id, cast(c.collaboration_id, Text)),
    }
    return func.coalesce(names[by], "")


def _sums() -> list[ColumnElement[Any]]:
    c = call.c
    pending = c.state.in_(("open", "unknown"))
    zero = Decimal(0)
    return [
        func.count().label("calls"),
        func.count().filter(pending).label("open_calls"),
        func.coalesce(func.sum(c.input_tokens), 0).label("input_tokens"),
        func.coalesce(func.sum(c.cached_input_tokens), 0).label("cached_input_tokens"),
        func.coalesce(func.sum(c.output_tokens), 0).label("output_tokens"),
        func.coalesce(func.sum(c.usd), zero).label("usd"),
        func.coalesce(func.sum(c.usd).filter(c.basis == "assumed"), zero).label("assumed_usd"),
        func.coalesce(func.sum(c.reserved_usd).filter(pending), zero).label("open_usd"),
        func.coalesce(func.sum(c.usd).filter(c.simulated), zero).label("simulated_usd"),
        func.coalesce(func.bool_or(c.simulated), False).label("simulated"),
    ]


def _within(span: ReportPeriod) -> ColumnElement[bool]:
    c = call.c
    return and_(c.tenant_id == span.tenant, c.opened_at >= span.since, c.opened_at < span.until)


async def total(connection: AsyncConnection, span: ReportPeriod) -> CallTotals:
    row = (await connection.execute(select(*_sums()).where(_within(span)))).one()
    return CallTotals("", *row)


async def page(
    connection: AsyncConnection,
    span: ReportPeriod,
    by: By,
    *,
    after: tuple[Decimal, str] | None = None,
    limit: int = 100,
) -> list[CallTotals]:
    """The dearest first, of days the latest; those behind the (usd, name) of the page before's last one."""
    calls = call
    if by == "run":
        calls = call.outerjoin(collaborations, collaborations.c.id == call.c.collaboration_id)  # type: ignore[assignment]
    summed = (
        select(_name(by).label("name"), *_sums()).select_from(calls).where(_within(span)).group_by("name")
    ).subquery()
    usd, name = summed.c.usd, summed.c.name
    query = select(summed)
    if by == "day":
        query = query.order_by(name.desc())
        if after:
            query = query.where(name < after[1])
    else:
        query = query.order_by(usd.desc(), name)
        if after:
            query = query.where(or_(usd < after[0], and_(usd == after[0], name > after[1])))
    return [CallTotals(*row) for row in await connection.execute(query.limit(limit))]
