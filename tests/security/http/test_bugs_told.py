"""A bug shows its type and the id of a log line, at every door; its text is for the log."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DataError
from temporalio import activity
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.guard import ErrorInterceptor, describe, translate
from api.live.sockets import _error
from schema.errors import StepError

SECRET = "hunter2-of-somebody"


def database_bug() -> DataError:
    cause = ValueError(SECRET)
    error = DataError("UPDATE agent_executions SET output = %s", {"output": SECRET}, cause)
    error.__cause__ = cause
    return error


BUGS: list[Callable[[], Exception]] = [
    database_bug,
    lambda: ValueError(SECRET),
    lambda: KeyError(SECRET),
    lambda: RecursionError(SECRET),
    lambda: OSError(2, "No such file or directory", f"/secret/{SECRET}"),
    lambda: FileNotFoundError(SECRET),
    lambda: UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
]


@pytest.mark.parametrize("bug", BUGS)
def test_an_executions_row_and_temporals_failure_keep_nothing_of_a_bugs_text(
    bug: Callable[[], Exception],
) -> None:
    error = bug()
    code, message = describe(error)
    told = translate(error)
    assert isinstance(told, ApplicationError)
    assert (told.type, told.message) == (code, message)
    assert SECRET not in message and "SQL" not in message


def test_a_bug_is_logged_once_under_the_id_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    error = database_bug()
    with caplog.at_level(logging.ERROR):
        _, first = describe(error)
        _, second = describe(error)
    [line] = [one for one in caplog.records if one.message == "a fault of the platform"]
    assert (
        first
        == second
        == (
            "found a fault of the platform itself (DataError). The log has the details under "
            f"{line.__dict__['bug']}."
        )
    )
    assert line.exc_info is not None and SECRET in str(line.exc_info[1])


class FailingInbound(ActivityInboundInterceptor):
    """The activity itself."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            raise database_bug()
        except DataError as cause:
            raise self.error from cause


@pytest.mark.parametrize(
    "error",
    [
        StepError("tool_failed", "said"),
        ApplicationError("said", type="tool_failed"),
        ValueError(SECRET),
        database_bug(),
    ],
)
async def test_temporals_history_keeps_no_cause_of_a_failed_activity(error: Exception) -> None:
    guarded = ErrorInterceptor().intercept_activity(FailingInbound(error))

    @activity.defn
    async def failing() -> None:
        await guarded.execute_activity(ExecuteActivityInput(failing, [], None, {}))

    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(failing)
    failure = Failure()
    DefaultFailureConverter().to_failure(caught.value, PayloadConverter.default, failure)
    written = failure.SerializeToString().decode("utf-8", "replace")
    assert SECRET not in written and "UPDATE" not in written
    assert not failure.HasField("cause")


@pytest.mark.parametrize("bug", BUGS)
def test_a_websocket_is_told_of_a_bug_in_a_frame_without_its_text(bug: Callable[[], Exception]) -> None:
    frame = _error(bug())
    assert frame["type"] == "error" and frame["code"] == "internal_error"
    assert SECRET not in frame["message"] and "SQL" not in frame["message"]
