"""Local activities around the steps: quick, and they only ever wait for Postgres, as long as that takes."""

from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from schema.temporal.plan import PlanStep
    from workflows.faults import step_fault

OWN_WORK: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=10_000,
)
OWN_WORK_TIMEOUT: Final = timedelta(seconds=30)


async def local(
    name: str, request: Any, result: Any, summary: str, limit: timedelta = OWN_WORK_TIMEOUT
) -> Any:
    """Run a local activity and return its result. Raises StepError."""
    try:
        return await workflow.execute_local_activity(
            name,
            request,
            result_type=result,
            start_to_close_timeout=limit,
            retry_policy=OWN_WORK,
            summary=summary,
        )
    except (ActivityError, ApplicationError) as error:
        # The failure of a local activity comes as it is, of an ordinary one within an ActivityError.
        raise step_fault(error) from error


async def local_for(step: PlanStep, name: str, request: Any, result: Any) -> Any:
    """Run a local activity for a step, which Temporal's UI then names."""
    return await local(name, request, result, f"{step.summary} · {name}")
