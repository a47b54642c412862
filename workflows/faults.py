"""Translate failures of activities, children and our own code into a step's errors."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

with workflow.unsafe.imports_passed_through():
    from schema.errors import StepError
    from schema.temporal.plan import PlanStep
    from schema.temporal.runs import FAILED_STEP, OTHERS_MONEY
    from schema.temporal.steps import Undo
    from schema.values.foreign import MAX_CODE_CHARS, clean_text


def too_slow(step: PlanStep) -> StepError:
    return StepError("timeout", f"{step.id!r} took longer than {step.timeout_seconds:g} s.")


def is_cancelled() -> bool:
    """Tell whether the running step itself is cancelled, and not only something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def not_taken(error: ActivityError, step: PlanStep | Undo) -> StepError | None:
    """Return why a user's own activity never began; None if it did."""
    found = error.cause
    if not isinstance(found, TemporalTimeoutError) or found.type is not TimeoutType.SCHEDULE_TO_START:
        return None
    return StepError(
        "timeout",
        f"no worker took it from the task queue {step.task_queue!r} within {step.timeout_seconds:g} s; start "
        "a worker of yours that polls this queue, correct `task_queue`, or give the step more time.",
    )


def cause(error: BaseException) -> tuple[str, str]:
    """(code, message) behind a failure, as readers should see it."""
    found = error.cause if isinstance(error, (ActivityError, ChildWorkflowError)) and error.cause else error
    match found:
        case StepError():
            return found.code, found.message
        case ApplicationError():
            return clean_text(found.type or "step_failed")[:MAX_CODE_CHARS], clean_text(found.message)
        case TemporalTimeoutError():
            kind = found.type.name.lower().replace("_", "-") if found.type is not None else "unknown"
            return "timeout", f"found no end in time ({kind}); give the step more time or less to do."
    return "step_failed", fault_told(found)


def fault_told(error: BaseException) -> str:
    """Return what readers learn of a bug. Its text may quote values, so it goes to the worker's log only."""
    workflow.logger.error("Platform fault", exc_info=error)
    return f"{type(error).__name__}: a fault of the platform; the worker's log has it under the run's id."


def is_of_others(exceeded: StepError) -> bool:
    """Tell whether the exceeded budget is another's, not the run's own."""
    found = exceeded.__cause__
    found = found.cause if isinstance(found, ActivityError) else found
    return isinstance(found, ApplicationError) and OTHERS_MONEY in found.details


def step_fault(error: ActivityError | ApplicationError) -> BaseException:
    """A failed activity as the interpreter knows it; a cancelled one stays as it is."""
    return error if is_cancelled_exception(error) else step_error(error)


def step_error(error: BaseException) -> StepError:
    """A failure as readers should see it, with the step that failed where that is known."""
    if isinstance(error, StepError):
        return error
    found = error.cause if isinstance(error, ActivityError) else error
    details = found.details if isinstance(found, ApplicationError) else ()
    steps = [detail[FAILED_STEP] for detail in details if isinstance(detail, dict) and FAILED_STEP in detail]
    return StepError(*cause(error), step=steps[0] if steps else "")
