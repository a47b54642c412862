"""Collaborations: pinned to a version at their first moment, closed once."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Numeric,
    Row,
    cast,
    column,
    desc,
    exists,
    func,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import outbox
from schema import names
from schema.errors import NotFound
from schema.events import CollaborationStarted
from schema.tables.definitions import workflows
from schema.tables.runs import agent_executions, collaborations


@dataclass(frozen=True)
class Run:
    """A collaboration as its activities need it."""

    id: UUID
    temporal_workflow_id: str
    tenant: str
    input: Any
    task: str
    traceparent: str
    parent_span_id: str | None
    started_at: datetime
    version_id: UUID
    name: str
    version: int
    sha256: str
    engine: int
    linked_traceparent: str | None = None
    """The caller's traceparent, which the run's span links to."""
    request_digest: str | None = None


_RUN = select(
    collaborations.c.id,
    collaborations.c.temporal_workflow_id,
    collaborations.c.tenant_id,
    collaborations.c.input,
    collaborations.c.task,
    collaborations.c.traceparent,
    collaborations.c.parent_span_id,
    collaborations.c.started_at,
    workflows.c.id,
    workflows.c.name,
    workflows.c.version,
    workflows.c.sha256,
    collaborations.c.engine,
    collaborations.c.linked_traceparent,
    collaborations.c.request_digest,
).join(workflows, workflows.c.id == collaborations.c.workflow_id)


async def known(connection: AsyncConnection, collaboration: UUID) -> Run | None:
    row = (await connection.execute(_RUN.where(collaborations.c.id == collaboration))).one_or_none()
    return Run(*tuple(row)) if row else None


async def find_run(connection: AsyncConnection, collaboration: UUID) -> Run:
    """Raises NotFound."""
    found = await known(connection, collaboration)
    if found is None:
        raise NotFound("collaboration_unknown", f"found no collaboration {collaboration}.")
    return found


async def source_of(connection: AsyncConnection, version: UUID) -> str:
    """The stored definition as JSON text."""
    row = await connection.execute(select(workflows.c.source).where(workflows.c.id == version))
    return str(row.scalar_one())


async def create(
    connection: AsyncConnection,
    run: Run,
    requested_by: str | None,
    parent: dict[str, str] | None,
    forked_from: str | None = None,
) -> Run:
    """Bind a run to its version. Doing it again changes nothing."""
    within = parent or {}
    added = await connection.execute(
        upsert(collaborations)
        .values(
            id=run.id,
            tenant_id=run.tenant,
            workflow_id=run.version_id,
            temporal_workflow_id=run.temporal_workflow_id,
            task=run.task,
            input=run.input,
            status="running",
            requested_by=requested_by,
            traceparent=run.traceparent,
            parent_span_id=run.parent_span_id,
            linked_traceparent=run.linked_traceparent,
            request_digest=run.request_digest,
            engine=run.engine,
            parent_id=within.get("collaboration"),
            parent_path=within.get("path"),
            started_at=run.started_at,
        )
        .on_conflict_do_nothing()
        .returning(collaborations.c.id)
    )
    if not added.first():
        return await find_run(connection, run.id)
    event = CollaborationStarted(
        str(run.id), run.temporal_workflow_id, run.name, run.version, run.task, forked_from
    )
    await outbox.append(connection, run.tenant, str(run.id), event, run.traceparent)
    return run


@dataclass(frozen=True)
class RunSummary:
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
    """Finished steps of its own; the figures below include its sub-collaborations."""
    cost_usd: Decimal
    input_tokens: int
    output_tokens: int
    simulated: bool


# Turns of a step that reads others live are no steps, nor rounds of one whose model calls tools.
_TOTALS: Final = """
WITH RECURSIVE tree AS (
    SELECT collaborations.id
    UNION ALL
    SELECT child.id FROM collaborations child JOIN tree ON child.parent_id = tree.id
)
SELECT count(*) FILTER (
        WHERE e.collaboration_id = collaborations.id AND status IN ('completed', 'skipped')
        AND path !~ '~((turn|tools)[0-9]|verify$)'
    ) AS steps_done,
    coalesce(sum(cost_usd), 0) AS cost_usd, coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens, coalesce(bool_or(simulated), false) AS simulated
