"""Sums of runs over time: counts, costs, tokens, latencies."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.http.problems import errors
from api.state import Connection, Simulated, Tenant
from db.runs import analytics

router = APIRouter(tags=["analytics"])

Span = Literal["24h", "7d", "30d"]
_LENGTH: Final = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_BUCKET: Final = {"24h": "1 hour", "7d": "1 day", "30d": "1 day"}


class RunCount(BaseModel):
    at: datetime = Field(description="When the bar begins.")
    status: str
    runs: int


class ModelCost(BaseModel):
    at: datetime
    model: str
    cost_usd: float
    input_tokens: int
    output_tokens: int
    simulated: bool


class Doing(BaseModel):
    """Totals of an agent or a model; latencies are of completed executions."""

    name: str
    attempts: int = Field(description="Each was paid.")
    failed: int
    cost_usd: float
    input_tokens: int
    output_tokens: int
    simulated: bool
    p50_ms: float | None
    p95_ms: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None


class Analytics(BaseModel):
    simulated: bool = Field(description="Whether these are simulated runs and answers; else real ones.")
    period: Span
    since: datetime
    bucket: str = Field(description="`1 hour` or `1 day`, from midnight UTC.")
    runs: list[RunCount]
    costs: list[ModelCost]
    agents: list[Doing] = Field(description="The dearest first, at most 50.")
    models: list[Doing]


@router.get("/analytics", responses=errors())
async def read(
    connection: Connection,
    tenant: Tenant,
    simulated: Simulated,
    period: Annotated[Span, Query(description="Until now.")] = "7d",
) -> Analytics:
    """Runs by status, costs by model, and what each agent and model cost and took."""
    since = _since(period, datetime.now(UTC))
    of = analytics.AnalyticsPeriod(tenant, simulated, since, _BUCKET[period])
    return Analytics(
        simulated=simulated,
        period=period,
        since=since,
        bucket=of.bucket,
        runs=[RunCount(**_facts(row)) for row in await analytics.runs_by_status(connection, of)],
        costs=[ModelCost(**_facts(row)) for row in await analytics.cost_by_model(connection, of)],
        agents=[Doing(**_facts(row)) for row in await analytics.by_agent(connection, of)],
        models=[Doing(**_facts(row)) for row in await analytics.by_model(connection, of)],
    )


def _since(period: Span, now: datetime) -> datetime:
    """From the beginning of a bar on: half a bar would look like a quiet day."""
    first = now - _LENGTH[period]
    if _BUCKET[period] == "1 hour":
        return first.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return first.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _facts(row: Any) -> dict[str, Any]:
    return dict(row._mapping)
