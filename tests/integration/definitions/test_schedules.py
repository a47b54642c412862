"""Collaborations by the clock and by webhook, through the HTTP door into Temporal."""

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleOverlapPolicy, WorkflowHandle
from temporalio.service import RPCError

from api.http.shared_models import ScheduleRequest
from api.runs.schedule_service import Schedules
from api.temporal import Temporal
from db.engine import transaction
from schema.errors import NotFound
from schema.language import cron
from schema.settings import Settings
from schema.temporal.memo import MEMO_REQUESTED_BY, MEMO_TENANT
from tests.support.api_client import door, problem


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    # A person would not have one start every second; a test does not wait ten.
    async with door(settings.model_copy(update={"min_schedule_seconds": 1})) as client:
        yield client


@pytest.fixture
async def name(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """A stored definition that wants a task; its schedules are removed afterwards."""
    name = f"task-{uuid.uuid4().hex[:8]}"
    document = {
        "name": name,
        "input": {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}},
        "steps": {"a": {"kind": "transform", "value": "${input.task}"}},
    }
    assert (await http.post("/v1/definitions", json=document)).status_code == 201
    yield name
    for one in (await http.get("/v1/schedules?limit=200")).json()["items"]:
        if one["name"].startswith(name):
            await http.delete(f"/v1/schedules/{one['id']}")


async def _schedule(http: httpx.AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "every": "1d", "input": {"task": "x"}} | more
    answer = await http.post("/v1/schedules", json={key: one for key, one in body.items() if one is not None})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/schedules/{answer.json()['id']}"
    return dict(answer.json())


async def _listed(http: httpx.AsyncClient, name: str, count: int) -> list[dict[str, Any]]:
    """Temporal's list shows a change a moment later."""
    for _ in range(200):
        items = (await http.get("/v1/schedules?limit=200")).json()["items"]
        mine = [one for one in items if one["name"].startswith(name)]
        if len(mine) == count:
            return mine
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(mine)} schedules, not {count}")


# -- schedules --------------------------------------------------------------------------------------


async def test_a_schedule_says_when_it_starts_what(
    http: httpx.AsyncClient, name: str, temporal_client: Client
) -> None:
    made = await _schedule(
        http,
        f"{name}@1",
        every=None,
        cron="0 9 * * 1-5",
        timezone="Europe/Berlin",
        overlap="buffer_one",
        catch_up="5m",
    )
    assert made["id"].startswith(f"{name}-")
    assert (made["cron"], made["every"], made["timezone"]) == ("0 9 * * 1-5", None, "Europe/Berlin")
    assert (made["overlap"], made["catch_up"], made["paused"]) == ("buffer_one", "5m", False)
    assert (made["input"], made["recent"], made["created_by"]) == ({"task": "x"}, [], "local")
    times = [datetime.fromisoformat(one) for one in made["next"]]
    assert len(times) == 5
    assert all(one.hour in (7, 8) and one.minute == 0 and one.weekday() < 5 for one in times)

    found = await temporal_client.get_schedule_handle(f"default/{made['id']}").describe()
    action = found.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert (action.workflow, action.task_queue) == (f"{name}@1", "collaborations")
    # Nobody who knows the schedule can tell what its next run will be called.
    assert re.fullmatch(rf"{made['id']}-[0-9a-f]{{24}}", action.id)
    assert action.task_timeout == timedelta(seconds=2)
    assert found.schedule.policy.overlap is ScheduleOverlapPolicy.BUFFER_ONE
    assert found.schedule.policy.catchup_window == timedelta(minutes=5)
    listed = await _listed(http, name, 1)
    assert listed == [{key: made[key] for key in listed[0]}]
    assert (await http.get(f"/v1/schedules/{made['id']}")).json() == made


