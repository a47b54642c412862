"""Runs that end in Temporal alone are closed in Postgres."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.testing import ActivityEnvironment

from activities.upkeep.ended_runs import EndingsActivity
from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.support.stack import Stack

WAITS = {"a": {"kind": "tool", "activity": "x", "task_queue": "nobody-serves-this", "timeout": "1h"}}


async def rows(platform: Stack, id: str) -> list[tuple[Any, ...]]:
    query = text("""
        SELECT status, sub_state, error_code, error_message, (
            SELECT count(*) FROM agent_executions WHERE collaboration_id = collaborations.id
        ) AS steps
        FROM collaborations WHERE temporal_workflow_id = :id ORDER BY started_at
    """)
    async with platform.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query, {"id": id})]


async def waiting(platform: Stack, id: str, runs: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(found := await rows(platform, id)) < runs or found[-1][0] != "running" or not found[-1][-1]:
            await asyncio.sleep(0.05)


async def closed(platform: Stack, endings: EndingsActivity, id: str) -> tuple[Any, ...]:
    """The first run's row, once it is not running. Temporal's list is some moments behind, and the
    platform's own look may come first."""
    async with asyncio.timeout(30):
        while True:
            await ActivityEnvironment().run(endings.close_ended)
            if (row := (await rows(platform, id))[0])[0] != "running":
                return row
            await asyncio.sleep(0.2)


async def begun(platform: Stack, name: str = "it's waiting") -> str:
    id = f"{name} {uuid.uuid4().hex[:8]}"
    await platform.store({"name": "waits-for-nobody", "steps": WAITS})
    await platform.start("waits-for-nobody", {}, id)
    await waiting(platform, id)
    return id


async def test_a_terminated_run_is_closed_once_and_the_next_of_its_id_goes_on(
    platform: Stack, endings: EndingsActivity
) -> None:
    id = await begun(platform)
    handle = platform.client.get_workflow_handle(id)
    run = (await handle.describe()).run_id
    await handle.terminate()
    await platform.start("waits-for-nobody", {}, id)
    await waiting(platform, id, 2)
    ended = await closed(platform, endings, id)
    assert ended[:3] == ("failed", "terminated", "run_terminated")
    assert ended[3] == "the run was terminated in Temporal."
    await ActivityEnvironment().run(endings.close_ended)
    assert [row[0] for row in await rows(platform, id)] == ["failed", "running"]
    told = text("SELECT type, payload FROM outbox WHERE aggregateid = :run ORDER BY seq")
    async with platform.engine.connect() as connection:
        *_, (_, left), (_, event) = await connection.execute(told, {"run": run})
        steps = text("SELECT status, error_code FROM agent_executions WHERE collaboration_id = :run")
        step = tuple((await connection.execute(steps, {"run": run})).one())
    assert (left["step"], left["error_code"]) == ("a", "run_terminated")
    assert step == ("failed", "run_terminated")
    assert (event["sub_state"], event["error_code"]) == ("terminated", "run_terminated")
    await handle.terminate()


async def test_a_run_that_timed_out_in_temporal_is_closed(platform: Stack, endings: EndingsActivity) -> None:
    id = f"short-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": "waits-for-nobody", "steps": WAITS})
    await platform.client.start_workflow(
        "waits-for-nobody", {}, id=id, task_queue=QUEUE_COLLABORATIONS, execution_timeout=timedelta(seconds=2)
    )
    await waiting(platform, id)
    assert (await closed(platform, endings, id))[:3] == ("failed", "timed_out", "run_timed_out")


async def test_an_id_that_temporal_cannot_list_is_found_all_the_same(
    platform: Stack, endings: EndingsActivity
) -> None:
    id = await begun(platform, 'a "strange" \\ one')
    await platform.client.get_workflow_handle(id).terminate()
    assert (await closed(platform, endings, id))[1] == "terminated"


async def test_a_run_that_was_reset_goes_on(platform: Stack, endings: EndingsActivity) -> None:
    id = await begun(platform)
    handle = platform.client.get_workflow_handle(id)
    described = await handle.describe()
    first: list[int] = []
    async with asyncio.timeout(30):
        while not first:
            events = (await handle.fetch_history()).events
            first = [e.event_id for e in events if e.HasField("workflow_task_completed_event_attributes")]
    await platform.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=id, run_id=described.run_id),
            reason="somebody tried it in the UI",
            workflow_task_finish_event_id=first[0],
            request_id=uuid.uuid4().hex,
        )
    )
    async with asyncio.timeout(30):
        query = f"WorkflowId = \"{id}\" AND ExecutionStatus = 'Terminated'"
        while not [one async for one in platform.client.list_workflows(query)]:
            await asyncio.sleep(0.2)
    await ActivityEnvironment().run(endings.close_ended)
    assert [row[0] for row in await rows(platform, id)] == ["running"]
    await handle.terminate()
    assert (await closed(platform, endings, id))[1] == "terminated"
