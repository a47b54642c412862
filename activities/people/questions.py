"""Questions to people: ask, record decisions, remind, escalate, expire. They run as local activities."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.people import route_question
from activities.runs.context import definition_of, facts_of, load, run_of, worker_of
from activities.runs.failures import recorded
from activities.values import checked_output, storable
from db import audit, outbox
from db.engine import transaction
from db.money import spending
from db.money.spending import Amount
from db.router import rules
from db.runs import executions, people
from db.runs.collaborations import Run
from db.runs.executions import AttemptOutcome
from db.runs.people import CANCELLED, DECIDED, EXPIRED, OPEN, PersonDecision, Task
from plan.compile import HUMAN_TIMEOUT_SECONDS, CompiledDefinition
from plan.walk import repeated
from schema import names
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.events import Event, HumanAsked, HumanDecided, HumanEscalated, HumanReminded
from schema.language.definition import Budget
from schema.language.json_numbers import as_declared
from schema.language.steps import HumanStep, seconds
from schema.language.templates import as_text, render
from schema.rules.people import not_waiting, refused, verdict
from schema.temporal.people import DecisionRecord, QuestionState
from schema.temporal.signing import Signer
from schema.temporal.steps import StepEnd, StepRequest

TIMEOUT_ACTOR: Final = "timeout"
"""Actor of a decision that nobody made in time."""
MAX_TITLE: Final = 10_000
MAX_TOLD_CHARS: Final = 16_000
"""Longest shown value in live events."""

APPROVE: Final = "approve"
REJECT: Final = "reject"
BUDGET_ACTIONS: Final[list[dict[str, Any]]] = [
    {"id": APPROVE, "title": "Allow more", "requires": [], "edits": None},
    {"id": REJECT, "title": "Stop here", "requires": [], "edits": None},
]
BUDGET_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "usd": {"type": "number", "minimum": 0, "maximum": 100_000, "description": "So many dollars more."},
        "tokens": {"type": "integer", "minimum": 0, "maximum": 10**12, "description": "So many tokens more."},
    },
    "additionalProperties": False,
}
"""Empty: as much again as the definition allows."""


class HumanActivity:
    """For a budget's question `request.purpose` is `budget`, for a model's `route`; they have no execution of
    their own."""

    def __init__(self, engine: AsyncEngine, signer: Signer | None = None) -> None:
        """`signer`: without one, anyone who reaches Temporal may decide."""
        self._engine = engine
        self._signer = signer

    @activity.defn(name="ask")
    async def ask(self, request: StepRequest) -> QuestionState:
        """Ask what the step asks, or return the question that was asked before.

        Raises StepError("human_timeout") where its time had passed.
        """
        async with transaction(self._engine) as connection:
            if task := await _at_path(connection, request):
                return await self._as_it_is(connection, request, task)
        async with recorded(self._engine, request), transaction(self._engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, HumanStep)
            begun = await executions.claim(connection, request, worker_of(context.definition, step))
            if begun.done:
                return QuestionState(ended=StepEnd(request.step, begun.done.status))
            show = storable(checked_output(render(step.show, context.scope)))
            await executions.set_input(connection, begun.execution, show)
            task = await _add(
                connection,
                request,
                begun.started_at,
                title=as_text(render(step.title, context.scope)),
                show=show,
                form=step.form,
                actions=[action.model_dump() for action in step.actions],
                assignees=step.assignees,
                approvals=step.approvals,
                timeout_seconds=_timeout(step),
            )
            return await self._as_it_is(connection, request, task)

    @activity.defn(name="ask_budget")
    async def ask_budget(self, request: StepRequest) -> QuestionState:
        """Ask whether a run may spend more than its budget. It may be asked again when that is spent too."""
        async with transaction(self._engine) as connection:
            task = await _at_path(connection, request)
            if task and task.status == DECIDED and await _outcome(connection, task) == APPROVE:
                await people.set_aside(connection, task)
                task = None
            if task is None:
                run = await run_of(connection, request.collaboration)
                now = datetime.now(UTC)
                step = replace(request, purpose="").path
                task = await _add(
                    connection,
                    request,
                    now,
                    title=f"{run.name} has used up its budget at step {step}. May it spend more?",
                    show={"step": step, **await people.budget(connection, run.id)},
                    form=BUDGET_FORM,
                    actions=BUDGET_ACTIONS,
                    assignees=(await _budget(connection, run)).assignees,
                    approvals=1,
                    timeout_seconds=HUMAN_TIMEOUT_SECONDS,
                )
            return await self._as_it_is(connection, request, task)

    @activity.defn(name="ask_route")
    async def ask_route(self, request: StepRequest) -> QuestionState:
        """Ask which model does a step that the router is not sure of, or return what was asked before.

        The answer's `choice` is empty where it stays with the router's: nobody decided in time.
        """
        asking = replace(request, purpose="")
        async with recorded(self._engine, asking), transaction(self._engine) as connection:
            task = await _at_path(connection, request)
            if task is None:
                question = await route_question.question_of(connection, request)
                if question is None:
                    return QuestionState(ended=StepEnd(request.step, "completed"))
                task = await _add(
                    connection,
                    request,
                    datetime.now(UTC),
                    title=question.title,
                    show=question.show,
                    form=None,
                    actions=question.actions,
                    assignees=question.assignees,
                    approvals=1,
                    timeout_seconds=HUMAN_TIMEOUT_SECONDS,
                )
            return await self._as_it_is(connection, request, task)

    @activity.defn(name="record_decision")
    async def record_decision(self, made: DecisionRecord) -> QuestionState:
        """Take a person's decision; raises Refused. The same decision once more changes nothing."""
        decision = made.decision
        if self._signer:
            self._signer.check_decision(made.request.collaboration, decision)
        async with transaction(self._engine) as connection:
            task = await _meant(connection, made)
            request = _request_at(made.request, task.path)
            form, edited = as_declared(task.form or {}, storable(decision.form)), storable(decision.edited)
            decision = replace(decision, form=form, edited=edited)
            taken = await people.taken_before(connection, task, decision)
            asked = await self._as_it_is(connection, request, task)
            if taken:
                return asked
            if fault := refused(asked, decision):
                raise fault
            edits = _action(task, decision.action)["edits"] if edited is not None else None
            original = task.show.get(edits) if edits else None
            now = datetime.now(UTC)
            await people.decide(
                connection, task, PersonDecision(decision.actor, decision.action, form, original, edited, now)
            )
            run = await run_of(connection, request.collaboration)
            await audit.append(
                connection,
                request.tenant,
                decision.actor,
                "human.decide",
                f"{run.temporal_workflow_id}/{request.path}",
                task=str(task.id),
                decision=decision.action,
                edited=edited is not None,
            )
            return await self._after(connection, request, task, decision.actor, decision.action)

    @activity.defn(name="remind")
    async def remind(self, request: StepRequest) -> QuestionState:
        """Note that people were reminded; says when to do so next."""
        async with transaction(self._engine) as connection:
            task = await _existing(connection, request)
            if task.status == OPEN and task.last_call != _call():
                step = await _human_step(connection, request)
                assert step.remind_after is not None
                # By the question's own times: a workflow whose clock skips reminds before Postgres' clock
                # would have it.
                at = (task.reminded_at or task.opened_at) + timedelta(seconds=seconds(step.remind_after))
                await people.remind(connection, task, max(at, datetime.now(UTC)), _call())
                await _tell(
                    connection,
                    request,
                    HumanReminded(
                        request.collaboration, str(task.id), request.step, request.path, task.assignees
                    ),
                )
                task = await _existing(connection, request)
            return await self._as_it_is(connection, request, task)

    @activity.defn(name="expire")
    async def expire(self, request: StepRequest) -> QuestionState:
        """The time has passed: escalate, take the action for that case, or raise StepError("human_timeout").

        Whether it has is for the workflow to say, by its own clock.
        """
        async with transaction(self._engine) as connection:
            task = await _existing(connection, request)
            if task.status == OPEN and task.last_call != _call():
                task = await self._expired(connection, request, task)
            if task.status != EXPIRED or request.purpose:
                return await self._as_it_is(connection, request, task)
        # After the commit: what an error leaves behind would be rolled back.
        raise _timed_out(task)

    @activity.defn(name="withdraw")
    async def withdraw(self, request: StepRequest) -> None:
        """Ask no longer: the run was cancelled, or something else ended the step."""
        async with transaction(self._engine) as connection:
            task = await _at_path(connection, request)
            if task is None or task.status != OPEN:
                return
            await people.close(connection, task, CANCELLED, datetime.now(UTC))
            if not request.purpose:
                begun = await people.attempt(connection, request)
                await executions.fail(
                    connection, request, begun, "cancelled", "the question was withdrawn undecided"
                )

    async def _expired(self, connection: AsyncConnection, request: StepRequest, task: Task) -> Task:
        """Apply the definition's rule for an expired question, and return the question as it stands
        afterwards."""
        now = datetime.now(UTC)
        step = None if request.purpose else await _human_step(connection, request)
        if step and step.on_timeout == "escalate" and not task.escalated:
            assert task.due_at is not None
            at = max(now, task.due_at)  # see `remind`
            due_at = at + timedelta(seconds=_timeout(step))
            await people.escalate(connection, task, step.escalate_to, at, due_at, _call())
            await _tell(
                connection,
                request,
                HumanEscalated(
                    request.collaboration, str(task.id), request.step, request.path, step.escalate_to
                ),
            )
        elif step and step.on_timeout not in ("escalate", "fail"):
            made = PersonDecision(TIMEOUT_ACTOR, step.on_timeout, {}, None, None, now)
            await people.decide(connection, task, made)
            await self._close(connection, request, task, TIMEOUT_ACTOR, step.on_timeout, step.on_timeout)
        else:
            await people.close(connection, task, EXPIRED, now)
            if step:
                begun = await people.attempt(connection, request)
                fault = _timed_out(task)
                await executions.fail(connection, request, begun, fault.code, fault.message)
        return await _existing(connection, request)

    async def _after(
        self, connection: AsyncConnection, request: StepRequest, task: Task, actor: str, action: str
    ) -> QuestionState:
        """Close the question if the decision settles it."""
        made = await people.decisions(connection, task.id)
        found = verdict(
            [(one.actor, one.action) for one in made],
            [one["id"] for one in task.actions],
            task.approvals,
            task.assignees,
        )
        if found:
            await self._close(connection, request, task, actor, action, found.action)
        else:
            await _tell(connection, request, _decided(request, task, actor, action, closed=False))
        return await self._as_it_is(connection, request, await _existing(connection, request))

    async def _close(
        self,
        connection: AsyncConnection,
        request: StepRequest,
        task: Task,
        actor: str,
        action: str,
        outcome: str | None,
    ) -> None:
        """The question is settled: the step has its output or its model, or the run its money."""
        await people.close(connection, task, DECIDED, datetime.now(UTC))
        await _tell(connection, request, _decided(request, task, actor, action, closed=True))
        made = await people.decisions(connection, task.id)
        if request.purpose:
            if request.purpose == route_question.PURPOSE:
                step, model = replace(request, purpose="").path, route_question.chosen(task, outcome)
                await rules.note_person(connection, request.collaboration, step, model, actor)
            elif outcome == APPROVE:
                await _allow_more(connection, request, made[-1].form)
            return
        _, found = await facts_of(connection, request.collaboration)
        worker = worker_of(found.definition, found.steps[request.step])
        begun = await people.attempt(connection, request)
        output = checked_output(_output(task, made, outcome))
        await executions.complete(connection, request, worker, begun, AttemptOutcome(output))

    async def _as_it_is(self, connection: AsyncConnection, request: StepRequest, task: Task) -> QuestionState:
        if task.status == EXPIRED and not request.purpose:
            raise _timed_out(task)
        if task.status == CANCELLED:
            raise not_waiting(task.path)
        ended, choice = None, ""
        if task.status != OPEN and request.purpose == route_question.PURPOSE:
            ended = StepEnd(request.step, "completed")
            choice = route_question.chosen(task, await _outcome(connection, task))
        elif task.status != OPEN:
            approved = not request.purpose or await _outcome(connection, task) == APPROVE
            ended = StepEnd(request.step, "completed" if approved else "rejected")
        # Both times are later than Postgres' clock where the workflow's clock skips.
        now = max(datetime.now(UTC), task.reminded_at or task.opened_at)
        assert task.due_at is not None
        return QuestionState(
            actions=[{key: action[key] for key in ("id", "requires", "edits")} for action in task.actions],
            form=task.form,
            assignees=task.assignees,
            decided_by=task.decided_by,
            remind_in=await _remind_in(connection, request, task, now) if task.status == OPEN else None,
            due_in=max((task.due_at - now).total_seconds(), 0.0) if task.status == OPEN else None,
            ended=ended,
            choice=choice,
            task=str(task.id),
            again=task.asking > 1,
        )


