"""What stands in the place of a workflow or schedule of the platform's own is noticed and replaced."""

import asyncio
import logging
import uuid
from datetime import timedelta

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleState,
    WorkflowExecutionStatus,
)
from temporalio.service import RPCError

from db import secrets
from db.engine import transaction
from schema.temporal.queues import QUEUE_LEARNING, QUEUE_PROJECTIONS
from tests.support.api_client import door, problem
from tests.support.stack import Stack
from workflows.client import keep_own

PROJECTION = "facilitair.projection.graph"


async def _secret(platform: Stack) -> bytes:
    async with transaction(platform.engine) as connection:
        return await secrets.find(connection, secrets.NAMING)


async def _impostor(client: Client, id: str) -> str:
    """Something that waits for ever under an id; its run id."""
    queue = f"nobody-{uuid.uuid4().hex[:8]}"
    handle = await client.start_workflow("impostor", id=id, task_queue=queue)
    return handle.first_execution_run_id or ""


async def test_an_impostor_in_the_place_of_a_projection_is_replaced(
    platform: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    client = platform.client
    projection = client.get_workflow_handle(PROJECTION)
    secret = await _secret(platform)
    await projection.terminate()
    impostor = await _impostor(client, PROJECTION)
    with caplog.at_level(logging.ERROR, "workflows.impostors"):
        await keep_own(client, secret)
    ended = await client.get_workflow_handle(PROJECTION, run_id=impostor).describe()
    assert ended.status is WorkflowExecutionStatus.TERMINATED
    now = await projection.describe()
    assert (now.workflow_type, now.task_queue) == ("facilitair.projection", QUEUE_PROJECTIONS)
    assert now.status is WorkflowExecutionStatus.RUNNING
    # The worker looks by itself every half minute, and may have been first.
    told = [(one.message, vars(one)["run"], vars(one)["type"]) for one in caplog.records]
    assert told in ([], [("a run under an id of the platform was terminated", PROJECTION, "impostor")])
    # One that runs rightly is left alone.
    await keep_own(client, secret)
    assert (await projection.describe()).run_id == now.run_id


async def test_an_impostor_under_an_id_that_nothing_of_ours_has_yet_is_ended(platform: Stack) -> None:
    client, secret = platform.client, await _secret(platform)
    ids = [f"facilitair.learn.{uuid.uuid4().hex[:8]}", f"facilitair.trials-{uuid.uuid4().hex[:8]}"]
    runs = {id: await _impostor(client, id) for id in ids}
    async with asyncio.timeout(30):
        for id, run in runs.items():
            # Temporal lists a workflow a moment after it has begun.
            while (
                await client.get_workflow_handle(id, run_id=run).describe()
            ).status is WorkflowExecutionStatus.RUNNING:
                await keep_own(client, secret)


async def test_a_training_starts_where_an_impostor_stood(platform: Stack) -> None:
    """The audit: a run called `facilitair.learn.default` kept every training from beginning."""
    id = "facilitair.learn.default"
    impostor = await _impostor(platform.client, id)
    async with door(platform.settings) as http:
        started = await http.post("/v1/router/trainings", json={})
        assert started.status_code == 202, started.text
    ended = await platform.client.get_workflow_handle(id, run_id=impostor).describe()
    assert ended.status is WorkflowExecutionStatus.TERMINATED
    now = platform.client.get_workflow_handle(id, run_id=started.json()["id"])
    assert (await now.describe()).task_queue == QUEUE_LEARNING
    try:
        await now.terminate()
    except RPCError:  # too few outcomes: it has ended by itself
        assert (await now.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_a_search_for_examples_is_not_told_by_an_impostor(platform: Stack) -> None:
    name = f"names-{uuid.uuid4().hex[:8]}"
    handle = await platform.client.start_workflow(
        "impostor", id=f"facilitair.optimize.default.{name}", task_queue="collaborations"
    )
    async with door(platform.settings) as http:
        answer = await http.get(f"/v1/prompts/{name}/optimize")
    problem(answer, 404, "optimization_unknown")
    with pytest.raises(Exception, match="Workflow execution"):
        await handle.result()


async def test_a_schedule_of_the_platform_starts_what_is_ours_under_an_id_that_nobody_can_tell(
    platform: Stack,
) -> None:
    client, secret = platform.client, await _secret(platform)
    handle = client.get_schedule_handle("facilitair-rollouts")
    ours = await handle.describe()
    action = ours.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert action.id.startswith("facilitair.rollouts.")
    assert len(action.id.removeprefix("facilitair.rollouts.")) == 24

    await handle.delete()
    never = ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(days=300))])
    foreign = ScheduleActionStartWorkflow("impostor", id="impostor", task_queue="collaborations")
    await client.create_schedule(
        "facilitair-rollouts", Schedule(action=foreign, spec=never, state=ScheduleState(paused=True))
    )
    await keep_own(client, secret)
    now = await handle.describe()
    assert isinstance(now.schedule.action, ScheduleActionStartWorkflow)
    assert (now.schedule.action.workflow, now.schedule.action.id) == ("facilitair.rollouts", action.id)
    assert now.schedule.spec.intervals == ours.schedule.spec.intervals
    assert not now.schedule.state.paused

    # What people set of one that is ours stays as they set it.
    await handle.pause(note="for now")
    await keep_own(client, secret)
    assert (await handle.describe()).schedule.state.note == "for now"
    await handle.unpause()
