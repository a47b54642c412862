"""The workflow: one run of a definition, from its pin to its end."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from plan.progress import COMPLETED
    from plan.walk import WalkSuspended, walk
    from schema.errors import FacilitairError, StepError
    from schema.rules.people import refused
    from schema.rules.steering import fault_of
    from schema.temporal.memo import (
        MEMO_FORK,
        MEMO_PARENT,
        MEMO_PROOF,
        MEMO_REQUEST,
        MEMO_REQUEST_SPAN,
        MEMO_REQUESTED_BY,
        MEMO_TENANT,
        MEMO_TRACEPARENT,
    )

    # The sandbox resolves `PlanStep.body: "Plan"` in modules that were imported here by name.
    from schema.temporal.plan import Plan  # noqa: F401
    from schema.temporal.runs import ENGINE, Finish, PinnedRun, PinRequest, SteerOrder
    from schema.temporal.updates import decision_of, fault_of_decision, fault_of_steer, steer_of
    from schema.values.foreign import UnusableValue
    from workflows import labels
    from workflows.dispatch import SEGMENT_TIMEOUT, Dispatch
    from workflows.faults import step_error
    from workflows.local_activities import local
    from workflows.payloads import foreign_value, memo_object, memo_text

_CANCELLED: Final = StepError("cancelled", "the run was cancelled")
# A run may end while it is being steered: that is told to who steers, and no fault of ours.
_ABANDON: Final = workflow.HandlerUnfinishedPolicy.ABANDON

# A bug in this code fails the run instead of blocking it; non-determinism still blocks, since a corrected
# worker can replay it.
FAILURE_TYPES: Sequence[type[BaseException]] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@workflow.defn(dynamic=True)
class Collaboration:
    """One run of a definition. The workflow type names it: `name`, `name@3` or `name@alias`."""

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        self._dispatch: Dispatch | None = None
        self._unsteerable: StepError | None = None
        self._steering = asyncio.Lock()
        self._paused_above: bool | None = None
        """The pause that a run around this one reported, if it reported any."""

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        pinned = await _pin(args)
        if pinned.engine != ENGINE:
            raise ApplicationError(
                f"This run was pinned to engine {pinned.engine}; this release knows engine {ENGINE} only. "
                "Start a worker of the release that began it, or cancel it and start it anew.",
                type="engine_unknown",
                non_retryable=True,
            )
        labels.begin(pinned, COMPLETED if pinned.over else "running")
        if pinned.over:
            self._unsteerable = StepError("collaboration_ended", "it has ended already.")
            await workflow.wait_condition(workflow.all_handlers_finished)
            return pinned.output
        dispatch = Dispatch(pinned)
        if self._paused_above is not None:
            dispatch.pause.above = self._paused_above
        self._dispatch = dispatch
        try:
            await _walk(dispatch)
            await workflow.wait_condition(workflow.all_handlers_finished)
            return await _finish(pinned, COMPLETED)
        except WalkSuspended:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new({})
        except asyncio.CancelledError:
            await _close(dispatch, "cancelled", _CANCELLED)
            raise
        except Exception as error:
            if is_cancelled_exception(error):
                await _close(dispatch, "cancelled", _CANCELLED)
                raise
            fault = step_error(error)
            await _close(dispatch, "", fault)
            # Without its causes: Temporal's UI would show each of them with the same text.
            raise ApplicationError(fault.told, type=fault.code, non_retryable=True) from None

    @workflow.update(
        description='What a person decided: {"task": "…", "action": "…", "actor": "user:…"}; "form", '
        '"edited" and "groups" where they are needed. "task" is the question\'s id; "path" instead names '
        "the step that asks.",
    )
    async def decide(self, *given: Any) -> str:
        """Return `decided` or `waiting for others`, also when the same is decided once more."""
        dispatch = await self._dispatched()
        try:
            asked = await dispatch.questions.decide(decision_of(given))
        except StepError as error:
            raise _refusal(error) from None
        return "decided" if asked.ended else "waiting for others"

    @workflow.update(
        unfinished_policy=_ABANDON,
        description="Let nothing new begin. What is under way goes on to its end. Needs no argument.",
    )
    async def pause(self, *given: Any) -> str:
        """Return how the run is then, as the others do: `paused` or `running`."""
        return await self._steer("pause", given)

    @workflow.update(unfinished_policy=_ABANDON, description="End a pause. Needs no argument.")
    async def resume(self, *given: Any) -> str:
        return await self._steer("resume", given)

    @workflow.update(
        unfinished_policy=_ABANDON,
        description='Tell the run something that every later prompt holds: {"text": "…"}; with "step" or '
        '"agent" only the prompts of these.',
    )
    async def inject_feedback(self, *given: Any) -> str:
        return await self._steer("inject_feedback", given)

    @workflow.update(
        unfinished_policy=_ABANDON,
        description='Ask agents otherwise from now on: {"agent": "…", "changes": {"model": "…", '
        '"temperature": 0, "max_output_tokens": 1000, "system": "…"}}. Without "agent" it is for every one; '
        "null takes a change back.",
    )
    async def adjust(self, *given: Any) -> str:
        return await self._steer("adjust", given)

    # Refused here an Update leaves no trace in the history, and no replay comes this way.

    @decide.validator
    def _check_decision(self, *given: Any) -> None:
        _refuse(fault_of_decision(given))
        decision = decision_of(given)
        question = self._dispatch.questions.find(decision) if self._dispatch else None
        if question is not None:
            _refuse(refused(question.asked, decision))

    @pause.validator
    def _check_pause(self, *given: Any) -> None:
        _refuse(_fault_of("pause", given))

    @resume.validator
    def _check_resume(self, *given: Any) -> None:
        _refuse(_fault_of("resume", given))

    @inject_feedback.validator
    def _check_feedback(self, *given: Any) -> None:
        _refuse(_fault_of("inject_feedback", given))

    @adjust.validator
    def _check_changes(self, *given: Any) -> None:
        _refuse(_fault_of("adjust", given))

    @workflow.signal(
        dynamic=True,
        unfinished_policy=_ABANDON,
        description="pause, resume, inject_feedback, adjust or decide: does what the Update of that name "
        "does. What is refused stands in the worker's log only; an Update is answered.",
    )
    async def obey(self, name: str, given: Sequence[RawValue]) -> None:
        """Do what the Update of the signal's name does; nobody can be told of a refusal but the log."""
        try:
            await self._obey(name, [foreign_value(one) for one in given])
        except Exception as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("a signal was refused", extra={"signal": name, "error": str(error)})

    async def _obey(self, name: str, given: Sequence[Any]) -> None:
        dispatch = await self._dispatched()
        if dispatch.pinned.revision < 1:
            raise StepError("steer_invalid", "this run was begun by an older release and obeys Updates only.")
        if name == "decide":
            _refuse(fault_of_decision(given))
            await dispatch.questions.decide(decision_of(given))
        elif name in ("pause", "resume", "inject_feedback", "adjust"):
            _refuse(_fault_of(name, given))
            await self._steer(name, given)
        else:
            raise StepError("steer_invalid", "expected pause, resume, inject_feedback, adjust or decide.")

    @workflow.signal(unfinished_policy=_ABANDON, description="A run around this one was paused or resumed.")
    async def paused_by_parent(self, paused: bool) -> None:
        self._paused_above = paused
        if self._dispatch:
            await self._dispatch.pause.set(above=paused)

    async def _steer(self, action: str, given: Sequence[Any]) -> str:
        dispatch, steer = await self._dispatched(), steer_of(given)
        pinned, pause = dispatch.pinned, dispatch.pause
        update = workflow.current_update_info()
        id = update.id if update else str(workflow.uuid4())
        steered = SteerOrder(pinned.collaboration, pinned.tenant, pinned.traceparent, action, steer, id)
        # In turn: what holds here must be what Postgres was told last.
        async with self._steering:
            try:
                await local("steer", steered, None, f"{action} · {steer.actor or 'somebody'}")
            except StepError as error:
                raise _refusal(error) from None
            if action in ("pause", "resume"):
                await pause.set(own=action == "pause")
        return "paused" if pause.own or pause.above else "running"

    async def _dispatched(self) -> Dispatch:
        """The run at its work, once that has begun."""
        await workflow.wait_condition(lambda: bool(self._dispatch or self._unsteerable))
        _refuse(self._unsteerable)
        assert self._dispatch is not None
        return self._dispatch


