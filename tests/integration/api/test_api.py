"""The HTTP door on real servers."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from temporalio.client import Client

from api.app import create_app
from schema.settings import Settings
from tests.support.stack import Stack

_HELLO: dict[str, Any] = {
    "name": "hello",
    "input": {
        "type": "object",
        "required": ["task"],
        "properties": {"task": {"type": "string"}},
        "additionalProperties": False,
    },
    "steps": {
        "shout": {"kind": "transform", "value": {"text": "${input.task}!"}},
        "twice": {"kind": "transform", "value": "${steps.shout.output.text}${steps.shout.output.text}"},
    },
    "output": "${steps.twice.output}",
}


@asynccontextmanager
async def _door(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield client


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API over this test's own database."""
    async with _door(settings) as client:
        yield client


@pytest.fixture
async def running(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """The API over the database that the platform's worker serves."""
    async with _door(platform.settings) as client:
        yield client


async def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    return dict(answer.json())


async def _until(client: httpx.AsyncClient, id: str, **wanted: str) -> dict[str, Any]:
    for _ in range(600):
        found: dict[str, Any] = (await client.get(f"/v1/collaborations/{id}")).json()
        if all(found.get(key) == value for key, value in wanted.items()):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{id} is {found['status']} {found['sub_state']}, not {wanted}")


# -- definitions ------------------------------------------------------------------------------------


async def test_the_same_content_is_the_same_version(http: httpx.AsyncClient) -> None:
    first = await http.post("/v1/definitions", json=_HELLO)
    assert first.status_code == 201
    assert first.json()["version"] == 1
    assert first.json()["inferred"] == {"twice": ["shout"]}
    again = await http.post("/v1/definitions", json=dict(reversed(_HELLO.items())))
    assert again.status_code == 200
    assert again.json() == first.json() | {"created": False}
    other = await http.post("/v1/definitions", json=_HELLO | {"description": "new"})
    assert (other.status_code, other.json()["version"]) == (201, 2)
    assert other.headers["location"] == "/v1/definitions/hello?version=2"

    old = await http.get("/v1/definitions/hello", params={"version": 1})
    assert old.json()["definition"] == _HELLO
    etag = first.headers["etag"]
    assert old.headers["etag"] == etag
    assert (
        await http.get(old.request.url.path + "?version=1", headers={"If-None-Match": etag})
    ).status_code == 304
    await _problem(await http.get("/v1/definitions/hello?version=9"), 404, "definition_unknown")


async def test_yaml_and_short_form(http: httpx.AsyncClient) -> None:
    yaml = "name: from-yaml\nsteps:\n  a: {kind: transform, value: 1}\n"
    answer = await http.post("/v1/definitions", content=yaml, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 201
    short = [{"agent": "coder", "stream_to": ["reviewer"]}]
    answer = await http.post("/v1/definitions", json=short, params={"name": "short"})
    assert (answer.status_code, answer.json()["name"]) == (201, "short")


async def test_validate_stores_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/definitions/validate", json=_HELLO)
    assert answer.json() == {
        "valid": True,
        "name": "hello",
        "steps": 2,
        "inferred": {"twice": ["shout"]},
        "warnings": [],
    }
    assert (await http.get("/v1/definitions")).json()["items"] == []


async def test_every_problem_is_told_at_once(http: httpx.AsyncClient) -> None:
    bad = {"name": "Bad", "steps": {"a": {"kind": "nope"}, "b": {"kind": "transform"}}}
    told = await _problem(await http.post("/v1/definitions", json=bad), 422, "definition_invalid")
    assert {(one["code"], one["pointer"]) for one in told["problems"]} >= {
        ("value_wrong", "/name"),
        ("kind_unknown", "/steps/a/kind"),
    }
    assert (await http.get("/v1/definitions")).json()["items"] == []


async def test_lists_are_paged(http: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await http.post("/v1/definitions", json=_HELLO | {"name": name})
    names: list[str] = []
    after = ""
    while True:
        page = (await http.get("/v1/definitions", params={"limit": 2, "after": after})).json()
        names += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert names == ["a", "b", "c"]


async def test_versions_diff_and_plan(http: httpx.AsyncClient) -> None:
    await http.post("/v1/definitions", json=_HELLO)
    changed = _HELLO | {"steps": _HELLO["steps"] | {"shout": {"kind": "transform", "value": "${input.task}"}}}
    changed["steps"]["twice"] = {"kind": "transform", "value": "${steps.shout.output}", "priority": 1}
    await http.post("/v1/definitions", json=changed)
    page = (await http.get("/v1/definitions/hello/versions?limit=1")).json()
    assert ([one["version"] for one in page["items"]], page["next"]) == ([2], "2")
    diff = (await http.get("/v1/definitions/hello/diff?from=1&to=2")).json()
    assert (diff["from"], diff["to"]) == (1, 2)
    assert [(one["op"], one["path"]) for one in diff["changes"]] == [
        ("replace", "/steps/shout/value"),
        ("replace", "/steps/twice/value"),
        ("add", "/steps/twice/priority"),
    ]
    assert "--- hello@1" in diff["text"]
    plan = (await http.get("/v1/definitions/hello/plan")).json()
    assert [(one["id"], one["needs"], one["inferred"]) for one in plan["steps"]] == [
        ("shout", [], []),
        ("twice", ["shout"], ["shout"]),
    ]
    assert "s_shout --> s_twice" in plan["mermaid"]


async def test_the_language_is_published(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/schema")
    assert answer.headers["content-type"] == "application/schema+json"
    assert answer.json()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


# -- what is refused --------------------------------------------------------------------------------


async def test_ten_megabytes_are_refused_without_being_kept(http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    for path, code in (("/v1/definitions", "document_too_large"), ("/v1/collaborations", "body_too_large")):
        answer = await http.post(path, content=body(), headers={"Content-Type": "application/json"})
        await _problem(answer, 413, code)


async def test_a_wrong_start_is_refused_at_the_door(http: httpx.AsyncClient) -> None:
    await http.post("/v1/definitions", json=_HELLO)

    async def start(body: Any) -> httpx.Response:
        return await http.post("/v1/collaborations", json=body)

    told = await _problem(await start({"definition": "hello", "input": {"tsk": 1}}), 422, "input_invalid")
    assert {one["pointer"] for one in told["problems"]} == {"/input"}
    told = await _problem(await start({"definition": "hello", "input": {"task": 1}}), 422, "input_invalid")
    assert told["problems"][0]["pointer"] == "/input/task"
    await _problem(await start({"definition": "nope"}), 404, "definition_unknown")
    await _problem(await start({"definition": "hello@7", "input": {"task": "x"}}), 404, "definition_unknown")
    await _problem(await start({"definition": "../x"}), 422, "request_invalid")
    await _problem(await start({"definition": "hello", "extra": 1}), 422, "request_invalid")
    await _problem(await start([]), 422, "request_invalid")
    plain = await http.post("/v1/collaborations", content=b"{}", headers={"Content-Type": "text/plain"})
    await _problem(plain, 415, "media_type_unsupported")
    twice = await http.post(
        "/v1/collaborations", content=b'{"a":1,"a":2}', headers={"Content-Type": "application/json"}
    )
    assert (await _problem(twice, 422, "request_invalid"))["problems"][0]["code"] == "document_duplicate_key"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing",
        "/v1/definitions/nope",
        "/v1/definitions/nope/versions",
        "/v1/definitions/nope/plan",
        "/v1/definitions/nope/diff?from=1",
        "/v1/collaborations/nope",
        "/v1/collaborations/nope/trace",
        "/v1/collaborations/nope/events",
        "/v1/collaborations/nope/steps/a",
    ],
)
async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"].endswith("_unknown")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/definitions/%00",
        "/v1/definitions/a?version=99999999999",
        "/v1/definitions?limit=0",
        "/v1/definitions?after=%00",
        "/v1/collaborations?after=zzz",
        "/v1/collaborations?status=odd",
        "/v1/collaborations?name=%00",
        "/v1/collaborations/%00",
        "/v1/collaborations/a?include=all",
        "/v1/definitions/a/diff",
        "/v1/collaborations/a/steps/%00",
    ],
)
async def test_odd_requests_are_refused_and_do_no_harm(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (404, 422)


async def test_a_field_of_the_query_that_no_operation_has_is_refused(http: httpx.AsyncClient) -> None:
    """At every address that only reads, as they are; one that takes what it gets is named."""
    for path, methods in (await http.get("/openapi.json")).json()["paths"].items():
        if "get" in methods and path != "/v1/stream/collaborate":
            answer = await http.get(path, params={"definitoin": "hello"})
            told = await _problem(answer, 422, "request_invalid")
            assert "definitoin" in told["detail"]
    told = (await http.get("/v1/collaborations", params={"nam": "hello"})).json()
    assert "Did you mean 'name'?" in told["detail"]


async def test_the_type_of_a_problem_leads_to_its_explanation(http: httpx.AsyncClient) -> None:
    for path in ("/nowhere", "/v1/collaborations/none", "/v1/definitions/x/versions/1"):
        answer = await http.get(path)
        page, _, anchor = answer.json()["type"].partition("#")
        explained = await http.get(str(answer.url.join(page)))
        assert explained.headers["content-type"].startswith("text/markdown")
        assert f'<a id="{anchor}"></a>' in explained.text


async def test_every_address_but_health_wants_the_key(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_key": "secret"}))
    async with _door(settings.model_copy(update={"api_key": "secret"})) as http:
        for route in app.routes:
            if not isinstance(route, APIRoute):
                continue
            for method in route.methods or ():
                answer = await http.request(method, route.path.replace("{", "").replace("}", ""))
                if "/health/" in route.path and not route.path.endswith("projections"):
                    assert answer.status_code in (200, 503)
                elif route.path.startswith("/hooks/"):  # whoever knows a webhook's address may call it
                    await _problem(answer, 404, "webhook_unknown")
                else:
                    await _problem(answer, 401, "api_key_wrong")
        assert (await http.get("/openapi.json")).status_code == 401
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            assert (await http.get("/v1/definitions", headers=headers)).status_code == 200
        await _problem(
            await http.get("/v1/definitions", headers={"X-API-Key": "secre"}), 401, "api_key_wrong"
        )


async def test_without_a_key_a_web_page_cannot_reach_it(http: httpx.AsyncClient) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        await _problem(await http.get("/v1/definitions", headers=headers), 403, "origin_refused")


def test_it_does_not_listen_to_the_world_without_a_key() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        env={**os.environ, "FACILITAIR_HOST": "0.0.0.0", "FACILITAIR_API_KEY": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "FACILITAIR_API_KEY" in done.stderr


# -- health -----------------------------------------------------------------------------------------


async def test_ready_when_what_is_required_answers(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health/ready")
    checks = answer.json()["checks"]
    assert answer.status_code == 200
    assert {name for name, check in checks.items() if check["required"]} == {"postgres", "temporal"}
    assert checks["postgres"]["milliseconds"] > 0


async def test_live_but_not_ready_with_temporal_away(settings: Settings) -> None:
    async with _door(settings.model_copy(update={"temporal_address": "127.0.0.1:9"})) as http:
        assert (await http.get("/health/live")).status_code == 200
        answer = await http.get("/v1/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["temporal"]["ok"] is False
        assert answer.json()["checks"]["postgres"]["ok"] is True
        await http.post("/v1/definitions", json=_HELLO)
        start = await http.post("/v1/collaborations", json={"definition": "hello", "input": {"task": "x"}})
        await _problem(start, 503, "temporal_unavailable")
        assert start.headers["retry-after"]


async def test_live_but_not_ready_with_postgres_away(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/nothing"})
    async with _door(away) as http:
        assert (await http.get("/v1/health/live")).status_code == 200
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["postgres"]["ok"] is False
        await _problem(await http.get("/v1/definitions"), 503, "postgres_unavailable")


async def test_a_database_without_tables_is_said(settings: Settings, empty_postgres_url: str) -> None:
    async with _door(settings.model_copy(update={"database_url": empty_postgres_url})) as http:
        await _problem(await http.get("/v1/definitions"), 503, "database_not_migrated")


async def test_the_openapi_document_is_complete(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    text = (await http.get("/openapi.json")).text
    references = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in references
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["tags"], path
            assert operation.get("description"), path


# -- collaborations ---------------------------------------------------------------------------------


async def test_a_run_from_start_to_output(running: httpx.AsyncClient) -> None:
    name = f"hello-{uuid.uuid4().hex[:8]}"
    await running.post("/v1/definitions", json=_HELLO | {"name": name})
    answer = await running.post("/v1/collaborations", json={"definition": name, "input": {"task": "hi"}})
    assert answer.status_code == 202
    id = answer.json()["id"]
    assert id.startswith(f"{name}-")
    assert answer.headers["location"] == answer.json()["links"]["self"] == f"/v1/collaborations/{id}"

    ended = await _until(running, id, status="completed")
    assert [(one["step"], one["status"], one["attempt"]) for one in ended["steps"]] == [
        ("shout", "completed", 1),
        ("twice", "completed", 1),
    ]
    assert "output" not in ended
    whole = (await running.get(f"/v1/collaborations/{id}?include=input,output")).json()
    assert (whole["input"], whole["output"]) == ({"task": "hi"}, "hi!hi!")
    assert (await running.get(f"/v1/collaborations/{ended['run_id']}")).json()["id"] == id
    step = (await running.get(f"/v1/collaborations/{id}/steps/shout")).json()
    assert step == {"step": "shout", "status": "completed", "model": "", "output": {"text": "hi!"}}

    listed = (await running.get("/v1/collaborations", params={"name": name})).json()
    assert [one["id"] for one in listed["items"]] == [id]
    first = (await running.get(f"/v1/collaborations/{id}/events?limit=2")).json()
    rest = (await running.get(f"/v1/collaborations/{id}/events", params={"after": first["next"]})).json()
    types = [one["type"] for one in first["items"] + rest["items"]]
    assert types == ["CollaborationStarted", "StepFinished", "StepFinished", "CollaborationFinished"]
    late = await running.post(f"/v1/collaborations/{id}/cancel")
    await _problem(late, 409, "collaboration_ended")


async def test_runs_are_paged_newest_first(running: httpx.AsyncClient) -> None:
    name = f"hello-{uuid.uuid4().hex[:8]}"
    await running.post("/v1/definitions", json=_HELLO | {"name": name})
    ids = [f"{name}.{number}" for number in range(3)]
    for id in ids:
        await running.post("/v1/collaborations", json={"definition": name, "input": {"task": "x"}, "id": id})
        await _until(running, id, status="completed")
    found: list[str] = []
    query: dict[str, str | int] = {"name": name, "limit": 2, "status": "completed"}
    while True:
        page = (await running.get("/v1/collaborations", params=query)).json()
        found += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == ids[::-1]


async def test_a_running_one_keeps_its_id_and_can_be_cancelled(running: httpx.AsyncClient) -> None:
    name = f"waits-{uuid.uuid4().hex[:8]}"
    steps = {"a": {"kind": "tool", "activity": "x", "task_queue": name, "timeout": "1h"}}
    await running.post("/v1/definitions", json={"name": name, "steps": steps})
    body = {"definition": name, "id": f"{name}.1"}
    assert (await running.post("/v1/collaborations", json=body)).status_code == 202
    other = await running.post("/v1/collaborations", json=body | {"input": {"b": 1}})
    await _problem(other, 409, "collaboration_exists")
    await _until(running, body["id"], status="running", sub_state="")
    missing = await running.get(f"/v1/collaborations/{body['id']}/steps/a")
    await _problem(missing, 404, "step_output_unknown")
    assert (await running.post(f"/v1/collaborations/{body['id']}/cancel")).status_code == 202
    await _until(running, body["id"], status="failed", sub_state="cancelled")


async def test_a_run_that_was_terminated_in_temporal_does_not_look_alive(
    running: httpx.AsyncClient, temporal_client: Client
) -> None:
    name = f"waits-{uuid.uuid4().hex[:8]}"
    steps = {"a": {"kind": "tool", "activity": "x", "task_queue": name, "timeout": "1h"}}
    await running.post("/v1/definitions", json={"name": name, "steps": steps})
    await running.post("/v1/collaborations", json={"definition": name, "id": name})
    await _until(running, name, status="running", sub_state="")
    await temporal_client.get_workflow_handle(name).terminate()
    ended = await _until(running, name, status="failed")
    assert (ended["sub_state"], ended["error"]["code"]) == ("terminated", "run_terminated")


async def test_a_run_that_never_reached_postgres_is_told_of(http: httpx.AsyncClient, platform: Stack) -> None:
    """The platform's worker has another database: it refuses the run in its first moment."""
    name = f"unknown-{uuid.uuid4().hex[:8]}"
    await http.post("/v1/definitions", json=_HELLO | {"name": name})
    await http.post("/v1/collaborations", json={"definition": name, "input": {"task": "x"}, "id": name})
    ended = await _until(http, name, status="failed")
    assert ended["error"]["code"] == "definition_unknown"
    assert ended["steps"] == []


async def test_another_tenants_run_is_unknown(http: httpx.AsyncClient, temporal_client: Client) -> None:
    from schema.temporal.memo import MEMO_TENANT

    id = f"foreign-{uuid.uuid4().hex[:8]}"
    handle = await temporal_client.start_workflow(
        "x", id=id, task_queue="nobody-serves-this", memo={MEMO_TENANT: "another"}
    )
    for answer in (
        await http.get(f"/v1/collaborations/{id}"),
        await http.post(f"/v1/collaborations/{id}/cancel"),
    ):
        await _problem(answer, 404, "collaboration_unknown")
    await handle.terminate()
