"""Consequences of a routing decision: a person's choice instead, a verified answer, an answer cut short."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, cast, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs.executions import AttemptOutcome
from schema.tables.router import routing_decisions
from schema.tables.runs import agent_executions
from schema.temporal.steps import StepRequest

CUT: Final = "answer_cut"

_decision = routing_decisions.c


@dataclass(frozen=True)
class ModelChoice:
    """The router's choice for a step, and its candidates."""

    model: str
    candidates: dict[str, float]
    """model → chance"""
    features: dict[str, Any]


async def choice(connection: AsyncConnection, collaboration: str, path: str) -> ModelChoice:
    """The decision for a step, which has been made."""
    query = select(_decision.chosen_model, _decision.candidates, _decision.features)
    return ModelChoice(*(await connection.execute(query.where(*_of_step(collaboration, path)))).one())


async def note_person(
    connection: AsyncConnection, collaboration: str, path: str, model: str, actor: str
) -> None:
    """Keep with a decision that a person made it: neither policy nor chance chose the model then."""
    asked = cast({"asked": {"model": model, "by": actor}}, JSONB)
    await connection.execute(
        update(routing_decisions)
        .where(*_of_step(collaboration, path))
        .values(features=_decision.features.concat(asked))
    )


async def planned(connection: AsyncConnection, request: StepRequest) -> dict[str, Any] | None:
    """`cheap` and `strong`: who answers a step first, and who where a verifier rejects that; None where one
    model is asked outright."""
    query = select(_decision.features["verify"])
    found: dict[str, Any] | None = await connection.scalar(
        query.where(*_of_step(request.collaboration, request.path))
    )
    return found


async def was_cut(connection: AsyncConnection, request: StepRequest) -> bool:
    """Tell whether an answer to the step broke off at the router's recommended limit."""
    execution = agent_executions.c
    query = select(execution.id).where(
        execution.collaboration_id == UUID(request.collaboration),
        execution.path == request.path,
        execution.error_code == CUT,
    )
    return await connection.scalar(query.limit(1)) is not None


async def book(connection: AsyncConnection, execution: UUID, paid: AttemptOutcome) -> None:
    """Note with an attempt under way what its answer cost: the attempt that takes it over does not pay for
    it."""
    await connection.execute(
        update(agent_executions)
        .where(agent_executions.c.id == execution)
        .values(
            model_id=paid.model,
            provider=paid.provider,
            input_tokens=paid.input_tokens,
            output_tokens=paid.output_tokens,
            cost_usd=paid.cost_usd,
            first_token_ms=paid.first_token_ms,
            simulated=paid.simulated,
            finish_reason=paid.finish_reason,
        )
    )


@dataclass(frozen=True)
class VerifierVerdicts:
    """A verifier's verdicts beside people's later judgement of the same answers."""

    wrong: int = 0
    wrong_rejected: int = 0
    right: int = 0
    right_rejected: int = 0


# Of a verifier's latest calls, whatever for: a bound on what one decision may read.
_VERDICTS: Final = text("""
    WITH recent AS (
        SELECT path, status, input, output FROM agent_executions
        WHERE tenant_id = :tenant AND kind = 'agent' AND model_id = :model AND simulated = :simulated
        ORDER BY started_at DESC LIMIT 2000
    ), judged AS (
        SELECT CAST(input->>'execution' AS uuid) AS execution,
            CAST(output->>'accepted' AS boolean) AS accepted
        FROM recent WHERE path LIKE '%~verify' AND status = 'completed'
    )
    SELECT count(*) FILTER (WHERE ok < 0.5), count(*) FILTER (WHERE ok < 0.5 AND NOT accepted),
        count(*) FILTER (WHERE ok >= 0.5), count(*) FILTER (WHERE ok >= 0.5 AND NOT accepted)
    FROM judged JOIN outcomes ON outcomes.execution_id = judged.execution
""")


async def verdicts(
    connection: AsyncConnection, tenant: str, model: str, *, simulated: bool
) -> VerifierVerdicts:
    """Compare a verifier's verdicts with people's judgement of the same answers, in real or simulated
    runs."""
    values = {"tenant": tenant, "model": model, "simulated": simulated}
    row = (await connection.execute(_VERDICTS, values)).one()
    return VerifierVerdicts(*row)


def _of_step(collaboration: str, path: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _decision.collaboration_id == UUID(collaboration), _decision.path == path
