"""Temporal as one writes it by hand: a workflow for each shape, an ordinary activity for each step.

Nothing is set that the SDK has a default for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from bench.peers.steps import Steps
    from bench.peers.workloads import AT_A_TIME, STEP_TIMEOUT_SECONDS, Shape, Workload

_QUEUE: Final = "peers-hand"
_TIMEOUT: Final = timedelta(seconds=STEP_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Pause:
    run: str
    number: int
    seconds: float


@dataclass(frozen=True)
class Write:
    run: str
    number: int
    seen: list[str] = field(default_factory=list)


class Activities:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    @activity.defn
    async def pause(self, step: Pause) -> int:
        return await self._steps.pause(step.run, step.number, step.seconds)

    @activity.defn
    async def write(self, step: Write) -> str:
        return self._steps.write(step.run, step.number, step.seen)


async def _pause(number: int, seconds: float) -> int:
    step = Pause(workflow.info().workflow_id, number, seconds)
    return await workflow.execute_activity_method(Activities.pause, step, start_to_close_timeout=_TIMEOUT)


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, size: int, seconds: float) -> None:
        for number in range(size):
            await _pause(number, seconds)


@workflow.defn
class Diamond:
    @workflow.run
    async def run(self, size: int, seconds: float) -> None:
        await _pause(0, seconds)
        await asyncio.gather(*(_pause(number, seconds) for number in range(1, size - 1)))
        await _pause(size - 1, seconds)


@workflow.defn
class Context:
    @workflow.run
    async def run(self, size: int, seconds: float) -> None:
        texts: list[str] = []
        for number in range(size):
            step = Write(workflow.info().workflow_id, number, texts)
            text = await workflow.execute_activity_method(
                Activities.write, step, start_to_close_timeout=_TIMEOUT
            )
            texts = [*texts, text]


@workflow.defn
class Map:
    @workflow.run
    async def run(self, size: int, seconds: float) -> list[int]:
        slots = asyncio.Semaphore(AT_A_TIME)

        async def one(number: int) -> int:
            async with slots:
                return await _pause(number, seconds)

        return await asyncio.gather(*(one(number) for number in range(size)))


_WORKFLOWS: Final[dict[Shape, type[Any]]] = {
    "chain": Chain,
    "diamond": Diamond,
    "context": Context,
    "map": Map,
}


class TemporalHand:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self, workload: Workload, run: str) -> None:
        try:
            handle = await self._client.start_workflow(
                _WORKFLOWS[workload.shape].run,
                args=[workload.size, workload.step_seconds],
                id=run,
                task_queue=_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            handle = self._client.get_workflow_handle(run)
        await handle.result()


@asynccontextmanager
async def opened(address: str, steps: Steps) -> AsyncIterator[TemporalHand]:
    client = await Client.connect(address)
    activities = Activities(steps)
    async with Worker(
        client,
        task_queue=_QUEUE,
        workflows=list(_WORKFLOWS.values()),
        activities=[activities.pause, activities.write],
    ):
        yield TemporalHand(client)
