"""Connections to Temporal, and the start of the workflows that always run."""

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from schema.messages import QUEUE_PROJECTIONS
from workflows.archive import Archive
from workflows.projection import PROJECTIONS, Projection

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


async def connect(address: str, namespace: str) -> Client:
    """A Temporal client, as soon as the server answers; gives up after a minute."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            return await Client.connect(address, namespace=namespace)
        except (RuntimeError, RPCError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            _log.info("waiting for Temporal", extra={"address": address, "error": str(error)})
            await asyncio.sleep(_PAUSE_SECONDS)


async def start_projections(client: Client) -> None:
    """See to it that every projection runs; one that already does is left alone."""
    for name in PROJECTIONS:
        await client.start_workflow(
            Projection.run,
            name,
            id=f"facilitair.projection.{name}",
            task_queue=QUEUE_PROJECTIONS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"keep {name} in step with the outbox",
        )


async def schedule_archiving(client: Client) -> None:
    """See to it that old tokens are archived every day; a schedule that is there is left as people set it."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            Archive.run, id="facilitair.archive-tokens", task_queue=QUEUE_PROJECTIONS,
            static_summary="archive tokens of runs that ended long ago",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(days=1), offset=timedelta(hours=3))]),
    )  # fmt: skip
    with contextlib.suppress(ScheduleAlreadyRunningError):
        await client.create_schedule("facilitair-archive-tokens", schedule)
