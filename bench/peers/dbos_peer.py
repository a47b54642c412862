"""DBOS: a workflow function for each shape, whose steps it records in Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench.peers.steps import Steps
from bench.peers.workloads import Shape, Workload

_Workflow = Callable[[int, float], Coroutine[Any, Any, None]]
"""Of a run's number of steps, and the seconds that each of them takes."""


class Dbos:
    def __init__(self, workflows: dict[Shape, _Workflow]) -> None:
        self._workflows = workflows

    async def run(self, workload: Workload, run: str) -> None:
        # A run that is there already is not begun again: DBOS itself goes on with it after a kill.
        with SetWorkflowID(run):
            handle = await DBOS.start_workflow_async(
                self._workflows[workload.shape], workload.size, workload.step_seconds
            )
        await handle.get_result()


@asynccontextmanager
async def opened(database_url: str, steps: Steps) -> AsyncIterator[Dbos]:
    # The version tells which pending runs are ours to go on with; its default is a hash of the code.
    config: DBOSConfig = {
        "name": "peers",
        "system_database_url": database_url,
        "application_version": "peers",
        "log_level": "WARNING",
    }
    DBOS(config=config)
    workflows = _workflows(steps)
    await asyncio.to_thread(DBOS.launch)
    try:
        yield Dbos(workflows)
    finally:
        await asyncio.to_thread(DBOS.destroy)


def _workflows(steps: Steps) -> dict[Shape, _Workflow]:
    """Registered here and not at import, since the steps need their notes."""

    @DBOS.step()
    async def pause(run: str, number: int, seconds: float) -> int:
        return await steps.pause(run, number, seconds)

    @DBOS.step()
    async def write(run: str, number: int, seen: list[str]) -> str:
        return steps.write(run, number, seen)

    @DBOS.workflow()
    async def chain(size: int, seconds: float) -> None:
        for number in range(size):
            await pause(_own_name(), number, seconds)

    @DBOS.workflow()
    async def diamond(size: int, seconds: float) -> None:
        run = _own_name()
        await pause(run, 0, seconds)
        await asyncio.gather(*(pause(run, number, seconds) for number in range(1, size - 1)))
        await pause(run, size - 1, seconds)

    @DBOS.workflow()
    async def context(size: int, seconds: float) -> None:
        texts: list[str] = []
        for number in range(size):
            texts.append(await write(_own_name(), number, texts))

    @DBOS.workflow()
    async def map_(size: int, seconds: float) -> None:
        run = _own_name()
        await asyncio.gather(*(pause(run, number, seconds) for number in range(size)))

    return {"chain": chain, "diamond": diamond, "context": context, "map": map_}


def _own_name() -> str:
    name: str | None = DBOS.workflow_id
    assert name is not None
    return name