async def test_a_day_fits_by_its_number_or_its_weekday_as_crontab_says(
    http: httpx.AsyncClient, name: str, temporal_client: Client
) -> None:
    made = await _schedule(http, name, every=None, cron="0 9 13 * 5")
    times = [datetime.fromisoformat(one) for one in made["next"]]
    assert len(times) == 5
    assert all(one.day == 13 or one.isoweekday() == 5 for one in times)
    assert [warning for warning in made["warnings"] if "crontab(5)" in warning] == made["warnings"]
    known = cron.parse("0 9 13 * 5")
    first, last = times[0] - timedelta(minutes=1), times[0] + timedelta(days=90)
    minutes = (first + timedelta(minutes=at) for at in range(int((last - first).total_seconds()) // 60))
    assert await _times(temporal_client, made["id"], first, last) == [
        one for one in minutes if known.fits(one)
    ]


@pytest.mark.parametrize(
    ("zone", "clock", "day", "starts"),
    [
        ("Europe/Berlin", "30 2", "2027-03-28", []),
        ("Europe/Berlin", "30 2", "2027-10-31", ["02:30+01:00"]),
        ("Europe/Berlin", "30 2", "2027-05-01", ["02:30+02:00"]),
        ("America/New_York", "30 1", "2027-11-07", ["01:30-04:00", "01:30-05:00"]),
    ],
)
async def test_times_when_the_clock_is_changed(
    http: httpx.AsyncClient,
    name: str,
    temporal_client: Client,
    zone: str,
    clock: str,
    day: str,
    starts: list[str],
) -> None:
    made = await _schedule(http, name, every=None, cron=f"{clock} * * *", timezone=zone)
    begin = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    times = await _times(temporal_client, made["id"], begin, begin + timedelta(hours=23))
    local = [one.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") for one in times]
    assert local == [f"{day}T{start}" for start in starts]


@pytest.mark.parametrize(
    ("zone", "begins", "hours"),
    [
        ("Europe/Berlin", "2027-03-27T22:00Z", [0, 1, 2, 3, 4, 5]),
        ("Europe/Berlin", "2027-10-30T22:00Z", [0, 1, 2, 4, 5]),
        ("America/New_York", "2027-11-07T03:00Z", [0, 1, 2, 3, 4, 5]),
    ],
)
async def test_hourly_starts_when_the_clock_is_changed(
    http: httpx.AsyncClient, name: str, temporal_client: Client, zone: str, begins: str, hours: list[int]
) -> None:
    made = await _schedule(http, name, every=None, cron="30 * * * *", timezone=zone)
    begin = datetime.fromisoformat(begins)
    times = await _times(temporal_client, made["id"], begin, begin + timedelta(hours=6))
    assert times == [begin + timedelta(minutes=30, hours=at) for at in hours]


async def _times(client: Client, id: str, begin: datetime, end: datetime) -> list[datetime]:
    """When Temporal would start runs of a schedule in a span of time."""
    request = ListScheduleMatchingTimesRequest(namespace=client.namespace, schedule_id=f"default/{id}")
    request.start_time.FromDatetime(begin.astimezone(UTC).replace(tzinfo=None))
    request.end_time.FromDatetime(end.astimezone(UTC).replace(tzinfo=None))
    answer = await client.workflow_service.list_schedule_matching_times(request)
    return [one.ToDatetime(UTC) for one in answer.start_time]


async def test_a_schedule_starts_runs_as_the_door_does(
    http: httpx.AsyncClient, name: str, temporal_client: Client
) -> None:
    made = await _schedule(http, name, every="1s", overlap="allow_all")
    for _ in range(200):
        found = (await http.get(f"/v1/schedules/{made['id']}")).json()
        if found["recent"]:
            break
        await asyncio.sleep(0.05)
    await http.delete(f"/v1/schedules/{made['id']}")
    id = found["recent"][0]["id"]
    assert id.startswith(f"{made['id']}-")
    run = await temporal_client.get_workflow_handle(id).describe()
    assert (run.workflow_type, run.task_queue) == (name, "collaborations")
    assert await run.memo() == {MEMO_TENANT: "default", MEMO_REQUESTED_BY: f"schedule:{made['id']}"}
    assert await _input_of(temporal_client.get_workflow_handle(id)) == {"task": "x"}
    assert (await http.get(f"/v1/collaborations/{id}")).json()["name"] == name


async def _input_of(handle: "WorkflowHandle[Any, Any]") -> Any:
    history = await handle.fetch_history()
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    return (await handle._client.data_converter.decode(payloads))[0]


async def test_a_schedule_is_paused_resumed_run_and_removed(
    http: httpx.AsyncClient, name: str, engine: AsyncEngine
) -> None:
    made = await _schedule(http, name, paused=True)
    assert (made["paused"], made["next"]) == (True, [])
    path = f"/v1/schedules/{made['id']}"
    resumed = (await http.post(f"{path}/resume")).json()
    assert resumed["paused"] is False
    assert datetime.fromisoformat(resumed["next"][0]) > datetime.now(UTC)
    assert (await http.post(f"{path}/pause")).json()["paused"] is True
    # Also a paused one starts a run when it is told to.
    assert (await http.post(f"{path}/run")).status_code == 202
    for _ in range(200):
        found = (await http.get(path)).json()
        if found["starts"] == 1:
            break
        await asyncio.sleep(0.05)
    assert (found["starts"], len(found["recent"])) == (1, 1)
    assert (await http.delete(path)).status_code == 204
    problem(await http.get(path), 404, "schedule_unknown")
    for action in ("pause", "resume", "run"):
        problem(await http.post(f"{path}/{action}"), 404, "schedule_unknown")
    problem(await http.delete(path), 404, "schedule_unknown")
    async with transaction(engine) as connection:
        rows = await connection.execute(
            text(
                "SELECT action FROM audit_log WHERE subject = :id AND detail ->> 'state' = 'done' ORDER BY id"
            ),
            {"id": made["id"]},
        )
        assert rows.scalars().all() == [
            f"schedule.{action}" for action in ("create", "resume", "pause", "run", "remove")
        ]


async def test_schedules_are_paged_in_the_order_of_ids(http: httpx.AsyncClient, name: str) -> None:
    made = sorted([(await _schedule(http, name, paused=True))["id"] for _ in range(3)])
    assert [one["id"] for one in await _listed(http, name, 3)] == made
    page = (await http.get("/v1/schedules", params={"limit": 1, "after": made[0]})).json()
    assert ([one["id"] for one in page["items"]], page["next"]) == ([made[1]], made[1])


@pytest.mark.parametrize(
    ("rhythm", "expected"),
    [
        ({"cron": "0 9 * *"}, "five fields"),
        ({"cron": "99 9 * * *"}, "five fields"),
        ({"cron": "0 9 * * someday"}, "five fields"),
        ({"cron": "@every 1s"}, "five fields"),
        ({"cron": "CRON_TZ=UTC 0 9 * * *"}, "five fields"),
        ({"cron": "0 9 30 2 *"}, "a date that never comes"),
        ({"cron": "0 9 * * *", "timezone": "Mars/Olympus"}, "IANA"),
        ({"cron": "0 9 * * *", "timezone": "Local"}, "IANA"),
        ({"cron": "0 9 * * *", "timezone": ""}, "IANA"),
        ({"every": "1d", "timezone": "Local"}, "IANA"),
        ({"every": "0s"}, "such as 30m"),
        ({"every": "500ms"}, "such as 30m"),
        ({"every": "1d", "catch_up": "1s"}, "10s or more"),
    ],
)
async def test_a_rhythm_that_cannot_be_is_refused(
    http: httpx.AsyncClient, name: str, rhythm: dict[str, str], expected: str
) -> None:
    answer = await http.post("/v1/schedules", json={"name": name, "input": {"task": "x"}} | rhythm)
    assert expected in problem(answer, 422, "schedule_invalid")["detail"]


async def test_a_schedule_that_could_never_run_is_refused(http: httpx.AsyncClient, name: str) -> None:
    async def post(**body: Any) -> httpx.Response:
        return await http.post("/v1/schedules", json={"name": name, "every": "1h"} | body)

    told = problem(await post(input={"task": 1}), 422, "input_invalid")
    assert told["problems"][0]["pointer"] == "/input/task"
    problem(await post(name=f"{name}@9", input={"task": "x"}), 404, "definition_unknown")
    problem(await post(name=f"{name}@stable", input={"task": "x"}), 404, "alias_unknown")
    problem(await post(cron="0 9 * * *", input={"task": "x"}), 422, "request_invalid")
    problem(await post(every=None, input={"task": "x"}), 422, "request_invalid")
    problem(await post(overlap="terminate", input={"task": "x"}), 422, "request_invalid")
    problem(await post(every="soon", input={"task": "x"}), 422, "request_invalid")


async def test_schedules_of_another_tenant_do_not_exist(
    http: httpx.AsyncClient, name: str, settings: Settings
) -> None:
    others = Schedules(Temporal(settings), "other")
    wanted = ScheduleRequest(name=name, every="1d", paused=True)
    id = f"{name}-foreign"
    await others.create(id, wanted, "them", b"secret")
    try:
        problem(await http.get(f"/v1/schedules/{id}"), 404, "schedule_unknown")
        problem(await http.delete(f"/v1/schedules/{id}"), 404, "schedule_unknown")
        await _schedule(http, name, paused=True)
        assert all(one["id"] != id for one in await _listed(http, name, 1))
        assert (await others.read(id)).created_by == "them"
    finally:
        await others.remove(id)
    with pytest.raises(NotFound):
        await others.read(id)


# -- webhooks ---------------------------------------------------------------------------------------


async def test_a_webhook_that_every_delivery_would_be_refused_by_is_refused(http: httpx.AsyncClient) -> None:
    needy = {
        "name": "needy",
        "steps": {"a": {"kind": "transform", "value": 1}},
        "input": {
            "type": "object",
            "required": ["ticket", "severity", "kind"],
            "properties": {"kind": {"type": "string", "default": "bug"}},
        },
    }
    assert (await http.post("/v1/definitions", json=needy)).status_code == 201
    missing = {"name": "needy", "input": {"ticket": "${input.title}"}}
    told = problem(await http.post("/v1/webhooks", json=missing), 422, "input_invalid")
    assert [one["pointer"] for one in told["problems"]] == ["/input/severity"]
    for input in ({"ticket": "${input.title}", "severity": "low"}, "${input}"):
        assert (await http.post("/v1/webhooks", json={"name": "needy", "input": input})).status_code == 201


async def _webhook(http: httpx.AsyncClient, name: str, **more: Any) -> tuple[str, str]:
    """(id, path)"""
    answer = await http.post("/v1/webhooks", json={"name": name} | more)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["url"].startswith("http://127.0.0.1/hooks/")
    return made["id"], made["url"].removeprefix("http://127.0.0.1")


async def test_a_call_starts_a_run_with_what_it_brought(
    http: httpx.AsyncClient, name: str, temporal_client: Client, engine: AsyncEngine
) -> None:
    id, path = await _webhook(http, name, input={"task": "fix ${input.issue.title}", "more": [1]})
    answer = await http.post(path, json={"issue": {"title": "it"}})
    assert answer.status_code == 202
    started = answer.json()
    assert started["id"].startswith(f"{name}-")
    assert answer.headers["location"] == started["links"]["self"]
    handle = temporal_client.get_workflow_handle(started["id"])
    run = await handle.describe()
    assert run.workflow_type == name
    memo = await run.memo()
    assert (memo[MEMO_TENANT], memo[MEMO_REQUESTED_BY]) == ("default", f"webhook:{id}")
    assert await _input_of(handle) == {"task": "fix it", "more": [1]}

    listed = (await http.get("/v1/webhooks")).json()
    assert [one["id"] for one in listed["items"]] == [id]
    assert listed["items"][0]["last_called_at"] is not None
    token = path.removeprefix("/hooks/")
    assert token not in str(listed)
    async with transaction(engine) as connection:
        kept = (await connection.execute(text("SELECT token_sha256 FROM webhooks"))).scalar_one()
    assert kept == hashlib.sha256(token.encode()).hexdigest()

    assert (await http.delete(f"/v1/webhooks/{id}")).status_code == 204
    problem(await http.post(path, json={}), 404, "webhook_unknown")
    problem(await http.delete(f"/v1/webhooks/{id}"), 404, "webhook_unknown")


EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "com.example.made",
    "source": "/orders",
    "id": "1",
    "datacontenttype": "application/json",
    "data": {"task": "ä"},
}
BINARY = {f"ce-{name}": value for name, value in EVENT.items() if isinstance(value, str)} | {
    "Content-Type": "application/json"
}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/cloudevents+json; charset=utf-8"}, EVENT),
        ({"Content-Type": "application/vnd.api+json"}, EVENT),
        (BINARY, EVENT["data"]),
    ],
)
async def test_an_event_starts_a_run_however_it_is_sent(
    http: httpx.AsyncClient, temporal_client: Client, headers: dict[str, str], body: Any
) -> None:
    name = f"event-{uuid.uuid4().hex[:8]}"
    definition = {"name": name, "steps": {"t": {"kind": "transform", "value": "${input}"}}}
    (await http.post("/v1/definitions", json=definition)).raise_for_status()
    _, path = await _webhook(http, name)
    answer = await http.post(path, content=json.dumps(body), headers=headers)
    assert answer.status_code == 202, answer.text
    assert await _input_of(temporal_client.get_workflow_handle(answer.json()["id"])) == EVENT


