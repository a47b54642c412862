"""A collaboration as Postgres and Temporal together know it, in the API's words."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import db.runs.lineage
from api.health import queues
from api.health.queues import UnpolledWork
from api.http.shared_models import (
    Attempt,
    CollaborationDetail,
    CollaborationSummary,
    ErrorFact,
    Lineage,
    Relative,
)
from api.temporal import Temporal, TemporalRun
from db.runs.collaborations import RunSummary
from schema.endings import SUB_STATES, error_of
from schema.errors import NotFound, Unavailable


def _seconds(started_at: datetime, completed_at: datetime | None) -> float:
    return round(((completed_at or datetime.now(UTC)) - started_at).total_seconds(), 3)


def _error(code: str | None, message: str | None) -> ErrorFact | None:
    return ErrorFact(code=code, message=message or "") if code else None


def summary(found: RunSummary) -> CollaborationSummary:
    return CollaborationSummary(
        id=found.id,
        run_id=str(found.uuid),
        name=found.name,
        version=found.version,
        task=found.task,
        status=found.status,
        sub_state=found.sub_state,
        error=_error(found.error_code, found.error_message),
        quality=found.quality_score,
        started_at=found.started_at,
        completed_at=found.completed_at,
        seconds=_seconds(found.started_at, found.completed_at),
        steps_done=found.steps_done,
        tokens=found.input_tokens + found.output_tokens,
        cost_usd=float(found.cost_usd),
        trace_id=trace_id(found),
        simulated=found.simulated,
    )


def trace_id(found: RunSummary) -> str:
    return found.traceparent.split("-")[1]


def lineage(found: db.runs.lineage.RunLineage) -> Lineage:
    return Lineage(
        forked_from=_relative(found.forked_from) if found.forked_from else None,
        forked_at=found.forked_at,
        forks=[_relative(one) for one in found.forks],
        parent=_relative(found.parent) if found.parent else None,
        children=[_relative(one) for one in found.children],
    )


def _relative(one: db.runs.lineage.RelatedRun) -> Relative:
    return Relative(
        id=one.id, run_id=str(one.uuid), name=one.name, version=one.version, status=one.status, path=one.path
    )


def attempt(row: Any) -> Attempt:
    return Attempt(
        id=str(row.id),
        path=row.path,
        step=row.step_id,
        iteration=row.iteration,
        attempt=row.attempt,
        kind=row.kind,
        agent=row.agent_name,
        role=row.role,
        model=row.model_id,
        requested_model=row.requested_model,
        provider=row.provider,
        status=row.status,
        tokens=(row.input_tokens or 0) + (row.output_tokens or 0),
        input_tokens=row.input_tokens or 0,
        output_tokens=row.output_tokens or 0,
        cost_usd=float(row.cost_usd or 0),
        seconds=_seconds(row.started_at, row.completed_at),
        first_token_seconds=None if row.first_token_ms is None else row.first_token_ms / 1000,
        quality=row.quality_score,
        simulated=row.simulated,
        reused_from=str(row.reused_from) if row.reused_from else None,
        finish_reason=row.finish_reason,
        repaired=row.repaired,
        error=_error(row.error_code, row.error_message),
        started_at=row.started_at,
        completed_at=row.completed_at,
        retry_at=row.retry_at,
    )


async def not_in_postgres(temporal: Temporal, tenant: str, id: str) -> CollaborationDetail:
    """A run that Temporal has accepted and no worker has begun, or that was refused in its first moment."""
    try:
        execution = await temporal.describe(id, tenant)
    except Unavailable:
        # Answer 404 even when Temporal is down: Postgres does not know the run.
        raise NotFound(
            "collaboration_unknown", f"found no collaboration {id!r}, and Temporal cannot be asked just now."
        ) from None
    name, _, version = execution.type.partition("@")
    error = await _error_of(temporal, execution)
    running = execution.status == "RUNNING"
    return CollaborationDetail(
        id=execution.id,
        run_id=execution.run_id,
        name=name,
        version=int(version) if version.isdecimal() else None,
        task="",
        status="running" if running else "failed",
        sub_state="starting" if running else SUB_STATES.get(execution.status, ""),
        error=error,
        quality=None,
        started_at=execution.started_at,
        completed_at=execution.closed_at,
        seconds=_seconds(execution.started_at, execution.closed_at),
        steps_done=0,
        tokens=0,
        cost_usd=0.0,
        trace_id=None,
        steps=[],
        waits_for=[one.told for one in await queues.unpolled(temporal, execution.waiting)],
    )


async def checked_with_temporal(
    temporal: Temporal, tenant: str, found: CollaborationDetail
) -> CollaborationDetail:
    """A running one as Temporal sees it: a run that was terminated there could not say so in Postgres."""
    if found.status != "running":
        return found
    try:
        execution = await temporal.describe(found.id, tenant)
        if found.run_id not in (execution.first_run_id, execution.run_id):
            return found
        if execution.status not in SUB_STATES:
            return with_waiting(found, await queues.unpolled(temporal, execution.waiting))
        error = await _error_of(temporal, execution)
    except (NotFound, Unavailable):
        return found
    return found.model_copy(
        update={
            "status": "failed",
            "sub_state": SUB_STATES[execution.status],
            "error": error,
            "completed_at": execution.closed_at,
            "seconds": _seconds(found.started_at, execution.closed_at),
        }
    )


def with_waiting(found: CollaborationDetail, waiting: Sequence[UnpolledWork]) -> CollaborationDetail:
    """Return the run with what it waits for: a worker, or the time at which a step is tried again."""
    told = {one.path: one.told for one in waiting} | _retries(found.steps)
    if not told:
        return found
    steps = [
        one.model_copy(update={"waits_for": told[one.path]})
        if one.path in told and one.status == "running"
        else one
        for one in found.steps
    ]
    shown = [f"{path}: {why}" if path else why for path, why in told.items()]
    return found.model_copy(update={"waits_for": shown, "steps": steps})


def _retries(steps: Sequence[Attempt]) -> dict[str, str]:
    """path → until when a step that failed waits, and after which failure."""
    now = datetime.now(UTC)
    return {
        one.path: f"tried again at {one.retry_at:%Y-%m-%d %H:%M:%S} UTC, after {one.error.code}"
        for one in steps
        if one.error and one.retry_at and one.retry_at > now
    }


async def _error_of(temporal: Temporal, execution: TemporalRun) -> ErrorFact | None:
    if execution.status == "FAILED":
        code, message = await temporal.failure(execution)
        return ErrorFact(code=code, message=message)
    told = error_of(execution.status)
    return ErrorFact(code=told[0], message=told[1]) if told else None
