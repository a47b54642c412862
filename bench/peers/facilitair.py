"""Our platform, as a worker process of it runs: the same clients, activities and settings."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.tools.activity import ToolActivity
from bench.peers.steps import UNKNOWN, Notes
from bench.peers.workloads import AT_A_TIME, OUTPUT_BYTES, STEP_TIMEOUT_SECONDS, Workload
from db.definitions import definitions
from db.engine import async_engine, transaction
from gateway.client import warm_up
from schema.language.tools import TOOLS, BuiltInTool
from schema.rules.validate import validate
from schema.settings import Settings
from schema.temporal.queues import QUEUE_COLLABORATIONS
from workers.build import serve
from workflows.client import connect

_Json = dict[str, Any]
_MICROSECOND: Final = 1e-6
_CONTEXT: Final = "bench.context"
_OUTPUT: Final = "x" * OUTPUT_BYTES
_TAKES: Final[_Json] = {"type": "object", "properties": {"seen": {}}, "required": []}


class Facilitair:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self, workload: Workload, run: str) -> None:
        try:
            handle = await self._client.start_workflow(
                workload.name,
                _input(workload),
                id=run,
                task_queue=QUEUE_COLLABORATIONS,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            handle = self._client.get_workflow_handle(run)
        await handle.result()


@asynccontextmanager
async def opened(
    settings: Settings, workloads: Sequence[Workload], notes: Notes, *, chained: bool, again: bool
) -> AsyncIterator[Facilitair]:
    """`chained`: neighbouring steps may share an activity, which is the default of a definition. `again`: the
    runs to come were begun by a process that was killed."""
    watch(notes)
    await _upload(settings, [definition(workload, chained) for workload in workloads])
    if not again:
        warm_up()  # a worker does it while it serves already, and that would be measured
    stop = asyncio.Event()
    serving = asyncio.create_task(serve([QUEUE_COLLABORATIONS], settings, stop))
    try:
        yield Facilitair(await connect(settings.temporal_address, settings.temporal_namespace))
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await serving


def watch(notes: Notes) -> None:
    """The one hook into the platform: note when a tool begins and ends. All of them pass here."""
    call = ToolActivity.run

    async def watched(self: ToolActivity, name: str, args: _Json) -> Any:
        run, number = activity.info().workflow_id or "", _number(args)
        notes.begin(run, number)
        output = _OUTPUT if name == _CONTEXT else await call(self, name, args)
        notes.end(run, number)
        return output

    ToolActivity.run = watched  # type: ignore[method-assign]
    TOOLS[_CONTEXT] = BuiltInTool("Takes all that came before.", _TAKES, quick=True)


def _seconds(workload: Workload, number: int) -> float:
    """A tool is told its arguments only, so a pause carries its step's number as microseconds.

    A pause of no length stays one: it must not become a timer.
    """
    return workload.step_seconds + number * _MICROSECOND if workload.step_ms else 0


def _number(args: _Json) -> int:
    seconds = args.get("seconds", 0)
    return round(seconds / _MICROSECOND) % 1_000 if seconds else UNKNOWN


def _input(workload: Workload) -> _Json:
    match workload.shape:
        case "map":
            return {"items": list(range(workload.size))}
        case _:
            return {}


def definition(workload: Workload, chained: bool) -> _Json:
    """The workload in our language."""
    return {
        "name": workload.name,
        "defaults": {"timeout": f"{STEP_TIMEOUT_SECONDS}s", **({} if chained else {"chain": "off"})},
        "steps": _steps(workload),
    }


def _steps(workload: Workload) -> _Json:
    last = workload.size - 1
    match workload.shape:
        case "chain":
            return {f"s{n}": _pause(workload, n, [n - 1] if n else []) for n in range(workload.size)}
        case "diamond":
            middle = list(range(1, last))
            return {
                "s0": _pause(workload, 0, []),
                **{f"s{n}": _pause(workload, n, [0]) for n in middle},
                f"s{last}": _pause(workload, last, middle),
            }
        case "context":
            return {f"s{n}": _write(n) for n in range(workload.size)}
        case "map":
            item = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}
            return {
                "each": {
                    "kind": "map",
                    "over": "input.items",
                    "max_items": workload.size,
                    "concurrency": AT_A_TIME,
                    "body": {"steps": {"item": item}},
                }
            }


def _pause(workload: Workload, number: int, needs: Sequence[int]) -> _Json:
    return {
        "kind": "tool",
        "tool": "pause",
        "args": {"seconds": _seconds(workload, number)},
        "needs": [f"s{n}" for n in needs],
    }


def _write(number: int) -> _Json:
    """A step that is given all outputs before it, as the steps of the other peers are."""
    return {
        "kind": "tool",
        "tool": _CONTEXT,
        "args": {"seen": [f"${{steps.s{n}.output}}" for n in range(number)]},
    }


async def _upload(settings: Settings, wanted: Sequence[_Json]) -> None:
    engine = async_engine(settings.database_url)
    async with transaction(engine) as connection:
        for one in wanted:
            await definitions.save(connection, "default", validate(one).definition, "bench")
    await engine.dispose()
