"""Connections to Temporal, and the start of the workflows that always run."""

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.converter import DataConverter
from temporalio.service import RPCError
from temporalio.types import MethodAsyncNoParam

from schema import names
from schema.temporal import search_attributes
from schema.temporal.queues import QUEUE_LEARNING, QUEUE_PROJECTIONS
from workflows import impostors
from workflows.learning import LearnAll
from workflows.upkeep import (
    PROJECTIONS,
    Archive,
    CloseEnded,
    Projection,
    Reconcile,
    Rollouts,
    Trials,
    VerifyCopies,
)

_CONNECT_TIMEOUT_SECONDS: Final = 60.0
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
        "archive-tokens",
        Archive.run,
        "archive tokens of runs that ended long ago",
        timedelta(days=1),
        offset=timedelta(hours=3),
    ),
    _Regular(
        "verify-copies",
        VerifyCopies.run,
        "compare Neo4j and Weaviate with the log",
        timedelta(days=1),
        offset=timedelta(hours=4),
    ),
    _Regular("trials", Trials.run, "end trials of prompts that are decided", timedelta(minutes=1)),
    _Regular(
        "reconcile-calls",
        Reconcile.run,
        "ask providers what calls came to that nobody saw the end of",
        timedelta(seconds=30),
    ),
    _Regular(
        "close-ended",
        CloseEnded.run,
        "close runs that ended in Temporal alone",
        timedelta(seconds=30),
        offset=timedelta(seconds=15),
    ),
    _Regular(
        "learn-all",
        LearnAll.run,
        "let the router learn from what is new",
        timedelta(days=1),
        offset=timedelta(hours=2, minutes=30),
        queue=QUEUE_LEARNING,
    ),
    _Regular(
        "rollouts",
        Rollouts.run,
        "let the router's checkpoints serve more, or no more",
        timedelta(minutes=1),
        queue=QUEUE_LEARNING,
    ),
)

_log = logging.getLogger(__name__)


async def connect(address: str, namespace: str, converter: DataConverter = DataConverter.default) -> Client:
    """A Temporal client, as soon as the server answers; gives up after a minute."""
    deadline = asyncio.get_running_loop().time() + _CONNECT_TIMEOUT_SECONDS
    while True:
        try:
            return await Client.connect(address, namespace=namespace, data_converter=converter)
        except (RuntimeError, RPCError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            _log.info("Waiting for Temporal", extra={"address": address, "error": str(error)})
            await asyncio.sleep(_PAUSE_SECONDS)


async def registers_search_attributes(client: Client) -> bool:
    """See to it that Temporal has the search attributes of runs; False where it has not, and may not get
    them. A run that sets one that is not there would hang."""
    service, namespace = client.operator_service, client.namespace
    wanted = {
        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
        for name, kind in search_attributes.KINDS.items()
    }
    try:
        found = await service.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))
        if missing := {name: kind for name, kind in wanted.items() if name not in found.custom_attributes}:
            await service.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
            )
            found = await service.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))
    except RPCError:
        _log.warning("Temporal refused the search attributes, runs go without", exc_info=True)
        return False
    return wanted.items() <= dict(found.custom_attributes).items()


async def keep_own(client: Client, secret: bytes) -> None:
    """See to it that under the platform's ids stands what it does itself, all the time and regularly."""
    await impostors.evict_all(client)
    await start_projections(client)
    await keep_schedules(client, secret)


async def start_projections(client: Client) -> None:
    """See to it that every projection runs; one that already does is left alone, anything else in its
    place is ended."""
    for name in PROJECTIONS:
        id = f"{names.OWN}.projection.{name}"
        await impostors.evict(client, id, "facilitair.projection", QUEUE_PROJECTIONS)
        await client.start_workflow(
            Projection.run,
            name,
            id=id,
            task_queue=QUEUE_PROJECTIONS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"keep {name} in step with the outbox",
        )


async def keep_schedules(client: Client, secret: bytes) -> None:
    """Schedule what is regularly done. A schedule that is there keeps its rhythm and its pause as people set
    them; what it starts must be ours."""
    for one in _REGULARLY:
        id, schedule = f"{names.OWN}-{one.name}", _schedule(one, secret)
        try:
            await client.create_schedule(id, schedule)
        except ScheduleAlreadyRunningError:
            await _keep_ours(client.get_schedule_handle(id), schedule)


def _schedule(one: _Regular, secret: bytes) -> Schedule:
    # Temporal adds the time to the id. Nobody outside can tell the whole, and take it before its time.
    stem = names.digest(secret, "schedule", names.OWN, one.name)
    action = ScheduleActionStartWorkflow(
        one.run, id=f"{names.OWN}.{one.name}.{stem}", task_queue=one.queue, static_summary=one.summary
    )
    intervals = [ScheduleIntervalSpec(one.every, offset=one.offset)]
    return Schedule(action=action, spec=ScheduleSpec(intervals=intervals))


async def _keep_ours(handle: ScheduleHandle, wanted: Schedule) -> None:
    ours = wanted.action
    assert isinstance(ours, ScheduleActionStartWorkflow)
    found = (await handle.describe()).schedule.action
    told = (
        (found.workflow, found.task_queue, found.id) if isinstance(found, ScheduleActionStartWorkflow) else ()
    )
    if told == (ours.workflow, ours.task_queue, ours.id):
        return
    is_ours = told[:2] == (ours.workflow, ours.task_queue)
    if not is_ours:
        _log.error(
            "Schedule under a platform id started something else",
            extra={"schedule": handle.id, "found": told},
        )

    def corrected(known: ScheduleUpdateInput) -> ScheduleUpdate:
        # The rhythm of what was none of ours nobody of us has set.
        return ScheduleUpdate(replace(known.description.schedule, action=ours) if is_ours else wanted)

    await handle.update(corrected)