def _output(task: Task, made: list[PersonDecision], outcome: str | None) -> dict[str, Any]:
    """Build the output of a human step."""
    winners = [one for one in made if one.action == outcome]
    edits = _action(task, outcome)["edits"] if outcome else None
    edited = [one.edited for one in winners if one.edited is not None]
    return {
        "decision": outcome,
        "by": [one.actor for one in winners],
        "form": {name: value for one in winners for name, value in one.form.items()},
        "value": (edited[-1] if edited else task.show.get(edits)) if edits else None,
        "decisions": [
            {"actor": one.actor, "action": one.action, "form": one.form, "at": one.at.isoformat()}
            for one in made
        ],
    }


def _action(task: Task, id: str) -> dict[str, Any]:
    return next(action for action in task.actions if action["id"] == id)


def _decided(request: StepRequest, task: Task, actor: str, action: str, *, closed: bool) -> HumanDecided:
    return HumanDecided(
        request.collaboration, str(task.id), request.step, request.path, actor, action, closed
    )


def _timed_out(task: Task) -> StepError:
    asked = ", ".join(task.assignees) or "anybody"
    return StepError("human_timeout", f"{asked} did not decide {task.title[:200]!r} in time.")


def _timeout(step: HumanStep) -> float:
    return seconds(step.timeout) if step.timeout else HUMAN_TIMEOUT_SECONDS


