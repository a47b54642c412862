"""Who did what to runs, questions and schedules stands in the audit log, from before it was done."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.http.audited_acts import audited
from api.runs.steering_service import steer_run
from api.temporal import Temporal
from schema.errors import Unavailable
from schema.settings import Settings
from schema.temporal.runs import Steer
from tests.integration.runs.test_collaboration import unique
from tests.support.api_client import door
from tests.support.runs import begin, rows
from tests.support.stack import Stack

DEFINITION = {"name": "one", "steps": {"ask": {"kind": "transform", "value": "${input}"}}}
LOG = (
    "SELECT actor, action, detail ->> 'state' FROM audit_log"
    " WHERE subject = :subject AND detail ? 'act' ORDER BY id"
)


@pytest.fixture
async def http(settings: Settings, temporal_client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


async def log(engine: AsyncEngine, subject: str) -> list[tuple[Any, ...]]:
    return await rows(engine, LOG, subject=subject)


async def started(http: httpx.AsyncClient, id: str) -> str:
    (await http.post("/v1/definitions", json=DEFINITION)).raise_for_status()
    body = {"definition": "one", "input": {}, "id": id}
    answer = await http.post("/v1/collaborations", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_start_and_its_end_by_a_person_are_in_the_log(platform: Stack, how: str) -> None:
    name = unique("audited")
    await platform.store({"name": name, "steps": {"rest": {"kind": "wait", "for": "1h"}}})
    async with door(platform.settings) as http:
        started = await http.post("/v1/collaborations", json={"definition": name, "id": name})
        assert started.status_code == 202, started.text
        assert (await http.post(f"/v1/collaborations/{name}/{how}")).status_code == 202
    assert await log(platform.engine, name) == [
        ("local", "run.start", "wanted"),
        ("local", "run.start", "done"),
        ("local", "run.cancel", "wanted"),
        ("local", "run.cancel", "done"),
    ]


async def test_a_start_that_is_refused_is_in_the_log_with_its_code(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    id = await started(http, f"taken-{engine.url.database}")
    again = await http.post("/v1/collaborations", json={"definition": "one", "input": {"a": 1}, "id": id})
    assert again.status_code in (409, 422), again.text
    assert (await log(engine, id))[2:] == [
        ("local", "run.start", "wanted"),
        ("local", "run.start", "refused"),
    ]
    await http.post(f"/v1/collaborations/{id}/cancel")


async def test_a_fork_is_in_the_log(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    request = await begin(engine, {"steps": DEFINITION["steps"]})
    id = f"forked-{engine.url.database}"
    body = {"from": ["ask"], "id": id}
    answer = await http.post(f"/v1/collaborations/{request.collaboration}/fork", json=body)
    assert answer.status_code == 202, answer.text
    assert await log(engine, id) == [("local", "run.fork", "wanted"), ("local", "run.fork", "done")]
    await http.post(f"/v1/collaborations/{id}/cancel")


async def test_each_act_on_a_schedule_is_in_the_log(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    (await http.post("/v1/definitions", json=DEFINITION)).raise_for_status()
    wanted = {"name": "one", "input": {}, "every": "1h", "paused": True}
    made = (await http.post("/v1/schedules", json=wanted)).json()["id"]
    (await http.post(f"/v1/schedules/{made}/resume")).raise_for_status()
    (await http.post(f"/v1/schedules/{made}/pause")).raise_for_status()
    (await http.delete(f"/v1/schedules/{made}")).raise_for_status()
    acts = ("create", "resume", "pause", "remove")
    assert await log(engine, made) == [
        ("local", f"schedule.{act}", state) for act in acts for state in ("wanted", "done")
    ]


class ProcessKill(BaseException):
    """The process ends here."""


async def test_an_act_whose_process_was_killed_has_left_its_row(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    state = http._transport.app.state.facilitair  # type: ignore[attr-defined]

    async def killed() -> None:
        async with audited(state, "default", "user:ada", "run.cancel", "killed"):
            raise ProcessKill

    with pytest.raises(ProcessKill):
        await killed()
    assert await log(engine, "killed") == [("user:ada", "run.cancel", "wanted")]


async def test_speaking_for_somebody_is_in_the_log_before_the_run_is_told(
    http: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = http._transport.app.state.facilitair  # type: ignore[attr-defined]
    request = await begin(engine, {"steps": DEFINITION["steps"]})
    id = f"wf-{request.collaboration}"
    seen: list[Any] = []

    async def away(*_: Any) -> str:
        seen.extend(await log(engine, id))
        raise Unavailable("worker_unavailable", "no worker took it in time")

    monkeypatch.setattr(Temporal, "steer", away)
    with pytest.raises(Unavailable):
        await steer_run(state, "default", "key:1", request.collaboration, "pause", Steer("user:ada"))
    assert seen == [("key:1", "run.speak_for", "wanted")]
    assert await log(engine, id) == [*seen, ("key:1", "run.speak_for", "refused")]
