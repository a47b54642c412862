"""Executions: one row per attempt at a step, at most one of them finished."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import outbox
from schema.catalogue import OTHER_RELATIONSHIP, ROLE_DEFAULTS
from schema.events import AttemptFailed, StepFinished, StepSkipped
from schema.messages import StepRequest, StepResult
from schema.tables import agent_executions as table

FINISHED = ("completed", "skipped")


@dataclass(frozen=True)
class Worker:
    """Who does a step: an agent in a role with a model, or a tool."""

    kind: str
    agent: str
    role: str | None = None
    requested_model: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to."""

    output: Any
    model: str = ""
    provider: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    first_token_ms: int | None = None
    simulated: bool = False


@dataclass(frozen=True)
class Claim:
    """An attempt that was begun, or the result of the one that already finished."""

    execution: UUID
    attempt: int
    started_at: datetime
    done: StepResult | None = None


def _of_step(request: StepRequest) -> Select[Any]:
    # Without the output: it may be megabytes, and nobody who asks this reads it.
    return select(
        table.c.id,
        table.c.attempt,
        table.c.status,
        table.c.started_at,
        table.c.model_id,
        table.c.input_tokens,
        table.c.output_tokens,
        table.c.cost_usd,
        table.c.simulated,
    ).where(
        table.c.collaboration_id == UUID(request.collaboration),
        table.c.step_id == request.step,
        table.c.iteration == request.iteration,
    )


def _usd(cost: Decimal) -> str:
    """To the micro-dollar, as the table keeps it."""
    return f"{cost:.6f}"


def _result(row: Any) -> StepResult:
    return StepResult(
        execution=str(row.id), status=row.status, model=row.model_id, input_tokens=row.input_tokens or 0,
        output_tokens=row.output_tokens or 0, cost_usd=_usd(row.cost_usd or Decimal(0)),
        simulated=row.simulated,
    )  # fmt: skip


async def claim(connection: AsyncConnection, request: StepRequest, worker: Worker) -> Claim:
    """Begin an attempt, unless the step has finished already.

    An attempt that is still `running` belongs to a worker that died (Temporal starts the next one only
    then): it becomes `abandoned`, and whatever it may still write cannot finish the step any more.
    """
    rows = (await connection.execute(_of_step(request).order_by(table.c.attempt))).all()
    for row in rows:
        if row.status in FINISHED:
            return Claim(row.id, row.attempt, row.started_at, _result(row))
    now = datetime.now(UTC)
    if any(row.status == "running" for row in rows):
        await connection.execute(
            update(table)
            .where(table.c.id.in_([row.id for row in rows if row.status == "running"]))
            .values(status="abandoned", completed_at=now)
        )
    attempt = rows[-1].attempt + 1 if rows else 1
    execution = uuid4()
    await connection.execute(
        insert(table).values(
            id=execution, tenant_id=request.tenant, collaboration_id=UUID(request.collaboration),
            step_id=request.step, iteration=request.iteration, attempt=attempt, kind=worker.kind,
            agent_name=worker.agent, role=worker.role, model_id=worker.requested_model or "",
            requested_model=worker.requested_model, status="running", started_at=now,
        )
    )  # fmt: skip
    return Claim(execution, attempt, now)


async def begun(connection: AsyncConnection, request: StepRequest, execution: UUID) -> Claim:
    """An attempt that was begun earlier, or the result of the one that finished meanwhile."""
    rows = (await connection.execute(_of_step(request))).all()
    for row in rows:
        if row.status in FINISHED:
            return Claim(row.id, row.attempt, row.started_at, _result(row))
    row = next(row for row in rows if row.id == execution)
    return Claim(row.id, row.attempt, row.started_at)


def _judgement(output: Any) -> dict[str, Any]:
    """What a reviewing agent's answer says of the work, where it says it in the known fields."""
    if not isinstance(output, dict):
        return {}
    quality, found, severity = (output.get(key) for key in ("quality", "found_issues", "severity"))
    if isinstance(quality, bool) or not isinstance(quality, (int, float)) or not 0 <= quality <= 1:
        quality = None
    return {
        "quality_score": quality,
        "found_issues": found if isinstance(found, bool) else None,
        "severity": severity[:40] if isinstance(severity, str) else None,
    }  # fmt: skip


def _paid(outcome: Outcome, started_at: datetime, now: datetime) -> dict[str, Any]:
    return {
        "model_id": outcome.model, "provider": outcome.provider, "input_tokens": outcome.input_tokens,
        "output_tokens": outcome.output_tokens, "cost_usd": outcome.cost_usd,
        "latency_ms": int((now - started_at).total_seconds() * 1000),
        "first_token_ms": outcome.first_token_ms, "simulated": outcome.simulated, "completed_at": now,
    }  # fmt: skip