async def test_a_sender_of_events_gets_the_permission_that_it_asks_for(
    http: httpx.AsyncClient, name: str
) -> None:
    _, path = await _webhook(http, name)
    answer = await http.options(path, headers={"WebHook-Request-Origin": "eventgrid.azure.net"})
    assert (answer.status_code, answer.headers["allow"]) == (200, "POST")
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-GitHub-Delivery"])
async def test_a_delivery_that_comes_again_starts_nothing(
    http: httpx.AsyncClient, name: str, temporal_client: Client, header: str
) -> None:
    _, path = await _webhook(http, name)
    _, other = await _webhook(http, name)
    key = uuid.uuid4().hex
    first = await http.post(path, json={"task": "x"}, headers={header: key})
    id = first.json()["id"]
    assert (first.status_code, first.json()["status"]) == (202, "running")
    run = await temporal_client.get_workflow_handle(id).describe()
    for _ in range(2):  # while it runs, and after it has ended
        again = await http.post(path, json={"task": "x"}, headers={header: key})
        assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, id, "repeated")
        now = await temporal_client.get_workflow_handle(id).describe()
        assert now.run_id == run.run_id
        with contextlib.suppress(RPCError):  # it may have ended by itself
            await temporal_client.get_workflow_handle(id).terminate()
    assert (await http.post(path, json={"task": "x"}, headers={header: "2"})).json()["id"] != id
    assert (await http.post(other, json={"task": "x"}, headers={header: key})).json()["id"] != id
    assert (await http.post(path, json={"task": "x"})).json()["id"] != id


