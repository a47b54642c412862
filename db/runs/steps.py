"""Everything recorded about one step of a run."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.router import routing_decisions
from schema.tables.runs import agent_executions, recalls


@dataclass(frozen=True)
class StepRecord:
    attempts: list[Any]
    """Rows of its executions in their order, outputs included."""
    recall: Any
    """(source, hits) of what it was shown as a hint, or None."""
    routing: Any
    """(policy, chosen_model, propensity, candidates, fallback), or None."""


async def known(connection: AsyncConnection, collaboration: UUID, path: str) -> StepRecord:
    run, hint, choice = agent_executions.c, recalls.c, routing_decisions.c
    attempts = await connection.execute(
        select(agent_executions)
        .where(run.collaboration_id == collaboration, run.path == path)
        .order_by(run.attempt)
    )
    recall = await connection.execute(
        select(hint.source, hint.hits).where(hint.collaboration_id == collaboration, hint.path == path)
    )
    routing = await connection.execute(
        select(
            choice.policy, choice.chosen_model, choice.propensity, choice.candidates, choice.fallback
        ).where(choice.collaboration_id == collaboration, choice.path == path)
    )
    return StepRecord(list(attempts), recall.first(), routing.first())
