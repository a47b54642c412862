"""Days of waiting for people in seconds: Temporal's clock skips, Postgres' does not."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from db.definitions import definitions
from db.engine import transaction
from infra.local.temporal import binary
from schema.rules.validate import validate
from schema.settings import Settings
from schema.temporal.queues import QUEUE_COLLABORATIONS
from workers.build import _collaborations


@pytest.fixture
async def skipping(settings: Settings) -> AsyncIterator[Client]:
    """A Temporal server that skips to the next timer when nothing else happens, and a worker."""
    environment = await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(binary()),
        dev_server_extra_args=["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"],
    )
    async with (
        environment,
        # Without what `serve` loads for agents, which would take longer than these tests.
        _collaborations(environment.client, settings) as served,
        served.worker,
    ):
        yield environment.client


async def ask(client: Client, engine: AsyncEngine, **step: Any) -> WorkflowHandle[Any, Any]:
    name = f"late-{uuid.uuid4().hex[:8]}"
    asks = {"kind": "human", "title": "Well?", "assignees": ["user:ada"], **step}
    async with transaction(engine) as connection:
        found = validate({"name": name, "steps": {"approve": asks}}).definition
        await definitions.save(connection, "default", found, "test")
    return await client.start_workflow(name, {}, id=name, task_queue=QUEUE_COLLABORATIONS)


async def events(engine: AsyncEngine) -> list[str]:
    query = text("SELECT type FROM outbox WHERE type LIKE 'Human%' ORDER BY seq")
    async with engine.connect() as connection:
        return [row.type.removeprefix("Human") for row in await connection.execute(query)]


async def days(handle: WorkflowHandle[Any, Any]) -> float:
    """How long a run took by Temporal's clock."""
    described = await handle.describe()
    assert described.close_time is not None
    return (described.close_time - described.start_time).total_seconds() / 86_400


async def failure(handle: WorkflowHandle[Any, Any]) -> str | None:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.type


async def test_reminded_for_days_and_then_given_up(skipping: Client, engine: AsyncEngine) -> None:
    handle = await ask(skipping, engine, remind_after="1d", timeout="4d")
    assert await failure(handle) == "human_timeout"
    assert await events(engine) == ["Asked", "Reminded", "Reminded", "Reminded"]
    assert await days(handle) == pytest.approx(4, abs=0.01)


async def test_escalated_reminded_and_given_up(skipping: Client, engine: AsyncEngine) -> None:
    handle = await ask(
        skipping, engine, remind_after="2d", timeout="3d", on_timeout="escalate", escalate_to=["user:boss"]
    )
    assert await failure(handle) == "human_timeout"
    assert await events(engine) == ["Asked", "Reminded", "Escalated", "Reminded"]
    assert await days(handle) == pytest.approx(6, abs=0.01)


async def test_an_action_that_stands_for_no_answer(skipping: Client, engine: AsyncEngine) -> None:
    handle = await ask(skipping, engine, timeout="30d", on_timeout="reject")
    result = await handle.result()
    assert (result["decision"], result["by"]) == ("reject", ["timeout"])
    assert await days(handle) == pytest.approx(30, abs=0.01)
