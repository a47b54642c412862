"""No answer grows with what a tenant has stored: lists come by pages, or are bounded by what they list."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from db.engine import transaction
from schema.settings import Settings
from tests.support.api_client import problem
from tests.support.api_server import ApiServer, served
from tests.support.runs import TRACEPARENT, begin
from tests.support.shell import command

REST: dict[str, Any] = {"steps": {"rest": {"kind": "wait", "for": "1h"}}}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiServer]:
    async with served(settings) as found:
        yield found


async def run_with(engine: AsyncEngine, attempts: int, spans: int = 0, span_bytes: int = 1) -> str:
    """A run with so many attempts at steps, some of which began at the same moment."""
    request = await begin(engine, REST)
    async with transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO agent_executions (id, collaboration_id, path, step_id, kind, attempt,"
                " agent_name, model_id, status, started_at, completed_at, output)"
                " SELECT gen_random_uuid(), :run, 'l[' || n || '].a', 'a', 'transform', 1, 'a', '',"
                " 'completed', now() + (n / 7) * interval '1 ms', now(), '\"x\"'"
                " FROM generate_series(1, :count) AS n"
            ),
            {"run": request.collaboration, "count": attempts},
        )
        await connection.execute(
            text(
                "INSERT INTO spans (trace_id, span_id, parent_id, name, kind, service, started_at, ended_at,"
                " status, attributes, tenant_id, collaboration_id)"
                " SELECT :trace, to_char(n, 'FM000000'), NULL, 'a', 'INTERNAL', 's',"
                " now() + (n / 7) * interval '1 ms', now() + interval '1 h', 'OK',"
                " jsonb_build_object('text', repeat('x', :bytes)), 'default', :run"
                " FROM generate_series(1, :count) AS n"
            ),
            {
                "trace": TRACEPARENT.split("-")[1],
                "run": request.collaboration,
                "count": spans,
                "bytes": span_bytes,
            },
        )
    return request.collaboration


async def pages(api: ApiServer, path: str, key: str, **query: Any) -> list[list[Any]]:
    found, place = [], ""
    while True:
        answer = await api.http.get(path, params={**query, **({"after": place} if place else {})})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[key])
        place = answer.json()["next"]
        if not place:
            return found


async def test_a_run_of_thousands_of_steps_comes_by_pages(engine: AsyncEngine, api: ApiServer) -> None:
    run = await run_with(engine, 2_500)
    found = await pages(api, f"/v1/collaborations/{run}", "steps")
    assert [len(page) for page in found] == [1_000, 1_000, 500]
    steps = [one for page in found for one in page]
    assert {one["path"] for one in steps} == {f"l[{n}].a" for n in range(1, 2_501)}
    assert [one["started_at"] for one in steps] == sorted(one["started_at"] for one in steps)
    cut = await pages(api, f"/v1/collaborations/{run}", "steps", limit=900)
    assert [one for page in cut for one in page] == steps
    problem(await api.http.get(f"/v1/collaborations/{run}?limit=1001"), 422, "request_invalid")
    problem(await api.http.get(f"/v1/collaborations/{run}?after=x"), 422, "cursor_wrong")


async def test_an_ordinary_run_comes_whole(engine: AsyncEngine, api: ApiServer) -> None:
    run = await run_with(engine, 1_000, spans=1_000)
    for path, key in ((f"/v1/collaborations/{run}", "steps"), (f"/v1/collaborations/{run}/trace", "spans")):
        assert [len(page) for page in await pages(api, path, key)] == [1_000]


async def test_a_trace_comes_by_pages_of_so_many_spans_and_bytes(engine: AsyncEngine, api: ApiServer) -> None:
    run = await run_with(engine, 1, spans=2_300)
    found = await pages(api, f"/v1/collaborations/{run}/trace", "spans")
    assert [len(page) for page in found] == [1_000, 1_000, 300]
    assert [one["span_id"] for page in found for one in page] == [f"{n:06}" for n in range(1, 2_301)]
    problem(await api.http.get(f"/v1/collaborations/{run}/trace?after=eA"), 422, "cursor_wrong")


async def test_large_spans_make_pages_shorter(engine: AsyncEngine, api: ApiServer) -> None:
    run = await run_with(engine, 1, spans=5, span_bytes=1_500_000)
    found = await pages(api, f"/v1/collaborations/{run}/trace", "spans")
    assert [len(page) for page in found] == [2, 2, 1]
    assert [one["span_id"] for page in found for one in page] == [f"{n:06}" for n in range(1, 6)]


async def test_commands_follow_the_pages(engine: AsyncEngine, api: ApiServer) -> None:
    run = await run_with(engine, 1_001, spans=1_001)
    url = f"http://127.0.0.1:{api.port}"
    for what, key in (("show", "steps"), ("trace", "spans")):
        assert len(json.loads(await command(what, run, "--url", url, "--json"))[key]) == 1_001


# Lists without pages, each bounded by something else.
WITHOUT_PAGES = {
    "/v1/analytics": "days, models and agents, the largest ones of each",
    "/v1/bounds": "as many as there are settings",
    "/v1/catalogue": "schema.rules.catalogue.MAX_OWN of each kind",
    "/v1/collaborations/{id}/steps/{step}/details": "a step's attempts, without their outputs",
    "/v1/definitions/{name}/aliases": "db.definitions.aliases.MAX_ALIASES",
    "/v1/definitions/{name}/diff": "the steps and agents of two documents",
    "/v1/definitions/{name}/edges": "the edges of a document",
    "/v1/definitions/{name}/plan": "the steps of a document",
    "/v1/graph/queries": "files of the platform",
    "/v1/prices/{model}": "the last 100 versions",
    "/v1/prompts/{name}/diff": "the fields of a prompt",
    "/v1/router": "the models that are left alone, the last trainings",
    "/v1/router/model-info": "the models and categories of a checkpoint",
    "/v1/router/trainings/{id}": "the epochs of a training",
    "/v1/schedules/{id}": "the next five times, Temporal's last ten runs",
    "/v1/tasks/{id}": "as many decisions as approvals were asked for",
}


def test_every_list_has_pages_or_a_named_bound() -> None:
    schema = create_app(Settings()).openapi()
    schemas = schema["components"]["schemas"]

    def has_list(shape: dict[str, Any], depth: int = 0) -> bool:
        if "$ref" in shape:
            shape = schemas[shape["$ref"].rpartition("/")[2]]
        if shape.get("type") == "array":
            return True
        return depth < 1 and any(has_list(one, depth + 1) for one in shape.get("properties", {}).values())

    without = set()
    for path, methods in schema["paths"].items():
        operation = methods.get("get", {})
        answer = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
        asked = {given["name"] for given in operation.get("parameters", [])}
        if has_list(answer.get("schema", {})) and "limit" not in asked:
            without.add(path)
    assert without == WITHOUT_PAGES.keys()


async def test_a_definition_has_no_more_aliases_than_it_may(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.definitions.aliases.MAX_ALIASES", 2)
    await api.http.post("/v1/definitions", json={**REST, "name": "rest"})

    async def put(alias: str) -> httpx.Response:
        return await api.http.put(f"/v1/definitions/rest/aliases/{alias}", json={"version": 1})

    assert [(await put(alias)).status_code for alias in ("a", "b", "a")] == [200, 200, 200]
    problem(await put("c"), 422, "too_many_aliases")
