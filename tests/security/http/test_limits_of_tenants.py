"""Schedules, webhooks and definitions of a tenant are bounded, and what bounds it can be seen."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.money import usage
from schema.rules.size import MAX_TREE_CHILDREN
from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.api_server import served
from tests.support.runs import rows
from tests.support.shell import command

REST: dict[str, Any] = {"steps": {"rest": {"kind": "wait", "for": "1h"}}}


@pytest.fixture
def name() -> str:
    return f"rest-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def http(settings: Settings, engine: AsyncEngine, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Room for two of each; what was scheduled is removed afterwards."""
    # As if counted a moment ago: other tests' schedules are in the same Temporal and of the same tenant.
    async with transaction(engine) as connection:
        await usage.correct(connection, "default", "schedules", 0)
    narrow = {"max_schedules": 2, "max_webhooks": 2, "max_webhook_calls_per_minute": 1}
    async with door(settings.model_copy(update=narrow)) as client:
        await client.post("/v1/definitions", json={**REST, "name": name})
        yield client
        for one in (await client.get("/v1/schedules?limit=200")).json()["items"]:
            if one["name"] == name:
                await client.delete(f"/v1/schedules/{one['id']}")


async def test_many_schedules_at_once_stay_within_the_limit(http: httpx.AsyncClient, name: str) -> None:
    body = {"name": name, "every": "1d", "paused": True}
    first = await http.post("/v1/schedules", json=body)
    answers = await asyncio.gather(*(http.post("/v1/schedules", json=body) for _ in range(5)))
    made = [one for one in (first, *answers) if one.status_code == 201]
    refused = [one for one in answers if one.status_code != 201]
    assert (len(made), len(refused)) == (2, 4)
    for answer in refused:
        assert "FACILITAIR_MAX_SCHEDULES" in problem(answer, 409, "too_many_schedules")["detail"]
    await http.delete(f"/v1/schedules/{made[0].json()['id']}")
    assert (await http.post("/v1/schedules", json=body)).status_code == 201


async def test_schedules_removed_in_temporal_make_room_after_a_minute(
    http: httpx.AsyncClient, engine: AsyncEngine, name: str
) -> None:
    async def post() -> int:
        body = {"name": name, "every": "1d", "paused": True}
        return (await http.post("/v1/schedules", json=body)).status_code

    async with transaction(engine) as connection:
        await connection.exec_driver_sql("UPDATE tenant_usage SET used = 2")
    assert await post() == 409
    async with transaction(engine) as connection:
        # All of Temporal's are then counted anew, and nobody else's may be in the way.
        await connection.exec_driver_sql("UPDATE tenant_usage SET changed_at = now() - interval '2 minutes'")
        there = len((await http.get("/v1/schedules?limit=200")).json()["items"])
    if there < 2:
        assert await post() == 201


async def test_a_schedule_starts_no_more_often_than_it_may(http: httpx.AsyncClient, name: str) -> None:
    for every in ("1s", "9s", "0.5s"):
        body = {"name": name, "every": every, "overlap": "allow_all"}
        told = problem(await http.post("/v1/schedules", json=body), 422, "schedule_invalid")
        assert told["detail"].startswith(f"found every {every!r}; expected 10s up to 366d")
    assert (
        await http.post("/v1/schedules", json={**body, "every": "10s", "paused": True})
    ).status_code == 201


