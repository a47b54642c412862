"""Questions to people: list, read and decide them."""

import asyncio
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request

from api.http import cursors
from api.http.audited_acts import audited
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.people.models import DecisionRequest, TaskAction, TaskDecision, TaskDetail, TaskPage, TaskSummary
from api.state import Actor, ApiState, Connection, StateOf, Tenant
from api.temporal import ENDED_MEANWHILE, RPC_TIMEOUT, Temporal
from db.runs import people
from db.runs.people import PersonDecision, QuestionSummary, Task
from schema.errors import FacilitairError, Refused, Unavailable
from schema.rules.people import not_waiting, refused
from schema.temporal.people import Decision, QuestionState

router = APIRouter(prefix="/tasks", tags=["tasks"])

Status = Literal["open", "decided", "expired", "cancelled"]
_ASSIGNEE: Final = r"^(user|group):[^\x00-\x1f]{1,200}$"
_UPDATE_TIMEOUT_SECONDS: Final = 15.0
"""A run that is just being taken over by another worker needs some."""


@router.get("", responses=errors())
async def list_tasks(
    connection: Connection,
    tenant: Tenant,
    status: Status = "open",
    assignee: Annotated[
        list[Annotated[str, Query(pattern=_ASSIGNEE)]] | None,
        Query(max_length=50, description="Questions to any of these, and to everybody. Repeat it."),
    ] = None,
    collaboration: Annotated[str | None, Query(pattern=r"^[^\x00-\x1f]{1,1000}$")] = None,
    after: Annotated[str | None, cursors.query(cursors.MOMENT_AND_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TaskPage:
    """Questions to people, oldest first."""
    found = await people.page(
        connection,
        tenant,
        status=status,
        assignees=assignee or (),
        collaboration=collaboration,
        after=cursors.moment_and_id(after) if after else None,
        limit=limit + 1,
    )
    page = found[:limit]
    more = cursors.encode_moment(page[-1].opened_at, page[-1].id) if len(found) > limit else None
    return TaskPage(items=[TaskSummary(**_summary(one)) for one in page], next=more)


@router.get("/{id}", responses=errors(404))
async def read(id: UUID, connection: Connection, tenant: Tenant) -> TaskDetail:
    """One question, with what its people see and what they have decided."""
    task = await people.find(connection, tenant, id)
    return _detail(task, await people.decisions(connection, task.id))


@router.post("/{id}/decisions", openapi_extra=body_of(DecisionRequest), responses=errors(404, 409, 413, 415))
async def decide(id: UUID, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> TaskDetail:
    """Decide. The run goes on when enough people have; `status` says whether it does."""
    return await take_decision(state, tenant, actor, id, await read_json(request, state, DecisionRequest))


async def take_decision(
    state: ApiState, tenant: str, actor: str, id: UUID, wanted: DecisionRequest
) -> TaskDetail:
    """Take a decision, or find that the same person has made it already. Raises NotFound, Refused or
    Unavailable."""
    async with state.transaction() as connection:
        task = await people.find(connection, tenant, id)
        decision = Decision(
            task.path,
            wanted.action,
            wanted.actor or actor,
            wanted.groups,
            wanted.form,
            wanted.edited,
            task=str(task.id),
        )
        taken = await people.taken_before(connection, task, decision)
    if not taken:
        if fault := refused(_asked(task), decision):
            raise fault
        await _carry_out(state, tenant, actor, task, decision)
    async with state.transaction() as connection:
        now = await people.find(connection, tenant, task.id)
        return _detail(now, await people.decisions(connection, task.id))


async def _carry_out(state: ApiState, tenant: str, actor: str, task: Task, decision: Decision) -> None:
    if decision.actor == actor:
        await _tell_run(state, task, decision)
        return
    for_whom = {"task": str(task.id), "decided_by": decision.actor, "groups": decision.groups}
    subject = f"{task.workflow_id}/{task.path}"
    async with audited(state, tenant, actor, "human.speak_for", subject, **for_whom):
        await _tell_run(state, task, decision)


async def _tell_run(state: ApiState, task: Task, decision: Decision) -> None:
    """Let the run take a decision; where it does not, what stands in Postgres is the answer: another may have
    been faster, or the very same, and the run may have ended by it."""
    try:
        await _update_run(state.temporal, task, decision)
    except FacilitairError:
        async with state.transaction() as connection:
            now = await people.find(connection, task.tenant, task.id)
            if not await people.taken_before(connection, now, decision):
                raise


async def _update_run(temporal: Temporal, task: Task, decision: Decision) -> None:
    """The run itself takes the decision: it may have gone on a moment ago."""
    from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
    from temporalio.exceptions import ApplicationError
    from temporalio.service import RPCError, RPCStatusCode

    run = str(task.collaboration)
    handle = await temporal.handle_of(task.workflow_id, run)
    decision = temporal.signer.decision(run, decision) if temporal.signer else decision
    try:
        async with asyncio.timeout(_UPDATE_TIMEOUT_SECONDS):
            await handle.execute_update("decide", decision, result_type=str, rpc_timeout=RPC_TIMEOUT)
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        code = cause.type if isinstance(cause, ApplicationError) and cause.type else "internal_error"
        if code == ENDED_MEANWHILE:
            raise not_waiting(task.path) from error
        message = cause.message if isinstance(cause, ApplicationError) else type(cause).__name__
        kind = Refused if code.startswith("human_") else FacilitairError
        raise kind(code, message) from error
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise Unavailable(
            "worker_unavailable",
            "no worker took the decision in time; it may still be taken. Look at the question again before "
            "you decide once more.",
        ) from error
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise not_waiting(task.path) from error
        raise temporal.told(error, task.workflow_id) from error


def _asked(task: Task) -> QuestionState:
    return QuestionState(
        actions=task.actions, form=task.form, assignees=task.assignees, decided_by=task.decided_by
    )


def _summary(found: QuestionSummary) -> dict[str, Any]:
    return {
        "id": str(found.id),
        "collaboration": found.workflow_id,
        "name": found.name,
        "path": found.path,
        "title": found.title,
        "actions": [TaskAction(**one) for one in found.actions],
        "assignees": found.assignees,
        "approvals": found.approvals,
        "decided_by": found.decided_by,
        "status": found.status,
        "escalated": found.escalated,
        "opened_at": found.opened_at,
        "due_at": found.due_at,
        "reminded_at": found.reminded_at,
        "closed_at": found.closed_at,
        "asking": found.asking,
    }


def _detail(found: Task, decisions: list[PersonDecision]) -> TaskDetail:
    return TaskDetail(
        **_summary(found),
        show=found.show,
        form=found.form,
        decisions=[TaskDecision(**vars(one)) for one in decisions],
    )
