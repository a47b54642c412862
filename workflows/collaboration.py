"""The interpreter: a definition as a durable workflow. It only schedules; activities do everything else."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from schema.messages import (
        MEMO_REQUESTED_BY,
        MEMO_TENANT,
        MEMO_TRACEPARENT,
        QUEUE_MEMORY,
        Finish,
        Pinned,
        PinRequest,
        PlanStep,
        RecallResult,
        RouteResult,
        StepRequest,
        StepResult,
        ToolCall,
        ToolReturn,
    )
    from workflows.plan import COMPLETED, SKIPPED, Progress, table

# Temporal refuses more than 2,000 pending activities and the run then hangs: stay far below.
MAX_RUNNING = 500
HEARTBEAT_TIMEOUT = timedelta(seconds=5)

# What stands around the steps is quick and only ever waits for Postgres, as long as that takes.
_OWN_WORK = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=10_000,
)
_OWN_WORK_TIMEOUT = timedelta(seconds=30)
_RECALL_PATIENCE = timedelta(seconds=8)
_RECALL_START_PATIENCE = timedelta(seconds=2)

# A bug in this code fails the run instead of blocking it; non-determinism still blocks, since a corrected
# worker can replay it.
FAILURE_TYPES: Sequence[type[BaseException]] = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@workflow.defn(dynamic=True)
class Collaboration:
    """One run of a definition. The workflow type is the definition's name, `name` or `name@version`."""

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        pinned = await self._pin(args)
        progress = Progress(pinned.plan)
        running: dict[asyncio.Task[str], PlanStep] = {}
        try:
            while not progress.done:
                for step, may_run in progress.take(MAX_RUNNING - len(running)):
                    running[asyncio.create_task(self._step(pinned, step, may_run))] = step
                workflow.set_current_details(
                    table(pinned.plan, progress, (step.id for step in running.values()))
                )
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

    async def _pin(self, args: Sequence[RawValue]) -> Pinned:
        info = workflow.info()
        if len(args) > 1:
            raise ApplicationError(
                f"found {len(args)} arguments; expected one JSON object: the input of {info.workflow_type}.",
                type="input_invalid",
                non_retryable=True,
            )
        converter = workflow.payload_converter()
        value = converter.from_payload(args[0].payload) if args else {}
        memo = workflow.memo()
        request = PinRequest(
            workflow_id=info.workflow_id,
            first_run_id=info.first_execution_run_id,
            name=info.workflow_type,
            input=value,
            tenant=str(memo.get(MEMO_TENANT) or "default"),
            traceparent=memo.get(MEMO_TRACEPARENT),
            requested_by=memo.get(MEMO_REQUESTED_BY),
        )
        try:
            pinned: Pinned = await workflow.execute_local_activity(
                "pin", request, result_type=Pinned, start_to_close_timeout=_OWN_WORK_TIMEOUT,
                retry_policy=_OWN_WORK, summary="pin the version",
            )  # fmt: skip
            return pinned
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError):
                raise ApplicationError(
                    error.cause.message, type=error.cause.type, non_retryable=True
                ) from error
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
                "route", request, result_type=RouteResult, activity_id=f"{step.id}:route",
                start_to_close_timeout=_OWN_WORK_TIMEOUT, retry_policy=_OWN_WORK,
                summary=f"{step.summary} · choose a model",
            )  # fmt: skip
            model = choice.model
        chosen = StepRequest(
            request.collaboration, request.tenant, request.step, request.traceparent, request.iteration, model
        )
        await self._act("agent", chosen, step)

    async def _recall(self, request: StepRequest, step: PlanStep) -> None:
        """Hints are a kindness: whatever happens to memory, the step goes on without them."""
        try:
            await workflow.execute_activity(
                "recall", request, result_type=RecallResult, task_queue=QUEUE_MEMORY,
                activity_id=f"{step.id}:recall", schedule_to_close_timeout=_RECALL_PATIENCE,
                schedule_to_start_timeout=_RECALL_START_PATIENCE,
                retry_policy=RetryPolicy(maximum_attempts=2),
                summary=f"{step.summary} · recall similar work",
            )  # fmt: skip
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
                step.activity or "", begun.args, task_queue=step.task_queue, activity_id=step.id,
                start_to_close_timeout=timedelta(seconds=step.timeout_seconds), retry_policy=_retry(step),
                # A queue that nobody serves must fail the step, not keep it waiting for ever.
                schedule_to_start_timeout=timedelta(seconds=step.timeout_seconds),
                summary=step.summary,
            )  # fmt: skip
        except ActivityError as error:
            if not is_cancelled_exception(error):
                code, message = _cause(error)
                failed = ToolReturn(request, begun.execution, error_code=code, error_message=message)
                await self._own("end_call", failed, None, step)
            raise
        await self._own("end_call", ToolReturn(request, begun.execution, output), None, step)

    async def _own(self, name: str, request: Any, result: Any, step: PlanStep) -> Any:
        return await workflow.execute_local_activity(
            name, request, result_type=result, start_to_close_timeout=_OWN_WORK_TIMEOUT,
            retry_policy=_OWN_WORK, summary=f"{step.summary} · {name}",
        )  # fmt: skip

    async def _finish(self, request: Finish) -> Any:
        return await workflow.execute_local_activity(
            "finish", request, start_to_close_timeout=_OWN_WORK_TIMEOUT, retry_policy=_OWN_WORK,
            summary=f"close as {request.sub_state or request.status}",
        )  # fmt: skip

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
    return "step_failed", f"{type(cause).__name__}: {cause}"


def _failure(pinned: Pinned, error: BaseException) -> Finish:
    if is_cancelled_exception(error):
        return _cancelled(pinned)
    code, message = _cause(error)
    return Finish(pinned.collaboration, pinned.tenant, pinned.traceparent, "failed", "", code, message)


def _cancelled(pinned: Pinned) -> Finish:
    return Finish(
        pinned.collaboration, pinned.tenant, pinned.traceparent, "failed", "cancelled", "cancelled",
        "the run was cancelled",
    )  # fmt: skip