async def test_a_refused_delivery_may_come_again(http: httpx.AsyncClient, name: str) -> None:
    _, path = await _webhook(http, name)
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    problem(await http.post(path, json={"task": 1}, headers=headers), 422, "input_invalid")
    assert (await http.post(path, json={"task": "x"}, headers=headers)).json()["status"] == "running"


async def test_bodies_that_cannot_start_anything_are_refused(http: httpx.AsyncClient, name: str) -> None:
    _, path = await _webhook(http, name, input={"task": "${input.issue.title}"})
    json_type = {"Content-Type": "application/json"}
    problem(await http.post(path), 422, "input_invalid")
    problem(await http.post(path, json={"issue": {}}), 422, "input_invalid")
    problem(await http.post(path, json={"issue": {"title": 7}}), 422, "input_invalid")
    problem(await http.post(path, json=[1]), 422, "input_invalid")
    problem(await http.post(path, content=b"{", headers=json_type), 422, "request_invalid")
    problem(await http.post(path, content=b"[" * 9_999, headers=json_type), 422, "request_invalid")
    large = b'"' + b"x" * 1_048_576 + b'"'
    problem(await http.post(path, content=large, headers=json_type), 413, "body_too_large")
    problem(await http.post(path, data={"a": "b"}), 415, "media_type_unsupported")
    problem(await http.post("/hooks/unknown", content=large, headers=json_type), 404, "webhook_unknown")
    problem(await http.post("/hooks/%00"), 404, "webhook_unknown")
    problem(await http.post("/hooks/%ff"), 404, "webhook_unknown")


