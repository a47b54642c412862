"""The workflow: one run of a definition, from its pin to its end."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, TemporalError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from schema.errors import FacilitairError, StepError
    from schema.foreign import UnusableValue
    from schema.messages import (
        MEMO_FORK,
        MEMO_PARENT,
        MEMO_PROOF,
        MEMO_REQUEST,
        MEMO_REQUEST_SPAN,
        MEMO_REQUESTED_BY,
        MEMO_TENANT,
        MEMO_TRACEPARENT,
        Asked,
        Decision,
        DecisionMade,
        Finish,
        Pinned,
        PinRequest,
        Steer,
        Steered,
    )
    from schema.people import refused
    from schema.steering import fault_of
    from workflows import engine1, labels
    from workflows.dispatch import SEGMENT_TIMEOUT, Dispatch, Question, cause, local
    from workflows.interpreter import Later, walk
    from workflows.payloads import foreign_value, memo_object, memo_text
    from workflows.plan import COMPLETED, Progress

_NEW_QUESTION_PATIENCE: Final = timedelta(seconds=10)
_NOTHING_MORE: Final = Steer()
# A run may end while it is being steered: that is told to who steers, and no fault of ours.
_ABANDON: Final = workflow.HandlerUnfinishedPolicy.ABANDON

# A bug in this code fails the run instead of blocking it; non-determinism still blocks, since a corrected
# worker can replay it.
FAILURE_TYPES: Sequence[type[BaseException]] = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@workflow.defn(dynamic=True)
class Collaboration:
    """One run of a definition. The workflow type names it: `name`, `name@3` or `name@alias`."""

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        self._dispatch: Dispatch | None = None
        self._unsteerable: StepError | None = None
        self._steering = asyncio.Lock()
        self._paused_above: bool | None = None
        """What a run around this one told of its pause, if it told anything."""

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        pinned = await _pin(args)
        if pinned.engine == 1:
            self._unsteerable = StepError(
                "steer_unsupported",
                "this run was begun by an older release, whose runs cannot be steered; it can be cancelled.",
            )
            return await engine1.run(pinned)
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
        except Later:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new({})
        except asyncio.CancelledError:
            await _close(dispatch, "cancelled", "cancelled", "the run was cancelled")
            raise
        except Exception as error:
            if is_cancelled_exception(error):
                await _close(dispatch, "cancelled", "cancelled", "the run was cancelled")
                raise
            code, message = cause(error)
            await _close(dispatch, "", code, message)
            # Of a bug not even the cause: Temporal would store its text.
            known = error if isinstance(error, (FacilitairError, TemporalError)) else None
            raise ApplicationError(message, type=code, non_retryable=True) from known

    @workflow.update(description="What a person decided of a question that the run asks.")
    async def decide(self, decision: Decision) -> str:
        """What a person decided. Comes to `decided`, or to `waiting for others`."""
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._question(decision) is not None, timeout=_NEW_QUESTION_PATIENCE
            )
        question = self._question(decision)
        if question is None:
            raise ApplicationError(
                f"nobody is asked at {decision.path!r} now; `facilitair tasks` lists what is open.",
                type="human_not_waiting",
                non_retryable=True,
            )
        try:
            asked: Asked = await local(
                "record_decision", DecisionMade(question.request, decision), Asked,
                f"{decision.path} · {decision.action}",
            )  # fmt: skip
        except StepError as error:
            raise ApplicationError(error.message, type=error.code, non_retryable=True) from error
        question.asked = asked
        return "decided" if asked.ended else "waiting for others"

    @decide.validator
    def _check_decision(self, decision: Decision) -> None:
        question = self._question(decision)
        # A question that is not known yet may be about to be asked: `decide` waits for it.
        if question is not None and (fault := refused(question.asked, decision)):
            raise ApplicationError(fault.message, type=fault.code, non_retryable=True)

    @workflow.update(
        unfinished_policy=_ABANDON,
        description="Let nothing new begin. What is under way goes on to its end. Needs no argument.",
    )
    async def pause(self, steer: Steer = _NOTHING_MORE) -> str:
        """Comes to how the run is then, as the others do: `paused` or `running`."""
        return await self._steer("pause", steer)

    @workflow.update(unfinished_policy=_ABANDON, description="End a pause. Needs no argument.")
    async def resume(self, steer: Steer = _NOTHING_MORE) -> str:
        return await self._steer("resume", steer)

    @workflow.update(
        unfinished_policy=_ABANDON,
        description='Tell the run something that every later prompt holds: {"text": "…"}; with "step" or '
        '"agent" only the prompts of these.',
    )
    async def inject_feedback(self, steer: Steer) -> str:
        return await self._steer("inject_feedback", steer)

    @workflow.update(
        unfinished_policy=_ABANDON,
        description='Ask agents otherwise from now on: {"agent": "…", "changes": {"model": "…", '
        '"temperature": 0, "max_output_tokens": 1000, "system": "…"}}. Without "agent" it is for every one; '
        "null takes a change back.",
    )
    async def adjust(self, steer: Steer) -> str:
        return await self._steer("adjust", steer)

    @inject_feedback.validator
    def _check_feedback(self, steer: Steer) -> None:
        _refuse(fault_of("inject_feedback", steer))

    @adjust.validator
    def _check_changes(self, steer: Steer) -> None:
        # Which providers a tenant has only the activity can look up.
        _refuse(fault_of("adjust", steer, providers=None))

    @workflow.signal(unfinished_policy=_ABANDON, description="A run around this one was paused or resumed.")
    async def paused_by_parent(self, paused: bool) -> None:
        self._paused_above = paused
        if self._dispatch:
            await self._dispatch.pause.set(above=paused)

    async def _steer(self, action: str, steer: Steer) -> str:
        await workflow.wait_condition(lambda: bool(self._dispatch or self._unsteerable))
        _refuse(self._unsteerable)
        assert self._dispatch is not None
        pinned, pause = self._dispatch.pinned, self._dispatch.pause
        update = workflow.current_update_info()
        steered = Steered(
            pinned.collaboration,
            pinned.tenant,
            pinned.traceparent,
            action,
            steer,
            update.id if update else "",
        )
        # In turn: what holds here must be what Postgres was told last.
        async with self._steering:
            try:
                await local("steer", steered, None, f"{action} · {steer.actor or 'somebody'}")
            except StepError as error:
                _refuse(error)
            if action in ("pause", "resume"):
                await pause.set(own=action == "pause")
        return "paused" if pause.own or pause.above else "running"

    def _question(self, decision: Decision) -> Question | None:
        return self._dispatch.questions.get(decision.path) if self._dispatch else None


def _refuse(fault: FacilitairError | None) -> None:
    if fault:
        raise ApplicationError(fault.message, type=fault.code, non_retryable=True)


async def _walk(dispatch: Dispatch) -> None:
    pinned = dispatch.pinned
    if pinned.error_code:
        raise StepError(pinned.error_code, pinned.error_message or "")
    try:
        async with asyncio.timeout(pinned.seconds_left):
            await walk(dispatch, Progress(pinned.plan, pinned.ended), "")
    except TimeoutError:
        raise StepError("budget_exceeded", "the run has used up the time of its budget.") from None


async def _pin(args: Sequence[RawValue]) -> Pinned:
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
        pinned: Pinned = await local("pin", request, Pinned, "pin the version", limit=SEGMENT_TIMEOUT)
        return pinned
    except StepError as error:
        raise ApplicationError(error.message, type=error.code, non_retryable=True) from error


async def _finish(
    pinned: Pinned, status: str, sub_state: str = "", code: str | None = None, message: str | None = None
) -> Any:
    request = Finish(
        pinned.collaboration, pinned.tenant, pinned.traceparent, status, sub_state, code, message,
        with_cost=pinned.searchable,
    )  # fmt: skip
    finished = await local("finish", request, None, f"close as {sub_state or status}")
    if not pinned.searchable:
        return finished
    labels.end(sub_state or status, finished["cost_usd"])
    return finished["output"]


async def _close(dispatch: Dispatch, sub_state: str, code: str, message: str) -> None:
    """Compensate and close a run that did not complete."""
    if dispatch.pinned.compensates:
        await dispatch.undo()
    await _finish(dispatch.pinned, "failed", sub_state, code, message)
