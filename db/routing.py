"""Routing decisions, each with the chance it had."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.messages import RouteResult, StepRequest
from schema.tables import routing_decisions as table


@dataclass(frozen=True)
class Decision:
    model: str
    propensity: float
    policy: str
    features: dict[str, Any]
    candidates: dict[str, float]
    """model → propensity; they add up to 1."""
    fallback: bool


async def record(connection: AsyncConnection, request: StepRequest, decision: Decision) -> RouteResult:
    """Keep the first decision for a step; asked again, the step gets the same model."""
    key = (
        table.c.collaboration_id == UUID(request.collaboration),
        table.c.path == request.path,
    )
    await connection.execute(
        upsert(table)
        .values(
            id=uuid4(), tenant_id=request.tenant, collaboration_id=UUID(request.collaboration),
            path=request.path, step_id=request.step, iteration=request.iteration, policy=decision.policy,
            features=decision.features, candidates=decision.candidates, chosen_model=decision.model,
            propensity=decision.propensity, fallback=decision.fallback,
        )
        .on_conflict_do_nothing()
    )  # fmt: skip
    row = (
        await connection.execute(select(table.c.chosen_model, table.c.policy, table.c.propensity).where(*key))
    ).one()
    return RouteResult(row.chosen_model, row.policy, row.propensity)
