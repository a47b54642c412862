"""Collaborations: pinned to a version at their first moment, closed once."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Float, Row, case, cast, desc, func, select, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import outbox
from db.definitions import Version
from schema.errors import NotFound
from schema.events import CollaborationFinished, CollaborationStarted
from schema.messages import Finish, PinRequest
from schema.tables import agent_executions, collaborations, workflows


@dataclass(frozen=True)
class Run:
    """A collaboration as its activities need it."""

    id: UUID
    temporal_workflow_id: str
    tenant: str
    input: Any
    task: str
    status: str
    traceparent: str
    parent_span_id: str | None
    started_at: datetime
    version_id: UUID
    name: str
    version: int
    sha256: str


_RUN = (
    select(
        collaborations.c.id, collaborations.c.temporal_workflow_id, collaborations.c.tenant_id,
        collaborations.c.input, collaborations.c.task, collaborations.c.status, collaborations.c.traceparent,
        collaborations.c.parent_span_id, collaborations.c.started_at, workflows.c.id, workflows.c.name,
        workflows.c.version, workflows.c.sha256,
    )
    .join(workflows, workflows.c.id == collaborations.c.workflow_id)
)  # fmt: skip


async def run(connection: AsyncConnection, collaboration: UUID) -> Run:
    row = (await connection.execute(_RUN.where(collaborations.c.id == collaboration))).one_or_none()
    if row is None:
        raise NotFound("collaboration_unknown", f"found no collaboration {collaboration}.")
    return Run(*tuple(row))


async def source_of(connection: AsyncConnection, version: UUID) -> str:
    """The stored definition as JSON text."""
    row = await connection.execute(select(workflows.c.source).where(workflows.c.id == version))
    return str(row.scalar_one())


async def pinned_version(connection: AsyncConnection, collaboration: UUID) -> Version | None:
    """The version that a run was bound to, when it already was."""
    row = (
        await connection.execute(
            select(
                workflows.c.id, workflows.c.name, workflows.c.version, workflows.c.sha256, workflows.c.source,
                workflows.c.created_at, workflows.c.created_by,
            )
            .join(collaborations, collaborations.c.workflow_id == workflows.c.id)
            .where(collaborations.c.id == collaboration)
        )
    ).one_or_none()  # fmt: skip
    return Version(*row) if row else None


async def create(
    connection: AsyncConnection,
    request: PinRequest,
    version: Version,
    *,
    task: str,
    traceparent: str,
    parent_span_id: str | None,
) -> None:
    """Bind a run to a version. Doing it again changes nothing."""
    added = await connection.execute(
        upsert(collaborations)
        .values(
            id=UUID(request.first_run_id), tenant_id=request.tenant, workflow_id=version.id,
            temporal_workflow_id=request.workflow_id, task=task, input=request.input, status="running",
            requested_by=request.requested_by, traceparent=traceparent, parent_span_id=parent_span_id,
            started_at=datetime.now(UTC),
        )
        .on_conflict_do_nothing()
        .returning(collaborations.c.id)
    )  # fmt: skip
    if added.first():
        event = CollaborationStarted(
            request.first_run_id, request.workflow_id, version.name, version.number, task
        )
        await outbox.append(connection, request.tenant, request.first_run_id, event, traceparent)


async def finish(connection: AsyncConnection, found: Run, request: Finish, output: Any) -> bool:
    """Close a run; False when it had been closed already. The first close counts."""
    collaboration = found.id
    now = datetime.now(UTC)
    totals = (
        await connection.execute(
            select(func.coalesce(func.sum(agent_executions.c.cost_usd), 0)).where(
                agent_executions.c.collaboration_id == collaboration
            )
        )
    ).scalar_one()
    # The last judgement counts: a review after the repair outweighs the one before it.
    quality = (
        await connection.execute(
            select(agent_executions.c.quality_score)
            .where(
                agent_executions.c.collaboration_id == collaboration,
                agent_executions.c.quality_score.is_not(None),
            )
            .order_by(desc(agent_executions.c.completed_at))
            .limit(1)
        )
    ).scalar()
    closed = await connection.execute(
        update(collaborations)
        .where(collaborations.c.id == collaboration, collaborations.c.status == "running")
        .values(
            status=request.status, sub_state=request.sub_state, error_code=request.error_code,
            error_message=(request.error_message or "")[:4_000] or None, final_output=output,
            quality_score=quality, completed_at=now,
        )
    )  # fmt: skip
    if closed.rowcount:
        event = CollaborationFinished(
            request.collaboration, request.status, request.sub_state, request.error_code, str(totals),
            quality, int((now - found.started_at).total_seconds() * 1000),
        )  # fmt: skip
        await outbox.append(connection, request.tenant, request.collaboration, event, found.traceparent)
    return bool(closed.rowcount)


@dataclass(frozen=True)
class Summary:
    """A collaboration as lists and readers show it."""

    uuid: UUID
    id: str
    """The Temporal workflow id: what a person calls it."""
    name: str
    version: int
    task: str
    status: str
    sub_state: str
    error_code: str | None
    error_message: str | None
    quality_score: float | None
    started_at: datetime
    completed_at: datetime | None
    traceparent: str
    steps_done: int
    cost_usd: Decimal
    input_tokens: int
    output_tokens: int


def _summaries() -> Any:
    run = agent_executions.c
    finished = func.sum(case((run.status.in_(("completed", "skipped")), 1), else_=0))
    totals = (
        select(
            func.coalesce(finished, 0).label("steps_done"),
            func.coalesce(func.sum(run.cost_usd), 0).label("cost_usd"),
            func.coalesce(func.sum(run.input_tokens), 0).label("input_tokens"),
            func.coalesce(func.sum(run.output_tokens), 0).label("output_tokens"),
        )
        .where(run.collaboration_id == collaborations.c.id)
        .lateral()
    )
    c = collaborations.c
    return (
        select(
            c.id, c.temporal_workflow_id, workflows.c.name, workflows.c.version, c.task, c.status,
            c.sub_state, c.error_code, c.error_message, cast(c.quality_score, Float), c.started_at,
            c.completed_at, c.traceparent, totals.c.steps_done, totals.c.cost_usd, totals.c.input_tokens,
            totals.c.output_tokens,
        )
        .join(workflows, workflows.c.id == c.workflow_id)
        .join(totals, true())
    )  # fmt: skip


def _summary(row: Row[Any]) -> Summary:
    return Summary(*tuple(row))


async def find(connection: AsyncConnection, tenant: str, name: str) -> Summary:
    """The latest run under a Temporal workflow id, or the run with that UUID; raises NotFound."""
    where = collaborations.c.temporal_workflow_id == name
    with contextlib.suppress(ValueError):
        where = where | (collaborations.c.id == UUID(name))
    row = (
        await connection.execute(
            _summaries()
            .where(collaborations.c.tenant_id == tenant, where)
            .order_by(desc(collaborations.c.started_at))
            .limit(1)
        )
    ).one_or_none()
    if row is None:
        raise NotFound(
            "collaboration_unknown",
            f"found no collaboration {name!r}; expected the id that `facilitair run` printed. "
            "`facilitair list --runs` shows the recent ones.",
        )
    return _summary(row)


async def recent(
    connection: AsyncConnection,
    tenant: str,
    *,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 50,
    status: str | None = None,
    name: str | None = None,
) -> list[Summary]:
    """Runs, newest first; `before` is the (started_at, uuid) of the last one seen."""
    query = _summaries().where(collaborations.c.tenant_id == tenant)
    if status:
        query = query.where(collaborations.c.status == status)
    if name:
        query = query.where(workflows.c.name == name)
    if before:
        query = query.where(tuple_(collaborations.c.started_at, collaborations.c.id) < tuple_(*before))
    rows = await connection.execute(
        query.order_by(desc(collaborations.c.started_at), desc(collaborations.c.id)).limit(limit)
    )
    return [_summary(row) for row in rows]


async def input_and_output(connection: AsyncConnection, collaboration: UUID) -> tuple[Any, Any]:
    row = (
        await connection.execute(
            select(collaborations.c.input, collaborations.c.final_output).where(
                collaborations.c.id == collaboration
            )
        )
    ).one()
    return row.input, row.final_output
