"""Record one history per feature: `python -m tests.replay.record [NAME ...]`.

A history is recorded once, by the code that first had the feature, and kept for ever beside later ones: it
stands for the runs of users that are still open when the code changes.
"""

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from db.engine import transaction
from db.router import decisions
from db.router.decisions import RoutingDecision as Chosen
from infra.local import temporal
from schema.temporal.memo import MEMO_FORK
from schema.temporal.people import Decision
from schema.temporal.queues import QUEUE_COLLABORATIONS, QUEUE_PROJECTIONS
from schema.temporal.runs import Fork, Steer
from schema.temporal.steps import StepRequest
from tests.replay.features import CHILDREN, FEATURES, INPUT, OWN_QUEUE
from tests.support.stack import SERVERS, Stack, stack
from workers.build import serve

HISTORIES: Final = Path(__file__).parent / "histories"
PROJECTION: Final = "projection"
# Temporal suggests to continue as new at 4,096 events, and such a history would take megabytes.
_EARLY: Final = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60")

Handle = WorkflowHandle[Any, Any]


@activity.defn(name="recorded_own")
async def own(args: dict[str, int]) -> int:
    return args["n"] * 2


# -- what happens to a run while it goes on ----------------------------------------------------------------


async def _cancel(on: Stack, handle: Handle) -> None:
    await asyncio.sleep(1)
    await handle.cancel()


async def _cancel_when_asked(on: Stack, handle: Handle) -> None:
    await _question(on, handle)
    await handle.cancel()


async def _two_approve(on: Stack, handle: Handle) -> None:
    await _question(on, handle)
    with contextlib.suppress(WorkflowUpdateFailedError):  # refused before it is in the history
        await handle.execute_update("decide", Decision("approve", "shrug", "user:ada"))
    for actor in ("user:ada", "user:bob"):
        await handle.execute_update("decide", Decision("approve", "approve", actor))


async def _decide_by_id(on: Stack, handle: Handle) -> None:
    """A decision by a signal, the same by an Update, and one that comes too late; and a pause by signals."""
    task = await _question(on, handle)
    ada = {"task": task, "action": "approve", "actor": "user:ada"}
    await handle.signal("pause")
    await handle.signal("resume", {"actor": "user:ada"})
    await handle.signal("shout", "nobody hears it")
    await handle.signal("decide", ada)
    await handle.execute_update("decide", ada)
    with contextlib.suppress(WorkflowUpdateFailedError):  # refused, and in the history
        await handle.execute_update("decide", ada | {"actor": "user:bob"})


async def _allow_more(on: Stack, handle: Handle) -> None:
    await _question(on, handle)
    await handle.execute_update("decide", Decision("code~budget", "approve", "user:ada", form={"usd": 1.0}))


async def _choose(on: Stack, handle: Handle) -> None:
    """A router that is not sure of its choice: what it keeps of one is what it goes by."""
    await _question(on, handle)
    request = StepRequest(str(handle.first_execution_run_id), "default", "code", "")
    candidates = {"deepseek/deepseek-chat": 0.9, "qwen/qwen-2.5-coder": 0.1}
    unsure = Chosen(
        "deepseek/deepseek-chat", 0.9, "checkpoint-1", {"confidence": 0.1}, candidates, fallback=False
    )
    async with transaction(on.engine) as connection:
        await decisions.record(connection, request, unsure)
    await handle.execute_update("decide", Decision("first", "approve", "user:ada"))
    await _question(on, handle)
    await handle.execute_update("decide", Decision("code~route", "model_1", "user:ada"))


async def _steer(on: Stack, handle: Handle) -> None:
    """A pause over the end of what is under way, with feedback and a change; all of them reach the child."""
    await _row(on, "parent_path = 'slow'", handle)
    await handle.execute_update("pause", Steer("user:ada"))
    await handle.execute_update("inject_feedback", Steer("user:ada", text="Be brief."))
    with contextlib.suppress(WorkflowUpdateFailedError):  # refused, and in the history
        await handle.execute_update("inject_feedback", Steer("user:ada", text="x", step="nothing"))
    await handle.execute_update("adjust", Steer("user:ada", agent="coder", changes={"temperature": 0}))
    await _row(on, "path = 'first' AND e.status = 'completed'", handle)
    await asyncio.sleep(3)
    await handle.execute_update("resume")


async def _row(on: Stack, where: str, handle: Handle) -> None:
    """Wait until a run has such an execution, or such a run within it."""
    found = text(
        "SELECT 1 FROM collaborations c LEFT JOIN agent_executions e ON e.collaboration_id = c.id "
        f"WHERE c.temporal_workflow_id LIKE :id AND {where}"
    )
    async with asyncio.timeout(60), on.engine.connect() as connection:
        while not (await connection.execute(found, {"id": f"{handle.id}%"})).first():
            await connection.rollback()
            await asyncio.sleep(0.1)


async def _question(on: Stack, handle: Handle) -> str:
    """Wait until the run asks people; returns the question's id."""
    asked = text(
        "SELECT t.id::text FROM human_tasks t JOIN collaborations c ON c.id = t.collaboration_id "
        "WHERE c.temporal_workflow_id = :id AND t.status = 'open'"
    )
    async with asyncio.timeout(60), on.engine.connect() as connection:
        while not (found := (await connection.execute(asked, {"id": handle.id})).first()):
            await connection.rollback()
            await asyncio.sleep(0.1)
        return str(found[0])