def relationship(kind: str, role: str | None) -> str | None:
    """The edge that an execution leaves in the collaboration graph."""
    if kind != "agent":
        return None
    default = next((ROLE_DEFAULTS[known] for known in ROLE_DEFAULTS if known == role), None)
    return default.relationship if default else OTHER_RELATIONSHIP


async def complete(
    connection: AsyncConnection, request: StepRequest, worker: Worker, begun: Claim, outcome: Outcome
) -> StepResult | None:
    """Finish the step with this attempt, and tell the outbox; None when the attempt had been given up.

    What it cost is booked either way.
    """
    now = datetime.now(UTC)
    paid = _paid(outcome, begun.started_at, now)
    judgement = _judgement(outcome.output)
    done = await connection.execute(
        update(table)
        .where(table.c.id == begun.execution, table.c.status == "running")
        .values(status="completed", output=outcome.output, **paid, **judgement)
    )
    if done.rowcount == 0:
        await connection.execute(update(table).where(table.c.id == begun.execution).values(**paid))
        return None
    event = StepFinished(
        collaboration_id=request.collaboration, execution_id=str(begun.execution), step=request.step,
        kind=worker.kind, iteration=request.iteration, attempt=begun.attempt, agent=worker.agent,
        role=worker.role, relationship=relationship(worker.kind, worker.role), model=outcome.model,
        requested_model=worker.requested_model, input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens, latency_ms=paid["latency_ms"], cost_usd=_usd(outcome.cost_usd),
        found_issues=judgement.get("found_issues"), severity=judgement.get("severity"),
        quality=judgement.get("quality_score"), simulated=outcome.simulated,
    )  # fmt: skip
    await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)
    return StepResult(
        execution=str(begun.execution), status="completed", model=outcome.model,
        input_tokens=outcome.input_tokens, output_tokens=outcome.output_tokens,
        cost_usd=_usd(outcome.cost_usd), simulated=outcome.simulated,
    )  # fmt: skip


async def fail(
    connection: AsyncConnection,
    request: StepRequest,
    begun: Claim,
    code: str,
    message: str,
    outcome: Outcome | None = None,
) -> None:
    """Close an attempt that failed. What it had cost by then is kept: it was paid."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {"status": "failed", "error_code": code, "error_message": message[:2_000]}
    values |= _paid(outcome, begun.started_at, now) if outcome else {"completed_at": now}
    done = await connection.execute(
        update(table).where(table.c.id == begun.execution, table.c.status == "running").values(**values)
    )
    if done.rowcount:
        cost = _usd(outcome.cost_usd if outcome else Decimal(0))
        event = AttemptFailed(
            request.collaboration, str(begun.execution), request.step, request.iteration, begun.attempt,
            code, cost,
        )  # fmt: skip
        await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


async def skip(connection: AsyncConnection, request: StepRequest, worker: Worker) -> None:
    """Record that the step will not run."""
    now = datetime.now(UTC)
    added = await connection.execute(
        upsert(table)
        .values(
            id=uuid4(), tenant_id=request.tenant, collaboration_id=UUID(request.collaboration),
            step_id=request.step, iteration=request.iteration, attempt=1, kind=worker.kind,
            agent_name=worker.agent, role=worker.role, model_id="", status="skipped",
            started_at=now, completed_at=now, latency_ms=0,
        )
        .on_conflict_do_nothing()
        .returning(table.c.id)
    )  # fmt: skip
    if added.first():
        event = StepSkipped(request.collaboration, request.step, request.iteration)
        await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


async def outputs(
    connection: AsyncConnection, collaboration: UUID, steps: list[str]
) -> dict[str, dict[str, Any]]:
    """step → {output, status, model} of its latest iteration, for the completed ones among `steps`."""
    if not steps:
        return {}
    rows = await connection.execute(
        select(table.c.step_id, table.c.output, table.c.status, table.c.model_id)
        .where(
            table.c.collaboration_id == collaboration,
            table.c.step_id.in_(steps),
            table.c.status == "completed",
        )
        .order_by(table.c.iteration)
    )
    return {row.step_id: {"output": row.output, "status": row.status, "model": row.model_id} for row in rows}


async def of_collaboration(connection: AsyncConnection, collaboration: UUID) -> list[Any]:
    """Every attempt of a collaboration, without outputs, in the order they began."""
    columns = [column for column in table.c if column.name != "output"]
    rows = await connection.execute(
        select(*columns)
        .where(table.c.collaboration_id == collaboration)
        .order_by(table.c.started_at, table.c.attempt)
    )
    return list(rows)
