"""Turn each kind of step into Temporal's activities, timers, children and waits."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import Priority, RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from plan.progress import COMPLETED, FrameProgress, Segment, table
    from plan.walk import WalkSuspended, Work, one, repeated
    from schema.errors import StepError
    from schema.temporal.memo import (
        MEMO_FORK,
        MEMO_PARENT,
        MEMO_PROOF,
        MEMO_REQUESTED_BY,
        MEMO_TENANT,
        MEMO_TRACEPARENT,
        started_by,
    )
    from schema.temporal.plan import PlanStep
    from schema.temporal.queues import QUEUE_MEMORY, TASK_TIMEOUT_SECONDS
    from schema.temporal.runs import (
        PAUSED,
        ChildEnd,
        ChildFailure,
        ChildRun,
        PinnedRun,
    )
    from schema.temporal.steps import (
        CaughtFailure,
        ItemEnd,
        ItemResult,
        OwnActivityCall,
        OwnActivityReturn,
        RecallResult,
        RepetitionState,
        RouteResult,
        SegmentRequest,
        SegmentResult,
        StepEnd,
        StepRequest,
        StepResult,
        Undo,
    )
    from schema.values.foreign import UnusableValue
    from workflows.faults import is_cancelled, is_of_others, not_taken, step_error, step_fault, too_slow
    from workflows.local_activities import OWN_WORK, OWN_WORK_TIMEOUT, local, local_for
    from workflows.pausing import PauseState
    from workflows.payloads import foreign_value
    from workflows.questions import Questions

# Temporal refuses more than 2,000 pending activities and the run then hangs: stay far below.
MAX_RUNNING: Final = 500
HEARTBEAT_TIMEOUT: Final = timedelta(seconds=5)

# A run closes, and compensates, only when nothing of it works any more.
_LETS_GO: Final = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
SEGMENT_TIMEOUT: Final = timedelta(minutes=10)
_CHAIN_TIMEOUT: Final = timedelta(days=1)
_RECALL_TIMEOUT: Final = timedelta(seconds=8)
_RECALL_START_TIMEOUT: Final = timedelta(seconds=2)


class Dispatch:
    """The port through which a plan is walked in a workflow."""

    def __init__(self, pinned: PinnedRun) -> None:
        self.pinned = pinned
        self.progress = FrameProgress(pinned.plan, pinned.ended)
        self._begun: dict[str, None] = {}
        """Steps of the run itself that have begun, whether or not they have ended."""
        self.questions = Questions(pinned, self.draining)
        self.pause = PauseState(pinned.paused, pinned.paused_above, self.draining)
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        # Who waits for others must not keep them from beginning.
        self._listening = asyncio.Semaphore(MAX_RUNNING)
        self._drains = False

    async def undo(self) -> None:
        """Compensate what is done, the last first. One that fails is recorded, and the others still run."""
        self.pause.over = True
        pinned = self.pinned
        behind = StepRequest(pinned.collaboration, pinned.tenant, "", pinned.traceparent)
        todo: list[Undo]
        while todo := await local("compensations", behind, list[Undo], "find what to undo"):
            for undo in todo:
                try:
                    if undo.activity:
                        await self._call(undo.request, undo.activity, undo)
                    else:
                        await self._activity("compensate", undo.request, undo)
                except StepError as error:
                    workflow.logger.warning("Compensation failed", extra={"error": error.message})
            behind = todo[-1].request

    def draining(self) -> bool:
        info = workflow.info()
        # Of a cron schedule's run Temporal would give the input of the last one in its chain to the next.
        self._drains = self._drains or (info.is_continue_as_new_suggested() and info.cron_schedule is None)
        return self._drains

    def begin(self, progress: FrameProgress, frame: str) -> list[Work]:
        segments, singles = progress.take_units()
        works = [self._segment(progress, segment, frame) for segment in segments]
        works += [one(self, step, frame) for step in singles]
        if not frame:
            members = (name for segment in segments for name in segment.members)
            self._begun |= dict.fromkeys((*members, *(step.id for step in singles)))
            workflow.set_current_details(table(progress, dict.fromkeys(self._begun, "running")))
        return works

    def show_end(self, fault: StepError) -> None:
        """Let Temporal's UI show why the run ends, and nothing that would still be running."""
        failed = fault.step.partition("[")[0]
        marks = dict.fromkeys(self._begun, "cancelled") | {failed: "failed"}
        workflow.set_current_details(f"{fault.told}\n\n{table(self.progress, marks)}")

    async def _segment(self, progress: FrameProgress, segment: Segment, frame: str) -> Sequence[StepEnd]:
        pinned = self.pinned
        request = SegmentRequest(
            pinned.collaboration,
            pinned.tenant,
            pinned.traceparent,
            frame,
            segment.members,
            segment.gates,
            progress.known_to(segment),
        )
        summary = ", ".join((*segment.members, *(f"{gate}?" for gate in segment.gates)))[:200]
        await self.pause.ended()
        if not segment.slow:
            quick: SegmentResult = await local(
                "segment", request, SegmentResult, summary, limit=SEGMENT_TIMEOUT
            )
            return quick.ended
        async with self._slots:
            await self.pause.ended()
            try:
                done: SegmentResult = await workflow.execute_activity(
                    "chain",
                    request,
                    result_type=SegmentResult,
                    start_to_close_timeout=_CHAIN_TIMEOUT,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    retry_policy=OWN_WORK,
                    summary=summary,
                    cancellation_type=_LETS_GO,
                    priority=Priority(fairness_key=pinned.tenant[:64]),
                )
            except ActivityError as error:
                raise step_fault(error) from error
        return done.ended

    async def do(self, step: PlanStep, frame: str) -> StepEnd:
        request = self._request(step, frame)
        await self.pause.ended()
        match step.kind:
            case "agent":
                await self._agent(request, step)
            case "tool" if step.activity:
                await self._call(request, step.activity, step)
            case "tool":
                await self._activity("tool", request, step)
            case "human":
                asked = await self.questions.ask("ask", request, step)
                assert asked.ended is not None
                return asked.ended
            case "collaboration":
                return await self._child(request, step)
            case "wait":
                await self._wait(request, step)
            case _:
                raise StepError(
                    "kind_unknown",
                    f"this worker cannot run steps of kind {step.kind!r}; start a newer one.",
                )
        return StepEnd(step.id, COMPLETED)

    async def open(self, step: PlanStep, frame: str) -> RepetitionState:
        await self.pause.ended()
        return await local_for(step, "open", self._request(step, frame), RepetitionState)  # type: ignore[no-any-return]

    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        """Activities find out by themselves what is repeated."""

    async def end_item(self, step: PlanStep, frame: str, index: int, error: StepError | None) -> ItemResult:
        end = ItemEnd(self._request(step, frame), index)
        if error:
            end = replace(end, error_code=error.code, error_message=error.message, error_step=error.step)
        return await local_for(step, "end_item", end, ItemResult)  # type: ignore[no-any-return]

    async def fail(self, step: PlanStep, frame: str, error: StepError) -> None:
        """Do nothing: what catches the error closes the step's row, else the end of the item or run does."""

    async def close(self, step: PlanStep, frame: str) -> StepEnd:
        return await local_for(step, "close", self._request(step, frame), StepEnd)  # type: ignore[no-any-return]

    async def caught(self, step: PlanStep, frame: str, rule: int, error: StepError) -> StepEnd:
        caught = CaughtFailure(self._request(step, frame), rule, error.code, error.message, error.step)
        return await local_for(step, "caught", caught, StepEnd)  # type: ignore[no-any-return]

    async def _agent(self, request: StepRequest, step: PlanStep) -> None:
        if step.recalls:
            await self._recall(request, step)
        if step.routes:
            async with self._slots:
                choice = await workflow.execute_activity(
                    "route",
                    request,
                    result_type=RouteResult,
                    activity_id=f"{request.path}:route",
                    start_to_close_timeout=OWN_WORK_TIMEOUT,
                    retry_policy=OWN_WORK,
                    summary=f"{step.summary} · choose a model",
                )
            request = replace(request, model=choice.model, max_output_tokens=choice.max_output_tokens)
            if choice.ask:
                await self.pause.ended()
                asked = await self.questions.ask("ask_route", replace(request, purpose="route"), step)
                request = replace(request, model=asked.choice or choice.model)
        while True:
            try:
                if (await self._activity("agent", request, step)).status != PAUSED:
                    return
                await self.pause.found()
            except StepError as error:
                if error.code != "budget_exceeded" or not self.pinned.ask_for_budget or is_of_others(error):
                    raise
                await self.pause.ended()
                more = await self.questions.ask("ask_budget", replace(request, purpose="budget"), step)
                if more.ended is None or more.ended.status != COMPLETED:
                    raise

    async def _recall(self, request: StepRequest, step: PlanStep) -> None:
        """Hints are a kindness: whatever happens to memory, the step goes on without them."""
        try:
            await workflow.execute_activity(
                "recall",
                request,
                result_type=RecallResult,
                task_queue=QUEUE_MEMORY,
                activity_id=f"{request.path}:recall",
                schedule_to_close_timeout=_RECALL_TIMEOUT,
                schedule_to_start_timeout=_RECALL_START_TIMEOUT,
                retry_policy=RetryPolicy(maximum_attempts=2),
                summary=f"{step.summary} · recall similar work",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("Recall timed out, step continues without hints")

    async def _call(self, request: StepRequest, name: str, step: PlanStep | Undo) -> None:
        """A user's own activity on the user's own task queue, between two recordings of ours."""
        begun: OwnActivityCall = await local(
            "begin_call", request, OwnActivityCall, f"{step.summary} · begin"
        )
        if begun.done:
            return
        timeout = timedelta(seconds=step.timeout_seconds)
        try:
            async with self._slots:
                await self.pause.ended()
                returned: RawValue | None = await workflow.execute_activity(
                    name,
                    begun.args,
                    result_type=RawValue,
                    task_queue=step.task_queue,
                    activity_id=request.path,
                    start_to_close_timeout=timeout,
                    retry_policy=_retry(step),
                    # A queue that nobody serves must fail the step, not keep it waiting for ever.
                    schedule_to_start_timeout=timeout,
                    summary=step.summary,
                    priority=self._priority(step),
                )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            failed = not_taken(error, step) or step_error(error)
            back = OwnActivityReturn(
                request, begun.execution, error_code=failed.code, error_message=failed.message
            )
            await local("end_call", back, StepResult, f"{step.summary} · end")
            raise failed from error
        try:
            back = OwnActivityReturn(request, begun.execution, foreign_value(returned))
        except UnusableValue as error:
            back = OwnActivityReturn(
                request, begun.execution, error_code="output_invalid", error_message=f"{error}."
            )
        await local("end_call", back, StepResult, f"{step.summary} · end")
        if back.error_code:
            raise StepError(back.error_code, back.error_message or "")

    async def _child(self, request: StepRequest, step: PlanStep) -> StepEnd:
        try:
            return await self._run_child(request, step)
        except StepError as error:
            failed = ChildFailure(request, error.code, error.message)
            await local_for(step, "fail_child", failed, None)
            raise
        except (asyncio.CancelledError, FailureError) as error:
            if is_cancelled_exception(error):
                cancelled = ChildFailure(request, "cancelled", "the step was cancelled while it ran")
                await local_for(step, "fail_child", cancelled, None)
            raise

    async def _run_child(self, request: StepRequest, step: PlanStep) -> StepEnd:
        child: ChildRun = await local_for(step, "begin_child", request, ChildRun)
        if child.ended:
            return child.ended
        memo: dict[str, Any] = {
            MEMO_TENANT: request.tenant,
            MEMO_TRACEPARENT: request.traceparent,
            MEMO_REQUESTED_BY: started_by(workflow.info().workflow_id),
            MEMO_PARENT: {"collaboration": request.collaboration, "path": request.path},
        }
        if child.fork:
            memo[MEMO_FORK] = asdict(child.fork)
        if child.proof:
            memo[MEMO_PROOF] = child.proof
        limit = asyncio.timeout(step.timeout_seconds)
        try:
            async with limit, self._slots:
                handle = await workflow.start_child_workflow(
                    child.workflow,
                    child.input,
                    id=child.workflow_id,
                    memo=memo,
                    cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                    parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                    task_timeout=timedelta(seconds=TASK_TIMEOUT_SECONDS),
                    static_summary=step.summary,
                    priority=self._priority(step),
                )
                async with self.pause.told_to(request.path, handle):
                    await handle
        except TimeoutError:
            raise too_slow(step) from None
        except WorkflowAlreadyStartedError as error:
            raise StepError(
                "child_id_taken", f"another run already has the id {child.workflow_id!r}; wait for its end."
            ) from error
        except ChildWorkflowError as error:
            if limit.expired():  # the child was cancelled for it, and that ends the wait
                raise too_slow(step) from error
            if not is_cancelled_exception(error):
                raise step_error(error) from error
            if is_cancelled():
                raise
            raise StepError("cancelled", f"somebody cancelled {child.workflow_id!r}.") from error
        end = ChildEnd(request, handle.first_execution_run_id or "")
        return await local_for(step, "end_child", end, StepEnd)  # type: ignore[no-any-return]

    async def _wait(self, request: StepRequest, step: PlanStep) -> None:
        left: float = await local_for(step, "begin_wait", request, float)
        if left > 0:
            try:
                await workflow.wait_condition(
                    self.draining, timeout=timedelta(seconds=left), timeout_summary=step.summary
                )
                raise WalkSuspended
            except TimeoutError:
                pass
        await local_for(step, "end_wait", request, None)

    def _request(self, step: PlanStep, frame: str) -> StepRequest:
        _, index = repeated(frame)
        run = self.pinned
        return StepRequest(run.collaboration, run.tenant, step.id, run.traceparent, index, frame=frame)

    async def _activity(self, name: str, request: StepRequest, step: PlanStep | Undo) -> StepResult:
        """An ordinary activity of ours; raises StepError."""
        listens = isinstance(step, PlanStep) and step.streams
        async with self._listening if listens else self._slots:
            await self.pause.ended()
            try:
                done: StepResult = await workflow.execute_activity(
                    name,
                    request,
                    result_type=StepResult,
                    activity_id=request.path,
                    start_to_close_timeout=timedelta(seconds=step.timeout_seconds),
                    heartbeat_timeout=HEARTBEAT_TIMEOUT if name == "agent" else None,
                    retry_policy=_retry(step),
                    summary=step.summary,
                    priority=self._priority(step),
                    cancellation_type=_LETS_GO,
                )
            except ActivityError as error:
                raise step_fault(error) from error
        return done

    def _priority(self, step: PlanStep | Undo) -> Priority:
        """Tenants take turns however each run was started."""
        return Priority(priority_key=step.priority, fairness_key=self.pinned.tenant[:64])


def _retry(step: PlanStep | Undo) -> RetryPolicy:
    rule = step.retry
    return RetryPolicy(
        initial_interval=timedelta(seconds=rule.initial_seconds),
        backoff_coefficient=rule.backoff,
        maximum_interval=timedelta(seconds=max(rule.max_seconds, rule.initial_seconds)),
        maximum_attempts=rule.max_attempts,
        non_retryable_error_types=rule.never,
    )
