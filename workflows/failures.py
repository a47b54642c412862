"""What a failed run died of, in the platform's words."""

from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError


def cause_of(error: WorkflowFailureError) -> tuple[str, str]:
    """(code, message), of the innermost cause that has a code."""
    cause: BaseException = error.cause
    while not isinstance(cause, ApplicationError) and cause.__cause__ is not None:
        cause = cause.__cause__
    code = cause.type if isinstance(cause, ApplicationError) and cause.type else "run_failed"
    return code, str(getattr(cause, "message", cause))