def _call() -> str:
    """The same for every try of one activity, and never again."""
    info = activity.info()
    return f"{info.workflow_run_id}/{info.activity_id}"


async def _tell(connection: AsyncConnection, request: StepRequest, event: Event) -> None:
    await outbox.append(connection, request.tenant, request.collaboration, event, request.traceparent)


async def _at_path(connection: AsyncConnection, request: StepRequest) -> Task | None:
    return await people.at_path(connection, UUID(request.collaboration), request.path)


async def _meant(connection: AsyncConnection, made: DecisionRecord) -> Task:
    """The question that a decision is for; raises Refused where there is none."""
    request, decision = made.request, made.decision
    run, path = UUID(request.collaboration), decision.path or request.path
    if not decision.task:
        task = await people.at_path(connection, run, path)
    else:
        known = names.is_uuid(decision.task)
        task = await people.of_run(connection, run, UUID(decision.task)) if known else None
    if task is None:
        raise not_waiting(path or decision.task)
    return task


def _request_at(base: StepRequest, path: str) -> StepRequest:
    """The key of the step that asks at a path."""
    asking, _, purpose = path.partition("~")
    frame, _, step = asking.rpartition(".")
    return replace(
        base, step=step, frame=frame, iteration=repeated(frame)[1], purpose=purpose.partition("~")[0]
    )