async def test_an_input_that_grows_beyond_measure_is_refused(http: httpx.AsyncClient, name: str) -> None:
    _, path = await _webhook(http, name, input={"task": "${input.t}" * 50})
    problem(await http.post(path, json={"t": "x" * 50_000}), 413, "body_too_large")


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("${input.}", "expression_syntax"),
        ("${steps.a.output}", "reference_unknown"),
        ({"task": ["${run.id}"]}, "reference_unknown"),
        ("${nothing}", "expression_type"),
        ("${input.a", "expression_syntax"),
    ],
)
async def test_a_template_that_would_always_fail_is_refused(
    http: httpx.AsyncClient, name: str, template: Any, code: str
) -> None:
    answer = await http.post("/v1/webhooks", json={"name": name, "input": template})
    assert [one["code"] for one in problem(answer, 422, "request_invalid")["problems"]] == [code]
    many = await http.post("/v1/webhooks", json={"name": name, "input": ["${input.a}"] * 51})
    problem(many, 422, "request_invalid")
    problem(await http.post("/v1/webhooks", json={"name": "nope"}), 404, "definition_unknown")


async def test_whoever_knows_the_address_needs_no_key_and_no_log_holds_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "facilitair.access"):
        async with door(settings.model_copy(update={"api_key": "secret"})) as http:
            key = {"X-API-Key": "secret"}
            document = {"name": "open", "steps": {"a": {"kind": "transform", "value": 1}}}
            await http.post("/v1/definitions", json=document, headers=key)
            made = (await http.post("/v1/webhooks", json={"name": "open"}, headers=key)).json()
            path = made["url"].removeprefix("http://127.0.0.1")
            foreign = {"Host": "tunnel.example"}
            assert (await http.post(path, json={}, headers=foreign)).status_code == 202
            problem(await http.get("/v1/webhooks"), 401, "api_key_wrong")
    logged = [record.__dict__.get("path") for record in caplog.records]
    assert "/hooks/…" in logged
    assert not any(path.removeprefix("/hooks/") in str(record.__dict__) for record in caplog.records)


async def test_webhooks_are_paged(http: httpx.AsyncClient, name: str) -> None:
    made = sorted([(await _webhook(http, name))[0] for _ in range(3)])
    first = (await http.get("/v1/webhooks?limit=2")).json()
    rest = (await http.get("/v1/webhooks", params={"after": first["next"]})).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == made
    assert rest["next"] is None