FROM tree JOIN agent_executions e ON e.collaboration_id = tree.id
"""


def _summaries() -> tuple[Any, Any]:
    """The question for summaries, and the sums in it."""
    totals = (
        text(_TOTALS)
        .columns(
            column("steps_done", Integer),
            column("cost_usd", Numeric),
            column("input_tokens", Integer),
            column("output_tokens", Integer),
            column("simulated", Boolean),
        )
        .lateral("totals")
    )
    c = collaborations.c
    summaries = (
        select(
            c.id,
            c.temporal_workflow_id,
            workflows.c.name,
            workflows.c.version,
            c.task,
            c.status,
            c.sub_state,
            c.error_code,
            c.error_message,
            cast(c.quality_score, Float),
            c.started_at,
            c.completed_at,
            c.traceparent,
            totals.c.steps_done,
            totals.c.cost_usd,
            totals.c.input_tokens,
            totals.c.output_tokens,
            totals.c.simulated,
        )
        .join(workflows, workflows.c.id == c.workflow_id)
        .join(totals, true())
    )
    return summaries, totals


def _summary(row: Row[Any]) -> RunSummary:
    return RunSummary(*tuple(row))


def _called(tenant: str, name: str, query: Any) -> Any:
    """The run that a name means: the one that has it for its UUID, or else the latest one under this Temporal
    workflow id. An id that some client made up never stands before another run's UUID."""
    c = collaborations.c
    query, latest = query.where(c.tenant_id == tenant), desc(c.started_at)
    if not names.is_uuid(name):
        return query.where(c.temporal_workflow_id == name).order_by(latest).limit(1)
    by_uuid = c.id == UUID(name)
    return query.where(by_uuid | (c.temporal_workflow_id == name)).order_by(desc(by_uuid), latest).limit(1)


async def find(connection: AsyncConnection, tenant: str, name: str) -> RunSummary:
    """The run with that UUID, or the latest one under a Temporal workflow id; raises NotFound."""
    row = (await connection.execute(_called(tenant, name, _summaries()[0]))).one_or_none()
    if row is None:
        raise NotFound(
            "collaboration_unknown",
            f"found no collaboration {name!r}; expected the id that `facilitair run` printed. "
            "`facilitair list --runs` shows the recent ones.",
        )
    return _summary(row)


async def uuid_of(connection: AsyncConnection, tenant: str, name: str) -> UUID | None:
    """The run with that UUID, or the latest one under a Temporal workflow id, where it is known."""
    found: UUID | None = await connection.scalar(_called(tenant, name, select(collaborations.c.id)))
    return found


@dataclass(frozen=True)
class StartedRun:
    """A run, and of which request it came."""

    uuid: UUID
    request_digest: str | None


async def started_as(connection: AsyncConnection, tenant: str, id: str) -> StartedRun | None:
    """The latest run under a Temporal workflow id, where there was one."""
    row = (
        await connection.execute(
            select(collaborations.c.id, collaborations.c.request_digest)
            .where(collaborations.c.tenant_id == tenant, collaborations.c.temporal_workflow_id == id)
            .order_by(desc(collaborations.c.started_at))
            .limit(1)
        )
    ).one_or_none()
    return StartedRun(*tuple(row)) if row else None


@dataclass(frozen=True)
class ChatRun:
    """A run among those of one chat."""

    id: str
    uuid: UUID
    status: str


