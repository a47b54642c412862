"""Questions to people, and what they decided: one row per question, one per person's decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, ColumnElement, Select, Text, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs.executions import Claim
from schema.errors import NotFound
from schema.rules.people import too_late
from schema.tables.definitions import workflows
from schema.tables.money import spending
from schema.tables.people import human_decisions, human_tasks
from schema.tables.runs import agent_executions, collaborations
from schema.temporal.people import Decision
from schema.temporal.steps import StepRequest

OPEN: Final = "open"
DECIDED: Final = "decided"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"

_task = human_tasks.c


@dataclass(frozen=True)
class QuestionSummary:
    """A question as lists show it."""

    id: UUID
    collaboration: UUID
    workflow_id: str
    """Temporal's."""
    name: str
    """Name of the definition."""
    path: str
    title: str
    actions: list[dict[str, Any]]
    """[{"id", "title", "requires", "edits"}]"""
    assignees: list[str]
    approvals: int
    status: str
    escalated: bool
    opened_at: datetime
    due_at: datetime | None
    reminded_at: datetime | None
    closed_at: datetime | None
    decided_by: list[str]
    asking: int
    """1, and more where the same was asked at this path before."""


@dataclass(frozen=True)
class Task(QuestionSummary):
    """A question with all that people see."""

    show: dict[str, Any]
    form: dict[str, Any] | None
    last_call: str | None
    tenant: str


@dataclass(frozen=True)
class PersonDecision:
    """One person's decision on a question."""

    actor: str
    action: str
    form: dict[str, Any]
    original: Any
    """The value they were shown, if they replaced it."""
    edited: Any
    at: datetime


_decided_by = func.array(
    select(human_decisions.c.actor)
    .where(human_decisions.c.task_id == _task.id)
    .order_by(human_decisions.c.at, human_decisions.c.id)
    .scalar_subquery(),
    type_=ARRAY(Text),
).label("decided_by")
_earlier = human_tasks.alias("earlier")
# Of those that were set aside the path has a number behind it: `write~budget~2`.
_unnumbered = func.split_part(_task.path, "~", 1) + "~" + func.split_part(_task.path, "~", 2)
_asking = (
    select(func.count() + 1)
    .where(
        _earlier.c.collaboration_id == _task.collaboration_id,
        func.starts_with(_earlier.c.path, _unnumbered + "~"),
        _earlier.c.opened_at < _task.opened_at,
    )
    .scalar_subquery()
    .label("asking")
)
_SUMMARY: Final = (
    _task.id,
    _task.collaboration_id,
    collaborations.c.temporal_workflow_id,
    workflows.c.name,
    _task.path,
    _task.title,
    _task.actions,
    _task.assignees,
    _task.approvals,
    _task.status,
    _task.escalated,
    _task.opened_at,
    _task.due_at,
    _task.reminded_at,
    _task.closed_at,
    _decided_by,
    _asking,
)
_ALL: Final = (*_SUMMARY, _task.show, _task.form, _task.last_call, _task.tenant_id)


def _tasks(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .join(collaborations, collaborations.c.id == _task.collaboration_id)
        .join(workflows, workflows.c.id == collaborations.c.workflow_id)
    )


async def at_path(connection: AsyncConnection, collaboration: UUID, path: str) -> Task | None:
    """The question that a step asks, locked until the transaction's end."""
    return await _locked(connection, _task.collaboration_id == collaboration, _task.path == path)


async def of_run(connection: AsyncConnection, collaboration: UUID, id: UUID) -> Task | None:
    """A question of a run, whether or not it is still asked, locked until the transaction's end."""
    return await _locked(connection, _task.collaboration_id == collaboration, _task.id == id)


async def _locked(connection: AsyncConnection, *which: ColumnElement[bool]) -> Task | None:
    query = _tasks(*_ALL).where(*which).with_for_update(of=human_tasks)
    row = (await connection.execute(query)).one_or_none()
    return Task(*tuple(row)) if row else None


async def find(connection: AsyncConnection, tenant: str, id: UUID) -> Task:
    """Raises NotFound."""
    row = (
        await connection.execute(_tasks(*_ALL).where(_task.tenant_id == tenant, _task.id == id))
    ).one_or_none()
    if row is None:
        raise NotFound(
            "human_task_unknown", f"found no question {id}; `facilitair tasks` lists those that are open."
        )
    return Task(*tuple(row))


async def page(
    connection: AsyncConnection,
    tenant: str,
    *,
    status: str,
    assignees: Sequence[str] = (),
    collaboration: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 50,
) -> list[QuestionSummary]:
    """Questions, oldest first: those to any of `assignees`, and those to everybody; all where none is given.

    `collaboration` is a Temporal workflow id; `after` the (opened_at, id) of the last one seen.
    """
    query = _tasks(*_SUMMARY).where(_task.tenant_id == tenant, _task.status == status)
    if status == OPEN:
        # A run that was terminated in Temporal could not withdraw its questions.
        query = query.where(collaborations.c.status == "running")
    if assignees:
        query = query.where(or_(_task.assignees.overlap(list(assignees)), _task.assignees == []))
    if collaboration:
        query = query.where(collaborations.c.temporal_workflow_id == collaboration)
    if after:
        query = query.where(tuple_(_task.opened_at, _task.id) > tuple_(*after))
    rows = await connection.execute(query.order_by(_task.opened_at, _task.id).limit(limit))
    return [QuestionSummary(*tuple(row)) for row in rows]


