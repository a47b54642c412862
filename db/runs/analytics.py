"""Sum runs of a tenant since a moment, one question per function."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, cast, func, select
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs.collaborations import is_simulated
from schema.tables.runs import agent_executions as execution
from schema.tables.runs import collaborations

_MAX_NAMES: Final = 50


@dataclass(frozen=True)
class AnalyticsPeriod:
    tenant: str
    simulated: bool
    """Whether simulated or real runs are summed."""
    since: datetime
    bucket: str
    """The width of one bar, as Postgres writes an interval: `1 hour` or `1 day`."""


def _bucket(period: AnalyticsPeriod, at: ColumnElement[Any]) -> ColumnElement[Any]:
    # From midnight UTC on, so that a bar means the same however late one looks.
    return func.date_bin(cast(period.bucket, INTERVAL), at, func.timestamptz("2020-01-01 00:00:00+00"))


def _of_agents(period: AnalyticsPeriod) -> tuple[ColumnElement[bool], ...]:
    return (
        execution.c.tenant_id == period.tenant,
        execution.c.kind == "agent",
        execution.c.started_at >= period.since,
        execution.c.simulated == period.simulated,
    )


def _money() -> list[ColumnElement[Any]]:
    c = execution.c
    return [
        func.coalesce(func.sum(c.cost_usd), 0).label("cost_usd"),
        func.coalesce(func.sum(c.input_tokens), 0).label("input_tokens"),
        func.coalesce(func.sum(c.output_tokens), 0).label("output_tokens"),
        func.coalesce(func.bool_or(c.simulated), False).label("simulated"),
    ]


def _latency() -> list[ColumnElement[Any]]:
    def percentile(share: float, of: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.percentile_cont(share).within_group(of.asc()).filter(execution.c.status == "completed")

    c = execution.c
    return [
        percentile(0.5, c.latency_ms).label("p50_ms"),
        percentile(0.95, c.latency_ms).label("p95_ms"),
        percentile(0.5, c.first_token_ms).label("first_token_p50_ms"),
        percentile(0.95, c.first_token_ms).label("first_token_p95_ms"),
    ]


async def runs_by_status(connection: AsyncConnection, period: AnalyticsPeriod) -> Sequence[Row[Any]]:
    """(at, status, runs) per bar."""
    c = collaborations.c
    at = _bucket(period, c.started_at).label("at")
    rows = await connection.execute(
        select(at, c.status, func.count().label("runs"))
        .where(c.tenant_id == period.tenant, c.started_at >= period.since, is_simulated() == period.simulated)
        .group_by(at, c.status)
        .order_by(at, c.status)
    )
    return rows.all()


async def cost_by_model(connection: AsyncConnection, period: AnalyticsPeriod) -> Sequence[Row[Any]]:
    """(at, model, cost_usd, …) per bar."""
    c = execution.c
    at = _bucket(period, c.started_at).label("at")
    rows = await connection.execute(
        select(at, c.model_id.label("model"), *_money())
        .where(*_of_agents(period), c.model_id != "")
        .group_by(at, c.model_id)
        .order_by(at, c.model_id)
    )
    return rows.all()


async def by_agent(connection: AsyncConnection, period: AnalyticsPeriod) -> Sequence[Row[Any]]:
    """Return calls, cost and latency per agent, most expensive first."""
    return await _per(connection, period, execution.c.agent_name)


async def by_model(connection: AsyncConnection, period: AnalyticsPeriod) -> Sequence[Row[Any]]:
    """Return calls, cost and latency per answering model, most expensive first."""
    return await _per(connection, period, execution.c.model_id)


async def _per(
    connection: AsyncConnection, period: AnalyticsPeriod, name: ColumnElement[str]
) -> Sequence[Row[Any]]:
    c = execution.c
    rows = await connection.execute(
        select(
            name.label("name"),
            func.count().label("attempts"),
            func.count().filter(c.status == "failed").label("failed"),
            *_money(),
            *_latency(),
        )
        .where(*_of_agents(period), name != "")
        .group_by(name)
        .order_by(func.coalesce(func.sum(c.cost_usd), 0).desc(), name)
        .limit(_MAX_NAMES)
    )
    return rows.all()
