"""Every door that starts a run passes the tenant's limits, and no door is forgotten."""

import ast
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment
from websockets.asyncio.client import connect

from db.engine import transaction
from schema.errors import TryLater
from schema.settings import Settings
from schema.temporal.memo import BY_TEMPORAL
from schema.temporal.runs import PinRequest
from schema.temporal.steps import StepRequest
from tests.support.api_client import problem
from tests.support.api_server import ApiServer, served
from tests.support.lifecycle import recording
from tests.support.runs import begin, rows

ROOT = Path(__file__).resolve().parents[3]
REST: dict[str, Any] = {"name": "rest", "steps": {"rest": {"kind": "wait", "for": "1h"}}}


@pytest.fixture
def narrow(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_starts_per_minute": 1})


@pytest.fixture
async def api(narrow: Settings) -> AsyncIterator[ApiServer]:
    async with served(narrow) as found:
        yield found


async def drain(engine: AsyncEngine) -> None:
    """Use up what may be started this minute."""
    query = "INSERT INTO tenant_rates VALUES ('default', 'starts', 0, now())"
    async with transaction(engine) as connection:
        await connection.execute(text(query))


async def failed_run(engine: AsyncEngine) -> str:
    request = await begin(engine, REST)
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE collaborations SET status = 'failed'"))
    return request.collaboration


# -- the list of doors ---------------------------------------------------------------------------------


def calls(name: str) -> set[str]:
    """The files of the platform that call something of that name, as `module.name` or `thing.name`."""
    found = set()
    for package in (
        "api",
        "cli",
        "workers",
        "plan",
        "workflows",
        "activities",
        "gateway",
        "router",
        "memory",
        "graph",
    ):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                    found.add(str(file.relative_to(ROOT)))
    return found


def test_runs_are_started_in_the_places_that_are_known() -> None:
    assert calls(".start_workflow") == {
        "api/temporal.py",  # collaborations, behind `starts.start`
        "api/router/learning.py",
        "api/prompts/optimization.py",  # the platform's own, one at a time for a tenant and a prompt
        "workflows/client.py",  # the platform's own
    }
    assert calls(".start_child_workflow") == {"workflows/dispatch.py"}  # counted by `begin_child`
    assert calls(".execute_child_workflow") == {"workflows/learning.py"}  # the platform's own
    assert calls("ScheduleActionStartWorkflow") == {
        "api/runs/schedule_service.py",  # counted by `pin`
        "workflows/client.py",  # the platform's own
    }
    assert calls("temporal.start") == {"api/runs/starts.py"}
    assert calls("starts.start") == {"api/runs/idempotency.py", "api/runs/webhooks.py"}
    assert calls("idempotency.start") == {"api/runs/forks.py"}
    assert calls("idempotency.begin") == {"api/runs/start_and_watch.py", "api/runs/routes.py"}
    assert calls("start_and_watch.begin") == {
        "api/live/chats.py",
        "api/live/sockets.py",
        "api/live/streams.py",
    }


# -- the doors of the API ------------------------------------------------------------------------------


async def test_every_door_of_the_api_refuses_one_start_too_many(engine: AsyncEngine, api: ApiServer) -> None:
    run = await failed_run(engine)
    await api.http.post("/v1/definitions", json=REST)
    hook = (await api.http.post("/v1/webhooks", json={"name": "rest", "input": {}})).json()
    await drain(engine)
    answers = {
        "start": await api.http.post("/v1/collaborations", json={"definition": "rest"}),
        "fork": await api.http.post(f"/v1/collaborations/{run}/fork", json={"from": ["rest"]}),
        "rerun": await api.http.post(f"/v1/collaborations/{run}/rerun", json={}),
        "webhook": await api.http.post(urlsplit(hook["url"]).path, json={}),
        "stream": await api.http.get("/stream/collaborate", params={"task": "x", "definition": "rest"}),
    }
    for answer in answers.values():
        told = problem(answer, 429, "too_many_starts")
        assert "FACILITAIR_MAX_STARTS_PER_MINUTE" in told["detail"]
        assert answer.headers["retry-after"] == "60"
    async with connect(f"ws://127.0.0.1:{api.port}/ws/collaborate?definition=rest") as socket:
        await socket.send("a task")
        assert json.loads(await socket.recv())["code"] == "too_many_starts"
    assert await rows(engine, "SELECT count(*) FROM collaborations") == [(1,)]


async def test_the_limit_counts_what_was_let_in(engine: AsyncEngine, api: ApiServer) -> None:
    await api.http.post("/v1/definitions", json=REST)
    first = await api.http.post("/v1/collaborations", json={"definition": "rest"})
    assert first.status_code == 202
    problem(await api.http.post("/v1/collaborations", json={"definition": "rest"}), 429, "too_many_starts")
    shown = (await api.http.get("/v1/bounds")).json()["items"][0]
    assert (shown["name"], shown["limit"], shown["used"]) == ("starts_per_minute", 1, 1)


async def test_a_tenant_has_no_more_runs_under_way_than_it_may(
    engine: AsyncEngine, settings: Settings
) -> None:
    await begin(engine, REST)
    await begin(engine, REST)
    full = settings.model_copy(update={"max_running_runs": 2})
    async with served(full) as api:
        await api.http.post("/v1/definitions", json=REST)
        answer = await api.http.post("/v1/collaborations", json={"definition": "rest"})
        problem(answer, 429, "too_many_running")
        assert answer.headers["retry-after"] == "10"
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE collaborations SET status = 'completed'"))
        for _ in range(1_000):
            answer = await api.http.post("/v1/collaborations", json={"definition": "rest"})
            if answer.status_code == 202:
                break
        assert answer.status_code == 202


# -- what comes past the API ---------------------------------------------------------------------------


def pin(requested_by: str | None, parent: StepRequest | None = None) -> PinRequest:
    around = {"collaboration": parent.collaboration, "path": parent.path} if parent else None
    return PinRequest(
        f"wf-{uuid.uuid4()}", str(uuid.uuid4()), "rest", {}, "default", None, requested_by, parent=around
    )


async def test_what_comes_past_the_api_is_counted_when_it_is_pinned(
    engine: AsyncEngine, narrow: Settings
) -> None:
    parent = await begin(engine, REST)
    await begin(engine, {**REST, "name": "rest"})
    async with recording(engine, narrow) as record:
        run = ActivityEnvironment().run
        first = pin(None)
        pinned = await run(record.pin, first)
        assert pinned.collaboration == first.first_run_id
        # A worker that died over it asks again, and what the API let in was counted there.
        assert (await run(record.pin, first)).collaboration == first.first_run_id
        for let_in in (pin("local"), pin("webhook:x"), pin("collaboration:x", parent)):
            assert (await run(record.pin, let_in)).collaboration == let_in.first_run_id
        for past in (pin(None), pin("schedule:hourly")):
            with pytest.raises(TryLater) as caught:
                await run(record.pin, past)
            assert (caught.value.code, caught.value.retryable) == ("too_many_starts", False)
    # Two of the test's own, the first one, and the three that were let in elsewhere.
    assert await rows(engine, "SELECT count(*) FROM collaborations") == [(6,)]
    query = "SELECT requested_by FROM collaborations WHERE id = :id"
    assert await rows(engine, query, id=first.first_run_id) == [(BY_TEMPORAL,)]


async def test_a_schedule_has_no_more_runs_under_way_than_it_may(
    engine: AsyncEngine, settings: Settings
) -> None:
    await begin(engine, {**REST, "name": "rest"})
    async with recording(engine, settings.model_copy(update={"max_overlapping_runs": 2})) as record:
        run = ActivityEnvironment().run
        first, second, third = (pin("schedule:hourly") for _ in range(3))
        await run(record.pin, first)
        await run(record.pin, second)
        with pytest.raises(TryLater) as caught:
            await run(record.pin, third)
        assert caught.value.code == "too_many_overlapping"
        other = pin("schedule:daily")
        assert (await run(record.pin, other)).collaboration == other.first_run_id
        assert (await run(record.pin, second)).collaboration == second.first_run_id