_MEANWHILE: Final[dict[str, Callable[[Stack, Handle], Awaitable[None]]]] = {
    "cancelled": _cancel,
    "human_decision": _two_approve,
    "decided_by_id_and_signalled": _decide_by_id,
    "cancel_with_compensation": _cancel_when_asked,
    "budget_question": _allow_more,
    "route_question": _choose,
    "steered": _steer,
}


# -- recording ---------------------------------------------------------------------------------------------


async def _record(on: Stack, name: str) -> None:
    for definition in (*CHILDREN, {"name": name, **FEATURES[name]}):
        await on.store(definition)
    match name:
        case "whole_run_in_the_pin":
            await _run(on, name)  # a worker that has seen the version can run it so
            await _write(name, await _run(on, name))
        case "fork":
            await _write(name, await _forked(on, name, await _run(on, name)))
        case "continue_as_new":
            async with _early(on) as there:
                await _record_chain(there, name)
        case "paused_and_continued_as_new":
            async with _early(on) as there:
                await _record_paused_chain(there, name)
        case _:
            await _write(name, await _run(on, name))


async def _run(on: Stack, name: str) -> Handle:
    handle = await on.start(name, INPUT, f"{name}-{uuid.uuid4().hex[:8]}")
    if meanwhile := _MEANWHILE.get(name):
        await meanwhile(on, handle)
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return handle


async def _forked(on: Stack, name: str, source: Handle) -> Handle:
    assert source.first_execution_run_id is not None
    fork = Fork(source.first_execution_run_id, ["second"])
    handle: Handle = await on.client.start_workflow(
        name, INPUT, id=f"{source.id}-fork", task_queue=QUEUE_COLLABORATIONS, memo={MEMO_FORK: asdict(fork)}
    )
    await handle.result()
    return handle


@asynccontextmanager
async def _early(on: Stack) -> AsyncIterator[Stack]:
    """The same with a Temporal that soon suggests to continue as new, and a worker for it."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(temporal.binary()), dev_server_extra_args=_EARLY
    ) as environment:
        client = environment.client
        async with _serving(on, [QUEUE_COLLABORATIONS], client.service_client.config.target_host):
            yield replace(on, client=client)


@asynccontextmanager
async def _serving(on: Stack, queues: list[str], address: str) -> AsyncIterator[None]:
    """A worker in this process that seals nothing: a replay has no keys."""
    settings = on.settings.model_copy(update={"temporal_address": address, "payload_keys": ""})
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(queues, settings, stop))
    try:
        yield
    finally:
        stop.set()
        await serving


async def _record_chain(on: Stack, name: str) -> None:
    """The first and the last run of a collaboration that is continued as new."""
    handle = await on.start(name, INPUT, name)
    await _question(on, handle)
    first = on.client.get_workflow_handle(name, run_id=handle.first_execution_run_id)
    last = on.client.get_workflow_handle(name)
    loop = text("SELECT 1 FROM agent_executions WHERE path = 'many' AND status = 'completed'")
    async with asyncio.timeout(120), on.engine.connect() as connection:
        while not (await connection.execute(loop)).first():
            await connection.rollback()
            await asyncio.sleep(0.1)
    await last.execute_update("decide", Decision("asking", "approve", "user:ada"))
    await handle.result()
    await _write(name, first)
    await _write(f"{name}_last", last)


async def _record_paused_chain(on: Stack, name: str) -> None:
    """The first and the last run of a collaboration that is continued as new while it is paused."""
    handle = await on.start(name, INPUT, name)
    await handle.execute_update("pause")
    first = on.client.get_workflow_handle(name, run_id=handle.first_execution_run_id)
    last = on.client.get_workflow_handle(name)
    async with asyncio.timeout(120):
        while (await last.describe()).run_id == handle.first_execution_run_id:
            await last.execute_update("inject_feedback", Steer("user:ada", text="Be brief."))
    await last.execute_update("resume")
    await last.result()
    await _write(name, first)
    await _write(f"{name}_last", last)


async def _record_projection(on: Stack) -> None:
    """A projection never ends; what it has done so far is its history."""
    handle = on.client.get_workflow_handle("facilitair.projection.vectors")
    while len((await handle.fetch_history()).events) < 5:
        await asyncio.sleep(0.2)
    await _write(PROJECTION, handle)


async def _write(name: str, handle: Handle) -> None:
    history = _anonymous(json.loads((await handle.fetch_history()).to_json()))
    # Never over an older one: that stands for runs that are still open.
    with (HISTORIES / f"{name}.json").open("x") as file:
        file.write(json.dumps(history, indent=1) + "\n")
    print(name, len(history["events"]), "events", flush=True)


def _anonymous(value: Any) -> Any:
    """Without the name and the paths of the machine it was recorded on."""
    if isinstance(value, dict):
        hidden = {"identity": "recorder", "stackTrace": ""}
        return {key: hidden.get(key, _anonymous(item)) for key, item in value.items()}
    return [_anonymous(item) for item in value] if isinstance(value, list) else value


async def main(names: list[str]) -> None:
    async with (
        stack(SERVERS) as on,
        _serving(on, [QUEUE_COLLABORATIONS, QUEUE_PROJECTIONS], on.settings.temporal_address),
        Worker(on.client, task_queue=OWN_QUEUE, activities=[own]),
    ):
        wanted = names or [
            name for name in (*FEATURES, PROJECTION) if not (HISTORIES / f"{name}.json").exists()
        ]
        for name in wanted:
            await (_record_projection(on) if name == PROJECTION else _record(on, name))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