async def _existing(connection: AsyncConnection, request: StepRequest) -> Task:
    task = await _at_path(connection, request)
    assert task is not None
    return task


def _chars(value: Json) -> int:
    return len(json.dumps(value, ensure_ascii=False))


async def _add(
    connection: AsyncConnection,
    request: StepRequest,
    now: datetime,
    *,
    title: str,
    timeout_seconds: float,
    **asked: Any,
) -> Task:
    title = storable(title)[:MAX_TITLE]
    due_at = now + timedelta(seconds=timeout_seconds)
    await people.add(connection, request, title=title, opened_at=now, due_at=due_at, **asked)
    task = await _existing(connection, request)
    event = HumanAsked(
        request.collaboration,
        str(task.id),
        request.step,
        request.path,
        task.title,
        task.assignees,
        task.actions,
        task.form,
        task.show if _chars(task.show) <= MAX_TOLD_CHARS else None,
    )
    await _tell(connection, request, event)
    return task


async def _compiled(connection: AsyncConnection, request: StepRequest) -> CompiledDefinition:
    return await definition_of(connection, await run_of(connection, request.collaboration))


async def _human_step(connection: AsyncConnection, request: StepRequest) -> HumanStep:
    step = (await _compiled(connection, request)).steps[request.step]
    assert isinstance(step, HumanStep)
    return step


async def _budget(connection: AsyncConnection, run: Run) -> Budget:
    budget = (await definition_of(connection, run)).definition.budget
    assert budget is not None
    return budget


async def _remind_in(
    connection: AsyncConnection, request: StepRequest, task: Task, now: datetime
) -> float | None:
    """Seconds until the next reminder; None where there is none before the time has passed."""
    step = None if request.purpose else await _human_step(connection, request)
    if step is None or step.remind_after is None:
        return None
    at = (task.reminded_at or task.opened_at) + timedelta(seconds=seconds(step.remind_after))
    return max((at - now).total_seconds(), 0.0) if task.due_at and at < task.due_at else None


async def _outcome(connection: AsyncConnection, task: Task) -> str | None:
    """Return the decision of the one person asked about money or a model; None while it is open."""
    made = await people.decisions(connection, task.id)
    return made[-1].action if made else None


async def _allow_more(connection: AsyncConnection, request: StepRequest, form: dict[str, Any]) -> None:
    run = await run_of(connection, request.collaboration)
    budget = await _budget(connection, run)
    usd, tokens = form.get("usd"), form.get("tokens")
    if usd is None and tokens is None:
        usd, tokens = budget.usd, budget.tokens
    await spending.grant(connection, run.id, Amount(Decimal(str(usd or 0)), int(tokens or 0)))