def _fault_of(action: str, given: Sequence[Any]) -> FacilitairError | None:
    """Return what is wrong with a steering request; only the activity can look up a tenant's providers."""
    return fault_of_steer(given) or fault_of(action, steer_of(given), providers=None)


def _refuse(fault: FacilitairError | None) -> None:
    if fault:
        raise _refusal(fault)


def _refusal(fault: FacilitairError) -> ApplicationError:
    return ApplicationError(fault.message, type=fault.code, non_retryable=True)


async def _walk(dispatch: Dispatch) -> None:
    pinned = dispatch.pinned
    if pinned.error_code:
        raise StepError(pinned.error_code, pinned.error_message or "", step=pinned.error_step)
    try:
        async with asyncio.timeout(pinned.seconds_left):
            await walk(dispatch, dispatch.progress, "")
    except TimeoutError:
        raise StepError("budget_exceeded", "the run has used up the time of its budget.") from None


async def _pin(args: Sequence[RawValue]) -> PinnedRun:
    info = workflow.info()
    if len(args) > 1:
        raise ApplicationError(
            f"found {len(args)} arguments; expected one JSON object: the input of {info.workflow_type}.",
            type="input_invalid",
            non_retryable=True,
        )
    try:
        value = foreign_value(args[0]) if args else {}
    except UnusableValue as error:
        raise ApplicationError(f"{error}.", type="input_invalid", non_retryable=True) from None
    # What a cron schedule starts are runs of their own, though Temporal counts them as one chain.
    by_cron = info.cron_schedule is not None
    request = PinRequest(
        workflow_id=info.workflow_id,
        first_run_id=info.run_id if by_cron else info.first_execution_run_id,
        name=info.workflow_type,
        input=value,
        tenant=memo_text(MEMO_TENANT) or "default",
        traceparent=memo_text(MEMO_TRACEPARENT),
        requested_by=memo_text(MEMO_REQUESTED_BY),
        parent=memo_object(MEMO_PARENT),
        fork=memo_object(MEMO_FORK),
        goes_on=info.continued_run_id is not None and not by_cron,
        parent_workflow_id=info.parent.workflow_id if info.parent else None,
        request_span=memo_text(MEMO_REQUEST_SPAN),
        request=memo_text(MEMO_REQUEST),
        proof=memo_text(MEMO_PROOF) or "",
    )
    try:
        pinned: PinnedRun = await local("pin", request, PinnedRun, "pin the version", limit=SEGMENT_TIMEOUT)
        return pinned
    except StepError as error:
        raise _refusal(error) from None


async def _finish(pinned: PinnedRun, status: str, sub_state: str = "", fault: StepError | None = None) -> Any:
    code, message, step = (fault.code, fault.told, fault.step) if fault else (None, None, "")
    request = Finish(
        pinned.collaboration,
        pinned.tenant,
        pinned.traceparent,
        status,
        sub_state,
        code,
        message,
        step=step,
        with_cost=pinned.searchable,
    )
    finished = await local("finish", request, None, f"close as {sub_state or status}")
    if not pinned.searchable:
        return finished
    labels.end(sub_state or status, finished["cost_usd"])
    return finished["output"]


async def _close(dispatch: Dispatch, sub_state: str, fault: StepError) -> None:
    """Compensate and close a run that did not complete."""
    dispatch.show_end(fault)
    if dispatch.pinned.compensates:
        await dispatch.undo()
    await _finish(dispatch.pinned, "failed", sub_state, fault)
