"""Whatever a Temporal client can ask of a start does its work over every door, or is refused in words."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from websockets.asyncio.client import connect

from api.app import create_app
from schema.settings import Settings
from schema.temporal.memo import BY_TEMPORAL
from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.integration.runs.test_children import rows
from tests.integration.runs.test_collaboration import failure, unique
from tests.support.api_server import ApiServer, served
from tests.support.cli import facilitair
from tests.support.stack import Stack

T = TypeVar("T")

QUICK: dict[str, Any] = {
    "steps": {"a": {"kind": "transform", "value": "${input}"}},
    "output": "${steps.a.output}",
}
LONG: dict[str, Any] = {"steps": {"w": {"kind": "wait", "for": "10m"}}}
QUEUE: dict[str, Any] = {"task_queue": QUEUE_COLLABORATIONS}


@pytest.fixture(scope="module")
async def api(platform: Stack) -> AsyncIterator[ApiServer]:
    async with served(platform.settings) as found:
        yield found


async def stored(on: Stack, definition: dict[str, Any]) -> str:
    name = unique("door")
    await on.store({**definition, "name": name})
    return name


async def shown(api: ApiServer, id: str, **query: str) -> dict[str, Any]:
    answer = await api.http.get(f"/v1/collaborations/{quote(id, safe='')}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def until(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    async with asyncio.timeout(30):
        while not holds(found := await look()):
            await asyncio.sleep(0.1)
        return found


# -- ids ------------------------------------------------------------------------------------------------

IDS = ("order/123", "two words", "ä/%2F/?#&", "a//b/", "percent%", "quote\"'`$x")


@pytest.mark.parametrize("id", IDS)
async def test_a_run_is_named_by_its_id_over_every_door(
    platform: Stack, api: ApiServer, tmp_path: Path, id: str
) -> None:
    id = f"{id}-{uuid.uuid4().hex[:6]}"
    name = await stored(platform, LONG)
    handle = await platform.client.start_workflow(name, {}, id=id, **QUEUE)
    await until(lambda: shown(api, id), lambda run: run["sub_state"] != "starting")
    assert id in {one["id"] for one in (await api.http.get("/v1/collaborations")).json()["items"]}
    own = f"/v1/collaborations/{quote(id, safe='')}"
    for path in _addresses("get"):
        answer = await api.http.get(own + path.removeprefix("/v1/collaborations/{id}"), timeout=2)
        assert answer.json()["code"] != "address_unknown" if answer.is_error else True, path
    async with api.http.stream("GET", f"{own}/stream") as stream:
        assert stream.status_code == 200
    async with connect(f"ws://127.0.0.1:{api.port}/ws/collaborate") as line:
        await line.send(json.dumps({"type": "watch", "id": id}))
        assert json.loads(await line.recv())["type"] == "started"
    assert (await api.http.post(f"{own}/pause")).json()["status"] == "paused"
    assert (await api.http.post(f"{own}/resume")).status_code == 200
    found = await facilitair(tmp_path, "show", id, "--url", f"http://127.0.0.1:{api.port}")
    assert found.code == 0, found
    page = await api.http.get(f"/console/runs/{quote(id, safe='')}")
    assert page.status_code == 200 and f"{name} ·" in page.text
    accepted = await api.http.post(f"{own}/cancel")
    assert (accepted.status_code, accepted.json()["links"]["self"]) == (202, own)
    ended = await until(lambda: shown(api, id), lambda run: run["status"] == "failed")
    assert (ended["id"], ended["sub_state"]) == (id, "cancelled")
    with pytest.raises(WorkflowFailureError):
        await handle.result()


def _addresses(method: str) -> list[str]:
    """Those of one run that answer at once."""
    paths = create_app(Settings()).openapi()["paths"]
    return [
        path.replace("{step}", "w")
        for path, methods in paths.items()
        if path.startswith("/v1/collaborations/{id}") and method in methods and "stream" not in path
    ]


@pytest.mark.parametrize("id", ["line\nbreak", "bell\x07", "next\x85line", "line\u2028separator"])
async def test_an_id_that_nobody_can_name_is_refused_in_words(platform: Stack, id: str) -> None:
    name = await stored(platform, QUICK)
    error = await failure(await platform.start(name, {}, f"{unique('id')}{id}"))
    assert (error.type, error.non_retryable) == ("id_invalid", True)
    assert "control characters" in error.message


# -- chains ---------------------------------------------------------------------------------------------


async def runs_of(on: Stack, name: str) -> list[tuple[Any, ...]]:
    """(UUID, id, status, output, who asked) of all runs of a definition, the first one first."""
    return await rows(
        on,
        """SELECT c.id::text, temporal_workflow_id, status, final_output, requested_by FROM collaborations c
        JOIN workflows w ON w.id = c.workflow_id WHERE name = :name ORDER BY started_at""",
        name=name,
    )


async def test_each_run_of_a_cron_schedule_does_its_work(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    handle = await platform.client.start_workflow(name, {"n": 1}, id=name, cron_schedule="@every 1s", **QUEUE)
    done = await until(
        lambda: runs_of(platform, name), lambda found: [row[2] for row in found[:2]] == ["completed"] * 2
    )
    await handle.terminate()
    assert [row[1:] for row in done[:2]] == [(name, "completed", {"n": 1}, BY_TEMPORAL)] * 2
    for uuid_, *_ in done[:2]:
        assert (await shown(api, uuid_, include="output"))["output"] == {"n": 1}


async def test_a_run_of_a_cron_schedule_can_be_steered(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, LONG)
    handle = await platform.client.start_workflow(
        name, {}, id=name, cron_schedule="@every 1s", run_timeout=timedelta(seconds=3), **QUEUE
    )
    second = (await until(lambda: runs_of(platform, name), lambda found: len(found) >= 2))[1][0]
    assert (await shown(api, name))["run_id"] == second
    assert (await api.http.post(f"/v1/collaborations/{name}/pause")).json()["status"] == "paused"
    assert (await api.http.post(f"/v1/collaborations/{name}/cancel")).status_code == 202
    await until(lambda: shown(api, second), lambda run: run["sub_state"] == "cancelled")
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_a_retried_run_goes_on_where_it_was(platform: Stack, api: ApiServer) -> None:
    steps = {"a": {"kind": "transform", "value": 1}, "w": {"kind": "wait", "needs": ["a"], "for": "3s"}}
    name = await stored(platform, {"steps": steps, "output": "${steps.a.output}"})
    handle = await platform.client.start_workflow(
        name,
        {},
        id=name,
        run_timeout=timedelta(seconds=2),
        **QUEUE,
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_attempts=3),
    )
    assert await handle.result() == 1
    run = await shown(api, name)
    assert (run["status"], [(one["step"], one["attempt"]) for one in run["steps"]]) == (
        "completed",
        [("a", 1), ("w", 1)],
    )
    assert len(await runs_of(platform, name)) == 1


@workflow.defn(name="becomes-a-collaboration", sandboxed=False)
class _ImpostorWorkflow:
    @workflow.run
    async def run(self, name: str) -> Any:
        workflow.continue_as_new({"n": 7}, workflow=name, task_queue=QUEUE_COLLABORATIONS)  # type: ignore[arg-type]


async def test_another_workflow_may_go_on_as_a_collaboration(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    async with Worker(
        platform.client,
        task_queue=name,
        workflows=[_ImpostorWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await platform.client.start_workflow(_ImpostorWorkflow.run, name, id=name, task_queue=name)
        assert await handle.result() == {"n": 7}
    assert [row[2:] for row in await runs_of(platform, name)] == [("completed", {"n": 7}, BY_TEMPORAL)]
    assert (await shown(api, name))["status"] == "completed"


# -- ways to start --------------------------------------------------------------------------------------


async def test_a_start_may_be_delayed(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    handle = await platform.client.start_workflow(
        name, {"n": 2}, id=name, start_delay=timedelta(seconds=1), **QUEUE
    )
    waiting = await shown(api, name)
    assert (waiting["status"], waiting["sub_state"], waiting.get("waits_for", [])) == (
        "running",
        "starting",
        [],
    )
    assert await handle.result() == {"n": 2}


async def test_a_start_may_take_the_place_of_a_run(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    long = await stored(platform, LONG)
    await platform.start(long, {}, name)
    before = await until(lambda: shown(api, name), lambda run: run["sub_state"] != "starting")
    handle = await platform.client.start_workflow(
        name, {"n": 3}, id=name, id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING, **QUEUE
    )
    assert await handle.result() == {"n": 3}
    run = await shown(api, name)
    assert (run["status"], run["name"]) == ("completed", name)
    assert run["run_id"] != before["run_id"]


async def test_a_schedule_of_a_temporal_client_starts_runs(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    action = ScheduleActionStartWorkflow(name, {"n": 4}, id=name, **QUEUE)
    schedule = await platform.client.create_schedule(name, Schedule(action=action, spec=ScheduleSpec()))
    await schedule.trigger()
    [(uuid_, id, *end)] = await until(
        lambda: runs_of(platform, name), lambda found: bool(found) and found[0][2] == "completed"
    )
    assert id.startswith(f"{name}-")
    assert end == ["completed", {"n": 4}, BY_TEMPORAL]
    assert (await shown(api, id))["run_id"] == uuid_
    await schedule.delete()


# -- reset ----------------------------------------------------------------------------------------------


async def test_a_run_that_failed_and_is_reset_completes_everywhere(platform: Stack, api: ApiServer) -> None:
    broken = True

    @activity.defn(name="mend")
    async def mend(args: dict[str, Any]) -> str:
        if broken:
            raise ApplicationError("not yet", non_retryable=True)
        return "mended"

    queue = unique("mending")
    call = {"kind": "tool", "activity": "mend", "task_queue": queue}
    steps = {"a": {"kind": "transform", "value": 1}, "b": {**call, "needs": ["a"]}}
    name = await stored(platform, {"steps": steps, "output": "${steps.b.output}"})
    async with Worker(platform.client, task_queue=queue, activities=[mend]):
        handle = await platform.start(name, {}, name)
        await failure(handle)
        broken = False
        again = await _reset(platform, handle)
        assert await again.result() == "mended"
    run = await shown(api, name, include="output")
    assert (run["status"], run["sub_state"], run["error"], run["output"]) == ("completed", "", None, "mended")
    assert [(one["step"], one["status"]) for one in run["steps"]] == [
        ("a", "completed"),
        ("b", "failed"),
        ("b", "completed"),
    ]


async def _reset(on: Stack, handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
    """Let a run go on from its first workflow task."""
    async for event in handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            first = event.event_id
            break
    answer = await on.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            request_id=uuid.uuid4().hex,
            reason="test",
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=first,
        )
    )
    return on.client.get_workflow_handle(handle.id, run_id=answer.run_id)


# -- lists ----------------------------------------------------------------------------------------------


async def test_temporals_lists_find_runs_by_how_they_stand(platform: Stack, api: ApiServer) -> None:
    quick, long = await stored(platform, QUICK), await stored(platform, LONG)
    bad = await stored(
        platform, {"steps": {"a": {"kind": "tool", "tool": "json.parse", "args": {"text": "{"}}}}
    )
    handles = [await platform.start(name, {}, name) for name in (quick, bad, long)]

    async def listed(query: str) -> set[str]:
        return {one.id async for one in platform.client.list_workflows(query)}

    expected = {"completed": quick, "failed": bad, "running": long}
    for status, id in expected.items():
        only = (
            f"FacilitairStatus = '{status}' AND FacilitairVersion = '{id}@1' AND FacilitairTenant = 'default'"
        )
        assert await until(partial(listed, only), bool) == {id}
    await handles[2].cancel()
    cancelled = f"FacilitairStatus = 'cancelled' AND WorkflowId = '{long}' AND FacilitairCostUsd = 0"
    assert await until(lambda: listed(cancelled), bool) == {long}


async def test_what_is_started_over_http_has_a_summary_in_temporal(platform: Stack, api: ApiServer) -> None:
    name = await stored(platform, QUICK)
    body = {"definition": name, "input": {"task": "Tidy up\n" + "ä" * 500}, "id": name}
    assert (await api.http.post("/v1/collaborations", json=body)).status_code == 202
    told = await platform.client.get_workflow_handle(name).describe()
    assert await told.static_summary() == ("Tidy up " + "ä" * 500)[:90]
    assert await told.static_details() == f"`{name}`, asked for by local"


# -- queues that nobody polls ---------------------------------------------------------------------------


async def test_a_queue_that_nobody_polls_is_named_everywhere(
    platform: Stack, api: ApiServer, tmp_path: Path
) -> None:
    queue = unique("nobody")
    step = {
        "kind": "tool",
        "activity": "x",
        "task_queue": queue,
        "timeout": "10m",
        "retry": {"max_attempts": 1},
    }
    definition = {
        "name": unique("unpolled"),
        "steps": {"a": {"kind": "map", "over": "[1]", "max_items": 1, "body": {"steps": {"b": step}}}},
    }
    name = definition["name"]
    for path in ("/v1/definitions", "/v1/definitions/validate"):
        answer = await api.http.post(path, json=definition)
        assert [queue in one for one in answer.json()["warnings"]] == [True], answer.text
    await platform.start(str(name), {}, str(name))
    waiting = await until(lambda: shown(api, str(name)), lambda run: bool(run.get("waits_for")))
    assert waiting["waits_for"][0].startswith(f"a[0].b: no worker has polled '{queue}' for ")
    [step_waits] = [one["waits_for"] for one in waiting["steps"] if one.get("waits_for")]
    assert f"a[0].b: {step_waits}" == waiting["waits_for"][0]
    found = await facilitair(tmp_path, "show", str(name), "--url", f"http://127.0.0.1:{api.port}")
    assert f"no worker has polled '{queue}'" in found.stdout
    page = (await api.http.get(f"/console/runs/{name}")).text
    assert queue in page
    assert (await api.http.post(f"/v1/collaborations/{name}/cancel")).status_code == 202


async def test_a_step_that_no_worker_took_says_from_which_queue(platform: Stack, api: ApiServer) -> None:
    queue = unique("nobody")
    step = {"kind": "tool", "activity": "x", "task_queue": queue, "timeout": "1s"}
    name = await stored(platform, {"steps": {"a": step}})
    error = await failure(await platform.start(name, {}, name))
    assert error.type == "timeout"
    assert f"no worker took it from the task queue '{queue}' within 1 s" in error.message
    assert error.message.endswith((await shown(api, name))["steps"][-1]["error"]["message"])


async def _warned_of(api: ApiServer, definition: dict[str, Any]) -> Any:
    return (await api.http.post("/v1/definitions/validate", json=definition)).json()["warnings"]


async def test_a_queue_that_is_polled_is_warned_of_by_nobody(platform: Stack, api: ApiServer) -> None:
    @activity.defn(name="x")
    async def x(args: dict[str, Any]) -> str:
        await asyncio.sleep(5)
        return "done"

    queue = unique("polled")
    step = {"kind": "tool", "activity": "x", "task_queue": queue}
    definition = {"name": unique("polled"), "steps": {"a": step}}
    async with Worker(platform.client, task_queue=queue, activities=[x], max_concurrent_activities=1):
        name = str(definition["name"])
        await platform.store(definition)
        await until(partial(_warned_of, api, definition), lambda found: found == [])
        handle = await platform.start(name, {}, name)
        await asyncio.sleep(4)
        assert "waits_for" not in await shown(api, name)
        assert await handle.result() == "done"
