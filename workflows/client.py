"""Connections to Temporal, and the start of the workflows that always run."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.converter import DataConverter
from temporalio.service import RPCError
from temporalio.types import MethodAsyncNoParam

from schema.messages import QUEUE_LEARNING, QUEUE_PROJECTIONS
from workflows.archive import Archive
from workflows.endings import CloseEnded
from workflows.learning import LearnAll
from workflows.projection import PROJECTIONS, Projection
from workflows.reconcile import Reconcile
from workflows.rollout import Rollouts
from workflows.trials import Trials

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class _Regular:
    name: str
    run: MethodAsyncNoParam[Any, Any]
    summary: str
    every: timedelta
    offset: timedelta = timedelta()
    queue: str = QUEUE_PROJECTIONS


_REGULARLY: Final = (
    _Regular(
        "archive-tokens", Archive.run, "archive tokens of runs that ended long ago",
        timedelta(days=1), offset=timedelta(hours=3),
    ),
    _Regular("trials", Trials.run, "end trials of prompts that are decided", timedelta(minutes=1)),
    _Regular(
        "reconcile-calls", Reconcile.run, "ask providers what calls came to that nobody saw the end of",
        timedelta(seconds=30),
    ),
    _Regular(
        "close-ended", CloseEnded.run, "close runs that ended in Temporal alone",
        timedelta(seconds=30), offset=timedelta(seconds=15),
    ),
    _Regular(
        "learn-all", LearnAll.run, "let the router learn from what is new",
        timedelta(days=1), offset=timedelta(hours=2, minutes=30), queue=QUEUE_LEARNING,
    ),
    _Regular(
        "rollouts", Rollouts.run, "let the router's checkpoints serve more, or no more",
        timedelta(minutes=1), queue=QUEUE_LEARNING,
    ),
)  # fmt: skip

_log = logging.getLogger(__name__)


async def connect(address: str, namespace: str, converter: DataConverter = DataConverter.default) -> Client:
    """A Temporal client, as soon as the server answers; gives up after a minute."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            return await Client.connect(address, namespace=namespace, data_converter=converter)
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


async def keep_schedules(client: Client) -> None:
    """Schedule what is regularly done; a schedule that is there is left as people set it."""
    for one in _REGULARLY:
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(
                one.run, id=f"facilitair.{one.name}", task_queue=one.queue,
                static_summary=one.summary,
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(one.every, offset=one.offset)]),
        )  # fmt: skip
        with contextlib.suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(f"facilitair-{one.name}", schedule)
