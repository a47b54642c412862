"""The interpreter of runs that began on engine 1, kept unchanged for as long as such runs live.

It ran every step, condition and transform as an activity of its own. New runs are pinned to a later engine:
see `collaboration.py`. Delete this with the histories `tests/replay/histories/*` that name engine 1.
"""

import asyncio
from collections import deque
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from schema.temporal.plan import Plan, PlanStep
    from schema.temporal.queues import QUEUE_MEMORY
    from schema.temporal.runs import Finish, Pinned
    from schema.temporal.steps import RecallResult, RouteResult, StepRequest, StepResult, ToolCall, ToolReturn
    from workflows.dispatch import fault_told

MAX_RUNNING = 500
HEARTBEAT_TIMEOUT = timedelta(seconds=5)
COMPLETED = "completed"
SKIPPED = "skipped"

_OWN_WORK = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=10_000,
)
_OWN_WORK_TIMEOUT = timedelta(seconds=30)
_RECALL_PATIENCE = timedelta(seconds=8)
_RECALL_START_PATIENCE = timedelta(seconds=2)


async def run(pinned: Pinned) -> Any:
    """A run from its pin to its end."""
    return await _Engine1().run(pinned)


class Progress:
    """What has ended and what that makes ready.

    A step is ready when everything it needs or waits for has ended; it is skipped instead when one of its
    needs was skipped. Order follows the plan wherever it is free.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps = {step.id: step for step in plan.steps}
        self._order = {step.id: index for index, step in enumerate(plan.steps)}
        self._open = {step.id: {*step.needs, *step.waits} for step in plan.steps}
        self._dependants: dict[str, list[str]] = {step.id: [] for step in plan.steps}
        for step in plan.steps:
            for dependency in dict.fromkeys((*step.needs, *step.waits)):
                self._dependants[dependency].append(step.id)
        self.ended: dict[str, str] = {}
        self._ready = deque(step.id for step in plan.steps if not self._open[step.id])

    @property
    def done(self) -> bool:
        return len(self.ended) == len(self._steps)

    def take(self, limit: int) -> list[tuple[PlanStep, bool]]:
        """Up to `limit` ready steps, each with whether it may run; one that may not is to be skipped."""
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        return [(self._steps[name], self._may_run(self._steps[name])) for name in taken]

    def end(self, name: str, status: str) -> None:
        """Note that a step ended as `completed` or `skipped`."""
        self.ended[name] = status
        freed: list[str] = []
        for dependant in self._dependants[name]:
            self._open[dependant].discard(name)
            if not self._open[dependant]:
                freed.append(dependant)
        self._ready.extend(sorted(freed, key=self._order.__getitem__))

    def _may_run(self, step: PlanStep) -> bool:
        return all(self.ended[need] == COMPLETED for need in step.needs)


class _Engine1:
    async def run(self, pinned: Pinned) -> Any:
        progress = Progress(pinned.plan)
        running: dict[asyncio.Task[str], PlanStep] = {}
        try:
            while not progress.done:
                for step, may_run in progress.take(MAX_RUNNING - len(running)):
                    running[asyncio.create_task(self._step(pinned, step, may_run))] = step
                ended, _ = await workflow.wait(list(running), return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    progress.end(running.pop(task).id, task.result())
            return await self._finish(
                Finish(pinned.collaboration, pinned.tenant, pinned.traceparent, COMPLETED)
            )
        except Exception as error:
            await self._stop(running)
            await self._finish(_failure(pinned, error))
            if isinstance(error, ActivityError) and isinstance(error.cause, ApplicationError):
                raise ApplicationError(
                    error.cause.message, type=error.cause.type, non_retryable=True
                ) from error
            raise
        except asyncio.CancelledError:
            await self._stop(running)
            await self._finish(_cancelled(pinned))
            raise

    async def _step(self, pinned: Pinned, step: PlanStep, may_run: bool) -> str:
        """Run a step to its end; returns how it ended."""
        request = StepRequest(pinned.collaboration, pinned.tenant, step.id, pinned.traceparent)
        if not may_run:
            await self._own("skip", request, None, step)
            return SKIPPED
        if step.conditional and not await self._own("decide", request, bool, step):
            return SKIPPED
        match step.kind:
            case "agent":
                await self._agent(request, step)
            case "tool" if step.activity:
                await self._call(request, step)
            case "tool":
                await self._act("tool", request, step)
            case "transform":
                await self._own("transform", request, StepResult, step)
            case _:
                raise ApplicationError(
                    f"this worker cannot run steps of kind {step.kind!r}; start a newer one.",
                    type="kind_unknown",
                    non_retryable=True,
                )
        return COMPLETED

    async def _agent(self, request: StepRequest, step: PlanStep) -> None:
        if step.recalls:
            await self._recall(request, step)
        model = None
        if step.routes:
            choice = await workflow.execute_activity(
                "route",
                request,
                result_type=RouteResult,
                activity_id=f"{step.id}:route",
                start_to_close_timeout=_OWN_WORK_TIMEOUT,
                retry_policy=_OWN_WORK,
                summary=f"{step.summary} · choose a model",
            )
            model = choice.model
        chosen = StepRequest(
            request.collaboration, request.tenant, request.step, request.traceparent, request.iteration, model
        )
        await self._act("agent", chosen, step)

    async def _recall(self, request: StepRequest, step: PlanStep) -> None:
        """Hints are a kindness: whatever happens to memory, the step goes on without them."""
        try:
            await workflow.execute_activity(
                "recall",
                request,
                result_type=RecallResult,
                task_queue=QUEUE_MEMORY,
                activity_id=f"{step.id}:recall",
                schedule_to_close_timeout=_RECALL_PATIENCE,
                schedule_to_start_timeout=_RECALL_START_PATIENCE,
                retry_policy=RetryPolicy(maximum_attempts=2),
                summary=f"{step.summary} · recall similar work",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("recall did not answer; the step goes on without hints")

    async def _act(self, name: str, request: StepRequest, step: PlanStep) -> None:
        await workflow.execute_activity(
            name,
            request,
            result_type=StepResult,
            activity_id=step.id,
            start_to_close_timeout=timedelta(seconds=step.timeout_seconds),
            heartbeat_timeout=HEARTBEAT_TIMEOUT if name == "agent" else None,
            retry_policy=_retry(step),
            summary=step.summary,
        )

    async def _call(self, request: StepRequest, step: PlanStep) -> None:
        """A user's own activity on the user's own task queue, between two recordings of ours."""
        begun = await self._own("begin_call", request, ToolCall, step)
        if begun.done:
            return
        try:
            output = await workflow.execute_activity(
                step.activity or "",
                begun.args,
                task_queue=step.task_queue,
                activity_id=step.id,
                start_to_close_timeout=timedelta(seconds=step.timeout_seconds),
                retry_policy=_retry(step),
                # A queue that nobody serves must fail the step, not keep it waiting for ever.
                schedule_to_start_timeout=timedelta(seconds=step.timeout_seconds),
                summary=step.summary,
            )
        except ActivityError as error:
            if not is_cancelled_exception(error):
                code, message = _cause(error)
                failed = ToolReturn(request, begun.execution, error_code=code, error_message=message)
                await self._own("end_call", failed, None, step)
            raise
        await self._own("end_call", ToolReturn(request, begun.execution, output), None, step)

    async def _own(self, name: str, request: Any, result: Any, step: PlanStep) -> Any:
        return await workflow.execute_local_activity(
            name,
            request,
            result_type=result,
            start_to_close_timeout=_OWN_WORK_TIMEOUT,
            retry_policy=_OWN_WORK,
            summary=f"{step.summary} · {name}",
        )

    async def _finish(self, request: Finish) -> Any:
        return await workflow.execute_local_activity(
            "finish",
            request,
            start_to_close_timeout=_OWN_WORK_TIMEOUT,
            retry_policy=_OWN_WORK,
            summary=f"close as {request.sub_state or request.status}",
        )

    async def _stop(self, running: dict[asyncio.Task[str], PlanStep]) -> None:
        """Cancel what is still in flight and wait until it has let go."""
        for task in running:
            task.cancel()
        if running:
            await workflow.wait(list(running))
        for task in running:
            if not task.cancelled():
                task.exception()


def _retry(step: PlanStep) -> RetryPolicy:
    rule = step.retry
    return RetryPolicy(
        initial_interval=timedelta(seconds=rule.initial_seconds),
        backoff_coefficient=rule.backoff,
        maximum_interval=timedelta(seconds=max(rule.max_seconds, rule.initial_seconds)),
        maximum_attempts=rule.max_attempts,
        non_retryable_error_types=rule.never,
    )


def _cause(error: BaseException) -> tuple[str, str]:
    """(code, message) behind a failure, as readers should see it."""
    cause = error.cause if isinstance(error, ActivityError) and error.cause else error
    if isinstance(cause, ApplicationError):
        return cause.type or "step_failed", cause.message
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", "-") if cause.type is not None else "unknown"
        return "timeout", f"found no end in time ({kind}); give the step more time or less to do."
    return "step_failed", fault_told(cause)


def _failure(pinned: Pinned, error: BaseException) -> Finish:
    if is_cancelled_exception(error):
        return _cancelled(pinned)
    code, message = _cause(error)
    return Finish(pinned.collaboration, pinned.tenant, pinned.traceparent, "failed", "", code, message)


def _cancelled(pinned: Pinned) -> Finish:
    return Finish(
        pinned.collaboration,
        pinned.tenant,
        pinned.traceparent,
        "failed",
        "cancelled",
        "cancelled",
        "the run was cancelled",
    )