async def turns(connection: AsyncConnection, tenant: str, ids: list[str]) -> list[ChatRun]:
    """Return the runs with these Temporal workflow ids, as far as there are any, oldest first."""
    c = collaborations.c
    rows = await connection.execute(
        select(c.temporal_workflow_id, c.id, c.status)
        .where(c.tenant_id == tenant, c.temporal_workflow_id.in_(ids))
        .order_by(c.started_at)
    )
    return [ChatRun(*tuple(row)) for row in rows]


async def is_known(connection: AsyncConnection, collaboration: UUID) -> bool:
    """Tell whether there is a run with that UUID, whosever it is."""
    found = await connection.scalar(select(collaborations.c.id).where(collaborations.c.id == collaboration))
    return found is not None


@dataclass(frozen=True)
class RunFilter:
    """A filter over runs; None matches all."""

    status: str | None = None
    name: str | None = None
    words: str | None = None
    """Words that the id, the name or the task must contain."""
    since: datetime | None = None
    until: datetime | None = None
    """Both of the start."""
    least_usd: Decimal | None = None
    simulated: bool | None = None


def is_simulated() -> ColumnElement[bool]:
    """Tell whether a run is simulated, from its record once it has ended and from its own answers before."""
    c, answer = collaborations.c, agent_executions.c
    told = exists().where(answer.collaboration_id == c.id, answer.simulated, c.status == "running")
    return c.simulated | told


def _wanted(of: RunFilter) -> list[ColumnElement[bool]]:
    c = collaborations.c
    found = [
        column == value
        for column, value in ((c.status, of.status), (workflows.c.name, of.name))
        if value is not None
    ]
    if of.words:
        places = (c.temporal_workflow_id, workflows.c.name, c.task)
        found.append(or_(*(place.icontains(of.words, autoescape=True) for place in places)))
    found += [is_simulated() == of.simulated] if of.simulated is not None else []
    found += [c.started_at >= of.since] if of.since else []
    found += [c.started_at < of.until] if of.until else []
    return found


async def recent(
    connection: AsyncConnection,
    tenant: str,
    wanted: RunFilter,
    *,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 50,
) -> list[RunSummary]:
    """Runs, newest first; `before` is the (started_at, uuid) of the last one seen."""
    summaries, totals = _summaries()
    query = summaries.where(collaborations.c.tenant_id == tenant, *_wanted(wanted))
    if wanted.least_usd is not None:
        query = query.where(totals.c.cost_usd >= wanted.least_usd)
    if before:
        query = query.where(tuple_(collaborations.c.started_at, collaborations.c.id) < tuple_(*before))
    rows = await connection.execute(
        query.order_by(desc(collaborations.c.started_at), desc(collaborations.c.id)).limit(limit)
    )
    return [_summary(row) for row in rows]


async def count_running(
    connection: AsyncConnection, tenant: str, most: int, *, requested_by: str | None = None
) -> int:
    """Count a tenant's runs that are under way, at most `most`; only those that somebody asked for."""
    c = collaborations.c
    query = select(c.id).where(c.status == "running", c.tenant_id == tenant)
    if requested_by is not None:
        query = query.where(c.requested_by == requested_by)
    counted = await connection.execute(select(func.count()).select_from(query.limit(most).subquery()))
    return int(counted.scalar_one())


async def running(connection: AsyncConnection, limit: int, behind: Run | None = None) -> list[Run]:
    """Return running runs of all tenants, oldest first, after the last one of the page before."""
    order = collaborations.c.started_at, collaborations.c.id
    query = _RUN.where(collaborations.c.status == "running").order_by(*order).limit(limit)
    if behind:
        query = query.where(tuple_(*order) > tuple_(behind.started_at, behind.id))
    rows = await connection.execute(query)
    return [Run(*tuple(row)) for row in rows]


async def input_and_output(connection: AsyncConnection, collaboration: UUID) -> tuple[Any, Any]:
    row = (
        await connection.execute(
            select(collaborations.c.input, collaborations.c.final_output).where(
                collaborations.c.id == collaboration
            )
        )
    ).one()
    return row.input, row.final_output
