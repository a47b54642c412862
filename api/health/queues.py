"""Task queues that no worker polls: whatever waits there says so, instead of only waiting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from schema.errors import FacilitairError

if TYPE_CHECKING:
    from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

    from api.temporal import Temporal

UNPOLLED_AFTER: Final = timedelta(seconds=3)
"""Work that waits for less may be about to be taken."""
POLL: Final = timedelta(seconds=75)
"""A poll stays open for a minute: a live worker has begun another since."""
_MAX_ASKED: Final = 10
"""Queues that Temporal is asked about for one answer."""


@dataclass(frozen=True)
class WaitingWork:
    """Work that no worker has taken so far."""

    path: str
    """The step's; empty for the run itself."""
    queue: str
    since: datetime


@dataclass(frozen=True)
class UnpolledWork:
    """Work that nobody will take before a worker comes."""

    path: str
    told: str
    """For people: `no worker has polled 'billing' for 2m`."""


def waiting_in(told: "DescribeWorkflowExecutionResponse", now: datetime) -> list[WaitingWork]:
    """Return what waits in a run for a worker to take it, the oldest first."""
    from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState

    found = [
        WaitingWork(one.activity_id, one.activity_options.task_queue.name, one.scheduled_time.ToDatetime(UTC))
        for one in told.pending_activities
        if one.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED and one.attempt <= 1
    ]
    task = told.pending_workflow_task
    if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED and task.attempt <= 1:
        queue = told.execution_config.task_queue.name
        found.append(WaitingWork("", queue, task.original_scheduled_time.ToDatetime(UTC)))
    return sorted((one for one in found if now - one.since > UNPOLLED_AFTER), key=lambda one: one.since)


async def unpolled(temporal: "Temporal", waiting: Sequence[WaitingWork]) -> list[UnpolledWork]:
    """Return what waits at a queue that no worker polls; nothing where Temporal does not say."""
    now, polled = datetime.now(UTC), dict[tuple[str, bool], datetime | None]()
    found = []
    for one in waiting:
        key = one.queue, one.path == ""
        if key not in polled and len(polled) < _MAX_ASKED:
            try:
                polled[key] = await temporal.last_poll(one.queue, of_workflows=one.path == "")
            except FacilitairError:
                return []
        if key in polled and (silence := silent_for(polled[key], one.since, now)):
            found.append(
                UnpolledWork(one.path, f"no worker has polled {one.queue!r} for {in_words(silence)}")
            )
    return found


async def warnings(temporal: "Temporal", queues: Iterable[str]) -> list[str]:
    """Return what to warn of who names these queues for activities of their own."""
    found = []
    for queue in sorted(set(queues))[:_MAX_ASKED]:
        try:
            polled = await temporal.last_poll(queue)
        except FacilitairError:
            return []
        now = datetime.now(UTC)
        if silent_for(polled, now - POLL, now):
            found.append(
                f"no worker polls the task queue {queue!r}: its steps wait, each for its `timeout` at most, "
                "until a worker of yours does. Start one, or correct `task_queue`"
            )
    return found


def silent_for(polled: datetime | None, since: datetime, now: datetime) -> timedelta | None:
    """Return for how long no worker has polled; None where one may still be waiting. `polled`: the last poll
    that Temporal remembers, for five minutes. `since`: when something came that the next poll would take."""
    if polled is not None and now - polled < POLL:
        return None
    return now - (polled or since)


def in_words(lasted: timedelta) -> str:
    """Return a time in its largest whole unit, as durations are written: 45s, 2m, 3h, 4d."""
    seconds = int(lasted.total_seconds())
    unit, name = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds // unit}{name}"


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
