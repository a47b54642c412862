"""Every activity's errors as Temporal needs them: a stable type, and retried only when that can help."""

import asyncio
import logging
import os
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.exc import IntegrityError, ProgrammingError
from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError, TemporalError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from db.isolation import is_away, is_refused
from db.money.spending import BudgetExceeded
from schema.bugs import CODE, bug, noted
from schema.errors import FacilitairError, ProviderError, StepError
from schema.temporal.runs import FAILED_STEP, OTHERS_MONEY
from schema.values.foreign import clean_text, too_deep

MAX_MESSAGE_CHARS: Final = 4_000
MAX_UNFORESEEN: Final = 3
"""Attempts at what fails in a way that we did not foresee: a bug must not be tried for days."""
_OWN_FAULTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
    IntegrityError,
    ProgrammingError,
)

_log = logging.getLogger(__name__)


def translate(error: BaseException) -> BaseException:
    """The error as Temporal should see it.

    Of what we did not foresee only its type is told: its text may hold SQL and values, and histories and rows
    are read by many.
    """
    match error:
        case TemporalError() | asyncio.CancelledError() | CancelledError():
            return error
        case FacilitairError():
            after = error.retry_after_seconds if isinstance(error, ProviderError) else None
            elsewhere = isinstance(error, BudgetExceeded) and not error.askable
            step = error.step if isinstance(error, StepError) else ""
            return ApplicationError(
                clean_text(error.message)[:MAX_MESSAGE_CHARS],
                *([OTHERS_MONEY] if elsewhere else []),
                *([{FAILED_STEP: step}] if step else []),
                type=error.code,
                non_retryable=not error.retryable,
                next_retry_delay=timedelta(seconds=after) if after else None,
            )
        case _ if is_away(error):
            return ApplicationError(
                "Postgres does not answer; the step is tried again when it does.", type="database_unavailable"
            )
        case _ if is_refused(error):
            return ApplicationError(
                "found a value that Postgres cannot hold; expected JSON within the bounds of "
                f"docs/foreign.md. The log has the details under {noted(error, _log, **_where())}.",
                type="output_invalid",
                non_retryable=True,
            )
        case RecursionError():
            return ApplicationError(f"{too_deep()}.", type="output_invalid", non_retryable=True)
        case OSError():
            told = bug(error, _log, **_where())
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            return ApplicationError(f"{reason}. {told.message}", type="io_error")
        case _:
            told = bug(error, _log, **_where())
            return ApplicationError(told.message, type=told.code, non_retryable=not _may_pass(error))


def _may_pass(error: BaseException) -> bool:
    """Tell whether an unforeseen error may pass on the next try: a fault of our own code does not."""
    tried = activity.info().attempt if activity.in_activity() else 1
    return not isinstance(error, _OWN_FAULTS) and tried < MAX_UNFORESEEN


def given_up() -> StepError:
    """Return the error that ends an attempt which was taken for dead and finished afterwards."""
    return StepError("attempt_abandoned", "a later attempt had already taken this step over")


def describe(error: Exception) -> tuple[str, str]:
    """(code, message) of any error, as an execution row keeps it."""
    translated = translate(error)
    if isinstance(translated, ApplicationError):
        return clean_text(translated.type or CODE), translated.message
    return type(error).__name__, "it was ended from outside"


def _where() -> dict[str, str]:
    """The activity that runs now, for the log."""
    if not activity.in_activity():
        return {}
    info = activity.info()
    return {"activity": info.activity_type, "workflow_id": info.workflow_id or ""}


class ErrorInterceptor(Interceptor):
    """Puts `translate` around every activity of a worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _ErrorInbound(next)


class _ErrorInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except Exception as error:
            # Without its causes: Temporal would store the text of each of them.
            raise translate(error) from None
