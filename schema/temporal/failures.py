"""Translate Temporal's account of a run into the platform's words."""

from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowExecutionDescription, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError


def first_run_id(told: WorkflowExecutionDescription) -> str:
    """The same along a chain of continued runs: Postgres' key of the collaboration."""
    return told.raw_description.workflow_execution_info.first_run_id or told.run_id


async def failure_of(
    handle: WorkflowHandle[Any, Any], rpc_timeout: timedelta | None = None
) -> tuple[str, str]:
    """(code, message) of a run that failed: of the innermost cause that has a code. Raises RPCError."""
    try:
        await handle.result(rpc_timeout=rpc_timeout)
    except WorkflowFailureError as error:
        cause: BaseException = error.cause
        while not isinstance(cause, ApplicationError) and cause.__cause__ is not None:
            cause = cause.__cause__
        code = cause.type if isinstance(cause, ApplicationError) and cause.type else "run_failed"
        return code, str(getattr(cause, "message", cause))
    return "run_failed", ""