async def test_webhooks_are_bounded_and_so_are_the_calls_of_each(
    http: httpx.AsyncClient, engine: AsyncEngine, name: str
) -> None:
    body = {"name": name, "input": {}}
    answers = await asyncio.gather(*(http.post("/v1/webhooks", json=body) for _ in range(4)))
    made = [one.json() for one in answers if one.status_code == 201]
    assert len(made) == 2
    for answer in answers:
        if answer.status_code != 201:
            assert "FACILITAIR_MAX_WEBHOOKS" in problem(answer, 409, "too_many_webhooks")["detail"]
    calls = [await http.post(urlsplit(one["url"]).path, json={}) for one in (*made, *made)]
    assert [one.status_code for one in calls] == [202, 202, 429, 429]
    assert calls[-1].headers["retry-after"] == "60"
    assert "FACILITAIR_MAX_WEBHOOK_CALLS_PER_MINUTE" in problem(calls[-1], 429, "too_many_calls")["detail"]
    await http.delete(f"/v1/webhooks/{made[0]['id']}")
    assert await rows(engine, "SELECT subject FROM tenant_rates WHERE subject LIKE 'webhook/%'") == [
        (f"webhook/{made[1]['id']}",)
    ]
    assert (await http.post("/v1/webhooks", json=body)).status_code == 201


async def test_definitions_take_no_more_room_than_there_is(settings: Settings, engine: AsyncEngine) -> None:
    async with door(settings.model_copy(update={"max_definition_bytes": 150})) as http:
        first = {**REST, "name": "first"}
        assert (await http.post("/v1/definitions", json=first)).status_code == 201
        told = problem(
            await http.post("/v1/definitions", json={**REST, "name": "second", "description": "x" * 50}),
            409,
            "definitions_full",
        )
        assert "FACILITAIR_MAX_DEFINITION_BYTES" in told["detail"]
        # What is stored already takes no more room.
        assert (await http.post("/v1/definitions", json=first)).status_code == 200
    assert await rows(engine, "SELECT name, octet_length(source) FROM workflows") == await rows(
        engine, "SELECT 'first', used FROM tenant_usage WHERE subject = 'definition_bytes'"
    )


async def test_a_bucket_fills_by_the_minute_and_holds_no_more(engine: AsyncEngine) -> None:
    async def take(wanted: int) -> bool:
        async with transaction(engine) as connection:
            return await usage.take_tokens(connection, "default", "starts", 60, wanted)

    assert [await take(60), await take(1)] == [True, False]
    # A second brings one, an hour no more than the bucket holds, a clock that was set back takes none away.
    cases = ((3, [2, 1, 1], [True, True, False]), (-5, [1], [False]), (3_600, [60, 1], [True, False]))
    for seconds, wanted, taken in cases:
        async with transaction(engine) as connection:
            await connection.exec_driver_sql(
                f"UPDATE tenant_rates SET refilled_at = now() - interval '{seconds} s'"
            )
        assert [await take(one) for one in wanted] == taken


async def test_what_bounds_a_tenant_is_shown(settings: Settings, name: str) -> None:
    async with served(settings) as api:
        await api.http.post("/v1/definitions", json={**REST, "name": name})
        items = (await api.http.get("/v1/bounds")).json()["items"]
        shown = await command("limits", "--url", f"http://127.0.0.1:{api.port}")
    source = len('{"name": "", "steps": {"rest": {"kind": "wait", "for": "1h"}}}') + len(name)
    assert {one["name"]: (one["setting"], one["limit"], one["used"]) for one in items} == {
        "starts_per_minute": ("FACILITAIR_MAX_STARTS_PER_MINUTE", 6_000, 0),
        "running_runs": ("FACILITAIR_MAX_RUNNING_RUNS", 20_000, 0),
        "sub_collaborations": ("FACILITAIR_MAX_SUB_COLLABORATIONS", MAX_TREE_CHILDREN, None),
        "schedules": ("FACILITAIR_MAX_SCHEDULES", 200, 0),
        "schedule_seconds": ("FACILITAIR_MIN_SCHEDULE_SECONDS", 10, None),
        "overlapping_runs": ("FACILITAIR_MAX_OVERLAPPING_RUNS", 100, None),
        "webhooks": ("FACILITAIR_MAX_WEBHOOKS", 200, 0),
        "webhook_calls_per_minute": ("FACILITAIR_MAX_WEBHOOK_CALLS_PER_MINUTE", 600, None),
        "definition_bytes": ("FACILITAIR_MAX_DEFINITION_BYTES", 1 << 30, source),
    }
    assert all(one["setting"] in shown for one in items)
