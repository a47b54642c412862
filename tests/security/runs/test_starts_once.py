"""Starting a run is done once, however often it is asked for and whatever dies meanwhile."""

import asyncio
import hashlib
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.runs import rows
from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[3]
RUNS = "/v1/collaborations"


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with door(platform.settings) as client:
        yield client


@pytest.fixture
async def name(platform: Stack) -> str:
    name = f"once-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": name, "steps": {"a": {"kind": "transform", "value": "${input.n}"}}})
    return name


async def _ended(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            run: dict[str, Any] = (await http.get(f"{RUNS}/{id}")).json()
            if run.get("status") not in ("running", None):
                return run
            await asyncio.sleep(0.05)


async def _number_of_runs(client: Client, name: str) -> int:
    """What Temporal has of a definition, whose lists may be a moment behind."""
    return len([one async for one in client.list_workflows(f"WorkflowType = '{name}'")])


async def test_the_same_request_under_an_id_finds_its_run_also_after_the_end(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    body = {"definition": name, "input": {"n": 1}, "id": f"{name}.1"}
    first = await http.post(RUNS, json=body)
    run = await _ended(http, f"{name}.1")
    again = await http.post(RUNS, json=dict(reversed(body.items())))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["status"] == "running"
    assert again.json() == first.json() | {"status": "repeated"}
    assert again.headers["location"] == first.headers["location"]
    assert (await http.get(f"{RUNS}/{name}.1")).json() == run
    problem(await http.post(RUNS, json=body | {"input": {"n": 2}}), 409, "collaboration_exists")
    problem(await http.post(RUNS, json=body | {"definition": f"{name}@1"}), 409, "collaboration_exists")
    known = "SELECT count(*) FROM collaborations WHERE temporal_workflow_id = :id"
    assert await rows(platform.engine, known, id=f"{name}.1") == [(1,)]


async def test_a_key_starts_one_run_and_takes_one_body(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    headers, body = {"Idempotency-Key": uuid.uuid4().hex}, {"definition": name, "input": {"n": 1}}
    at_once = await asyncio.gather(*(http.post(RUNS, json=body, headers=headers) for _ in range(8)))
    assert [one.status_code for one in at_once] == [202] * 8
    assert sorted(one.json()["status"] for one in at_once) == ["repeated"] * 7 + ["running"]
    [id] = {one.json()["id"] for one in at_once}
    await _ended(http, id)
    again = await http.post(RUNS, json=body, headers=headers)
    assert (again.json()["id"], again.json()["status"]) == (id, "repeated")
    told = problem(
        await http.post(RUNS, json=body | {"input": {"n": 2}}, headers=headers), 422, "idempotency_key_reused"
    )
    assert told["detail"] == (
        "found an Idempotency-Key that came before with another request; expected the same definition and "
        "input again, or a new key."
    )
    other = await http.post(RUNS, json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
    assert other.json()["id"] != id
    # Every process of the platform computes the same, and another platform does not.
    async with door(platform.settings) as second:
        assert (await second.post(RUNS, json=body, headers=headers)).json()["id"] == id


async def test_a_refused_request_takes_neither_its_key_nor_its_id(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    strict = f"{name}-strict"
    await platform.store(
        {
            "name": strict,
            "input": {"type": "object", "required": ["n"]},
            "steps": {"a": {"kind": "transform", "value": 1}},
        }
    )
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for more, how in (({}, headers), ({"id": f"{name}.2"}, {})):
        body = {"definition": strict, **more}
        problem(await http.post(RUNS, json=body, headers=how), 422, "input_invalid")
        started = await http.post(RUNS, json=body | {"input": {"n": 1}}, headers=how)
        assert (started.status_code, started.json()["status"]) == (202, "running")


async def test_a_fork_and_a_rerun_under_an_id_are_begun_once(
    http: httpx.AsyncClient, name: str, platform: Stack
) -> None:
    await http.post(RUNS, json={"definition": name, "input": {"n": 1}, "id": f"{name}.3"})
    await _ended(http, f"{name}.3")
    fork = {"from": ["a"], "id": f"{name}.fork"}
    first, again = [await http.post(f"{RUNS}/{name}.3/fork", json=fork) for _ in range(2)]
    assert again.json() == first.json() | {"status": "repeated"}
    problem(
        await http.post(f"{RUNS}/{name}.3/fork", json=fork | {"input": {"n": 2}}), 409, "collaboration_exists"
    )
    await http.post(RUNS, json={"definition": name, "id": f"{name}.4"})
    assert (await _ended(http, f"{name}.4"))["status"] == "failed"
    first, again = [await http.post(f"{RUNS}/{name}.4/rerun", json={"id": f"{name}.rerun"}) for _ in range(2)]
    assert again.json() == first.json() | {"status": "repeated"}


async def test_a_stream_and_a_post_with_one_key_are_one_run(http: httpx.AsyncClient, name: str) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"definition": name, "input": {"task": "x", "n": "1"}}
    id = (await http.post(RUNS, json=body, headers=headers)).json()["id"]
    await _ended(http, id)
    query = {"definition": name, "task": "x", "n": "1"}
    told = await http.get("/stream/collaborate", params=query, headers=headers)
    assert f'"{id}"' in told.text
    other = await http.get("/stream/collaborate", params=query | {"task": "y"}, headers=headers)
    problem(other, 422, "idempotency_key_reused")


async def test_nobody_takes_the_id_of_a_delivery_before_it_comes(http: httpx.AsyncClient, name: str) -> None:
    """The audit: the id was a hash of what a webhook's list shows and of the delivery's key."""
    made = (await http.post("/v1/webhooks", json={"name": name})).json()
    hook, key = made["id"], "delivery-1"
    guessed = f"{name}-{hashlib.sha256(f'{hook}/{key}'.encode()).hexdigest()[:20]}"
    squat = {"definition": name, "input": {"n": 0}, "id": guessed}
    assert (await http.post(RUNS, json=squat)).status_code == 202
    path = made["url"].removeprefix("http://127.0.0.1")
    delivered = await http.post(path, json={"n": 1}, headers={"Idempotency-Key": key})
    assert (delivered.status_code, delivered.json()["status"]) == (202, "running")
    assert delivered.json()["id"] != guessed
    run = await _ended(http, delivered.json()["id"])
    assert run["status"] == "completed"


@asynccontextmanager
async def _api(settings: Settings, environment: dict[str, str]) -> AsyncIterator[tuple[str, Any]]:
    """(address, process) of an API that may be killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {**os.environ, **environment, "DATABASE_URL": settings.database_url, "FACILITAIR_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api",
        cwd=ROOT,
        env=given,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while True:
                with suppress(httpx.TransportError):
                    # With its connections made, so that a kill meets the start itself.
                    if (await http.get(f"http://127.0.0.1:{port}/health/ready")).is_success:
                        break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize(("milliseconds", "named"), [(3, "key"), (12, "id"), (40, "key"), (None, "id")])
async def test_a_start_whose_api_is_killed_is_asked_for_again_and_begins_once(
    platform: Stack, http: httpx.AsyncClient, name: str, named: str, milliseconds: int | None
) -> None:
    """None: killed as soon as Temporal has the run, and before the client hears of it, if it can be."""
    headers = {"Idempotency-Key": uuid.uuid4().hex} if named == "key" else {}
    body = {"definition": name, "input": {"n": 1}} | ({"id": f"{name}.k"} if named == "id" else {})

    async def asked(client: httpx.AsyncClient, address: str) -> httpx.Response | None:
        try:
            return await client.post(f"{address}{RUNS}", json=body, headers=headers)
        except httpx.TransportError:
            return None

    environment = dict(platform.supervisor.environment)
    async with (
        _api(platform.settings, environment) as (address, process),
        httpx.AsyncClient(timeout=30) as client,
    ):
        asking = asyncio.create_task(asked(client, address))
        if milliseconds is None:
            async with asyncio.timeout(30):
                while not await _number_of_runs(platform.client, name):
                    await asyncio.sleep(0)
        else:
            await asyncio.wait([asking], timeout=milliseconds / 1000)
        process.kill()
        answered = await asking
    # Another process of the API answers, which knows nothing of the first one's request.
    again = await http.post(RUNS, json=body, headers=headers)
    assert again.status_code == 202, again.text
    id = again.json()["id"]
    assert answered is None or answered.json()["id"] == id
    run = await _ended(http, id)
    assert (run["status"], run["name"]) == ("completed", name)
    known = "SELECT count(*) FROM collaborations JOIN workflows w ON w.id = workflow_id WHERE w.name = :name"
    assert await rows(platform.engine, known, name=name) == [(1,)]
    assert (await platform.client.get_workflow_handle(id).describe()).status is (
        WorkflowExecutionStatus.COMPLETED
    )
    assert await _number_of_runs(platform.client, name) <= 1