async def add(
    connection: AsyncConnection,
    request: StepRequest,
    *,
    title: str,
    show: dict[str, Any],
    form: dict[str, Any] | None,
    actions: list[dict[str, Any]],
    assignees: list[str],
    approvals: int,
    opened_at: datetime,
    due_at: datetime,
) -> None:
    await connection.execute(
        insert(human_tasks).values(
            id=uuid4(),
            tenant_id=request.tenant,
            collaboration_id=UUID(request.collaboration),
            path=request.path,
            title=title,
            show=show,
            form=form,
            actions=actions,
            assignees=assignees,
            approvals=approvals,
            status=OPEN,
            opened_at=opened_at,
            due_at=due_at,
        )
    )


async def set_aside(connection: AsyncConnection, task: Task) -> None:
    """Make room for the same question to be asked once more; this one keeps its decisions."""
    await _change(connection, task, path=f"{task.path}~{task.asking}")


async def remind(connection: AsyncConnection, task: Task, at: datetime, call: str) -> None:
    await _change(connection, task, reminded_at=at, last_call=call)


async def escalate(
    connection: AsyncConnection, task: Task, assignees: list[str], at: datetime, due_at: datetime, call: str
) -> None:
    await _change(
        connection, task, escalated=True, assignees=assignees, reminded_at=at, due_at=due_at, last_call=call
    )


async def close(connection: AsyncConnection, task: Task, status: str, at: datetime) -> None:
    await _change(connection, task, status=status, closed_at=at)


async def withdraw(connection: AsyncConnection, collaboration: UUID) -> None:
    """Ask nothing more for a run that ended and could not say so itself."""
    await connection.execute(
        update(human_tasks)
        .where(_task.collaboration_id == collaboration, _task.status == OPEN)
        .values(status=CANCELLED, closed_at=func.now())
    )


async def _change(connection: AsyncConnection, task: Task, **values: Any) -> None:
    await connection.execute(update(human_tasks).where(_task.id == task.id).values(**values))


async def decide(connection: AsyncConnection, task: Task, made: PersonDecision) -> None:
    await connection.execute(
        insert(human_decisions).values(
            id=uuid4(),
            tenant_id=task.tenant,
            task_id=task.id,
            actor=made.actor,
            action=made.action,
            form=made.form,
            original=made.original,
            edited=made.edited,
            at=made.at,
        )
    )


async def decisions(connection: AsyncConnection, task: UUID) -> list[PersonDecision]:
    """In the order in which they were made."""
    decision = human_decisions.c
    rows = await connection.execute(
        select(
            decision.actor, decision.action, decision.form, decision.original, decision.edited, decision.at
        )
        .where(decision.task_id == task)
        .order_by(decision.at, decision.id)
    )
    return [PersonDecision(*tuple(row)) for row in rows]


async def taken_before(connection: AsyncConnection, task: Task, decision: Decision) -> bool:
    """Return whether the same person has made the very same decision; raises Refused where another decision
    stands, or the question is not open any more."""
    made = await decisions(connection, task.id)
    wanted = (decision.actor, decision.action, decision.form, decision.edited)
    if any((one.actor, one.action, one.form, one.edited) == wanted for one in made):
        return True
    decided = [(one.actor, one.action, one.at) for one in made]
    if fault := too_late(task.path, task.status, decided, decision.actor):
        raise fault
    return False


async def attempt(connection: AsyncConnection, request: StepRequest) -> Claim:
    """The execution that waits for people."""
    execution = agent_executions.c
    row = (
        await connection.execute(
            select(execution.id, execution.attempt, execution.started_at).where(
                execution.collaboration_id == UUID(request.collaboration),
                execution.path == request.path,
                execution.status == "running",
            )
        )
    ).one()
    return Claim(row.id, row.attempt, row.started_at)


async def budget(connection: AsyncConnection, collaboration: UUID) -> dict[str, float | int | None]:
    """Return a run's budget and spending, as people are shown them."""
    row = (
        await connection.execute(
            select(
                spending.c.limit_usd,
                spending.c.spent_usd,
                spending.c.reserved_usd,
                spending.c.limit_tokens,
                spending.c.spent_tokens,
                spending.c.reserved_tokens,
            ).where(spending.c.scope == "run", spending.c.subject == str(collaboration))
        )
    ).one_or_none()
    if row is None:
        return {}
    return {
        name: float(value) if isinstance(value, Decimal) else value for name, value in row._mapping.items()
    }
