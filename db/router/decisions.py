"""Routing decisions, each with the chance it had."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Float, Integer, Select, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.router import routing_decisions as table
from schema.temporal.steps import StepRequest


@dataclass(frozen=True)
class RoutingDecision:
    model: str
    propensity: float
    policy: str
    features: dict[str, Any]
    candidates: dict[str, float]
    """model → propensity; they add up to 1."""
    fallback: bool


@dataclass(frozen=True)
class RecordedDecision:
    """A decision as it was recorded first."""

    model: str
    policy: str
    propensity: float
    confidence: float | None
    budget_tokens: int | None
    """The recommended limit of the answer."""


async def find(connection: AsyncConnection, request: StepRequest) -> RecordedDecision | None:
    """The decision for a step, if it was made before."""
    row = (await connection.execute(_kept(request))).one_or_none()
    return RecordedDecision(*row) if row else None


async def record(
    connection: AsyncConnection, request: StepRequest, decision: RoutingDecision
) -> RecordedDecision:
    """Keep the first decision for a step; asked again, the step gets the same model."""
    await connection.execute(
        upsert(table)
        .values(
            id=uuid4(),
            tenant_id=request.tenant,
            collaboration_id=UUID(request.collaboration),
            path=request.path,
            step_id=request.step,
            iteration=request.iteration,
            policy=decision.policy,
            features=decision.features,
            candidates=decision.candidates,
            chosen_model=decision.model,
            propensity=decision.propensity,
            fallback=decision.fallback,
        )
        .on_conflict_do_nothing()
    )
    return RecordedDecision(*(await connection.execute(_kept(request))).one())


def _kept(request: StepRequest) -> Select[Any]:
    number: tuple[ColumnElement[Any], ...] = (
        table.c.features["confidence"].astext.cast(Float),
        table.c.features["budget_tokens"].astext.cast(Integer),
    )
    return select(table.c.chosen_model, table.c.policy, table.c.propensity, *number).where(
        table.c.collaboration_id == UUID(request.collaboration), table.c.path == request.path
    )
