"""A hand on runs that live: through the HTTP door, Temporal's Updates and the command line."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.workflow import _Definition

from tests.integration.runs.test_children import rows, stored
from tests.integration.runs.test_collaboration import unique
from tests.support.api_client import door, problem
from tests.support.cli import facilitair
from tests.support.stack import Stack
from workflows.collaboration import Collaboration

Handle = WorkflowHandle[Any, Any]


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with door(platform.settings) as client:
        client.base_url = httpx.URL("http://127.0.0.1/v1")
        yield client


class SlowCalls:
    """Calls whose prompt holds a mark of this test's own answer late, so that there is time to steer."""

    def __init__(self, on: Stack, mark: str) -> None:
        self.on, self.mark = on, mark

    async def until_asked(self, handle: Handle, calls: int = 1) -> None:
        """Until the run, or one within it, has begun so many calls."""
        await _until(lambda: self._reached(handle, calls))

    async def calls(self, handle: Handle) -> int:
        """Of a run and all within it."""
        return sum([len(await _calls(self.on, run)) for run in await _runs(self.on, handle.id)])

    async def _reached(self, handle: Handle, calls: int) -> bool:
        return await self.calls(handle) >= calls


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def _runs(on: Stack, id: str) -> list[str]:
    """The UUIDs of a run and of those within it."""
    query = "SELECT id::text FROM collaborations WHERE temporal_workflow_id LIKE :id ORDER BY started_at"
    return [row[0] for row in await rows(on, query, id=f"{id}%")]


async def _calls(on: Stack, run: str) -> list[dict[str, Any]]:
    """What the simulator's own books say of a run."""
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as client:
        found = (await client.get("/_simulator/calls", params={"key": f"{run}/"})).json()
        return [call for call in found["recent"] if call["key"].startswith(f"{run}/")]


async def _late(on: Stack, mark: str, seconds: float = 1.5, times: int = 1) -> None:
    rule = {"kind": "slow", "delay_seconds": seconds, "times": times, "match": {"contains": mark}}
    async with httpx.AsyncClient(base_url=on.settings.simulator_url) as client:
        (await client.post("/_simulator/faults", json=[rule])).raise_for_status()


async def _at_rest(handle: Handle) -> None:
    """Until nothing of a run is under way, and its workflow has seen all that happened."""

    async def rests() -> bool:
        found = (await handle.describe()).raw_description
        if found.pending_activities or found.pending_workflow_task.attempt:
            return False
        last = (await handle.fetch_history()).events[-1]
        return last.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED

    await _until(rests)


def _agents(mark: str, **more: Any) -> dict[str, Any]:
    ask = {"kind": "agent", "agent": "coder"}
    return {
        "agents": {"coder": {"model": "openai/gpt-4o-mini"}},
        "steps": {
            "first": ask | {"prompt": f"{mark}: first"},
            "second": ask | {"prompt": f"{mark}: second", "needs": ["first"]},
        },
    } | more


async def _started(on: Stack, definition: dict[str, Any], seconds: float = 3.0) -> tuple[Handle, SlowCalls]:
    """A run whose first call has begun and answers late."""
    mark = unique("mark")
    document = json.loads(json.dumps(definition).replace("MARK", mark))
    await _late(on, f"{mark}: first", seconds)
    name = await stored(on, document, "steered")
    handle = await on.start(name, {}, name)
    held = SlowCalls(on, mark)
    await held.until_asked(handle)
    return handle, held


async def _done(http: httpx.AsyncClient, handle: Handle, path: str) -> bool:
    steps = (await http.get(f"/collaborations/{handle.id}")).json()["steps"]
    return any(step["path"] == path and step["status"] == "completed" for step in steps)


async def _post(http: httpx.AsyncClient, handle: Handle, how: str, body: Any = None) -> str:
    answer = await http.post(f"/collaborations/{handle.id}/{how}", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


async def test_while_a_run_is_paused_no_call_begins(platform: Stack, http: httpx.AsyncClient) -> None:
    handle, held = await _started(platform, _agents("MARK"))
    assert await _post(http, handle, "pause") == "paused"
    assert await _post(http, handle, "pause", {"actor": "user:ada"}) == "paused"
    await _until(lambda: _done(http, handle, "first"))
    await _at_rest(handle)
    assert await held.calls(handle) == 1
    assert (await http.get(f"/collaborations/{handle.id}")).json()["sub_state"] == "paused"
    assert await _post(http, handle, "resume") == "running"
    await handle.result()
    assert await held.calls(handle) == 2
    assert (await http.get(f"/collaborations/{handle.id}")).json()["sub_state"] == ""


async def test_feedback_and_changes_reach_the_very_next_call(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, held = await _started(platform, _agents("MARK"))
    feedback = f"{held.mark} heed this"
    rule = {"kind": "answer", "text": "heeded", "match": {"contains": feedback}}
    async with httpx.AsyncClient(base_url=platform.settings.simulator_url) as client:
        (await client.post("/_simulator/faults", json=[rule])).raise_for_status()
    assert await _post(http, handle, "feedback", {"text": feedback, "actor": "user:ada"}) == "running"
    changes = {"model": "openai/gpt-4o"}
    assert await _post(http, handle, "adjust", {"agent": "coder", "changes": changes}) == "running"
    assert await handle.result() == "heeded"
    [run] = await _runs(platform, handle.id)
    models = {call["key"].split("/")[1]: call["model"] for call in await _calls(platform, run)}
    assert models == {"first": "openai/gpt-4o-mini", "second": "openai/gpt-4o"}
    events = (await http.get(f"/collaborations/{handle.id}/events")).json()["items"]
    assert [one["payload"]["action"] for one in events if one["type"] == "RunSteered"] == [
        "inject_feedback",
        "adjust",
    ]


async def test_a_pause_holds_within_a_chain(platform: Stack, http: httpx.AsyncClient) -> None:
    handle, held = await _started(platform, _agents("MARK", defaults={"chain": "all"}))
    await handle.execute_update("pause")
    await _until(lambda: _done(http, handle, "first"))
    pending = (await handle.describe()).raw_description.pending_activities
    assert [one.activity_type.name for one in pending] == ["chain"]
    assert await held.calls(handle) == 1
    await handle.execute_update("resume")
    await handle.result()
    assert await held.calls(handle) == 2


async def test_a_pause_reaches_the_runs_within(platform: Stack, http: httpx.AsyncClient) -> None:
    mark = unique("mark")
    await _late(platform, f"{mark}: first")
    tool = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}, "needs": ["first"], "chain": False}
    inner = _agents(mark)
    inner["steps"]["tool"] = tool
    grandchild = await stored(platform, inner)
    child = await stored(platform, {"steps": {"sub": {"kind": "collaboration", "ref": grandchild}}})
    parent = await stored(platform, {"steps": {"sub": {"kind": "collaboration", "ref": child}}})
    handle = await platform.start(parent, {}, parent)
    held = SlowCalls(platform, mark)
    await held.until_asked(handle)
    within = platform.client.get_workflow_handle(f"{parent}~sub~sub")
    assert await _post(http, handle, "pause") == "paused"
    await _until(lambda: _done(http, within, "first"))
    await _at_rest(within)
    assert await held.calls(handle) == 1
    shown = (await http.get(f"/collaborations/{within.id}")).json()
    assert [step["path"] for step in shown["steps"]] == ["first"]
    # Its own is another pause: ended, the outer one still holds.
    assert await _post(http, within, "pause") == "paused"
    assert await _post(http, within, "resume") == "paused"
    assert await _post(http, handle, "resume") == "running"
    await handle.result()
    assert await held.calls(handle) == 2


async def test_what_asks_and_repeats_waits_too_and_a_paused_run_can_be_stopped(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    definition = _agents("MARK")
    body = {"steps": {"ask": {"kind": "agent", "agent": "coder", "prompt": "MARK: ${item}"}}}
    definition["steps"] |= {
        "each": {"kind": "map", "over": "[1, 2]", "max_items": 2, "needs": ["first"], "body": body},
        "people": {"kind": "human", "title": "Go on?", "needs": ["first"]},
        "rest": {"kind": "wait", "for": "1h", "needs": ["first"]},
    }
    definition["steps"]["first"] |= {"compensate": {"tool": "json.parse", "args": {"text": "[1]"}}}
    handle, held = await _started(platform, definition)
    await _post(http, handle, "pause")
    await _until(lambda: _done(http, handle, "first"))
    await _at_rest(handle)
    shown = (await http.get(f"/collaborations/{handle.id}")).json()
    assert [step["path"] for step in shown["steps"]] == ["first"]
    assert (await http.get("/tasks", params={"collaboration": handle.id})).json()["items"] == []
    assert (await http.post(f"/collaborations/{handle.id}/stop")).json()["status"] == "cancelling"
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    shown = (await http.get(f"/collaborations/{handle.id}")).json()
    assert (shown["status"], shown["sub_state"]) == ("failed", "cancelled")
    assert ("first~undo", "completed") in [(step["path"], step["status"]) for step in shown["steps"]]
    assert await held.calls(handle) == 1


async def test_what_cannot_be_steered_is_refused(platform: Stack, http: httpx.AsyncClient) -> None:
    problem(await http.post("/collaborations/nothing/pause"), 404, "collaboration_unknown")
    handle, _ = await _started(platform, _agents("MARK"))
    at = f"/collaborations/{handle.id}"
    for how, body, code in (
        ("feedback", {"text": " "}, "steer_invalid"),
        ("feedback", {"text": "x", "agent": "nobody"}, "agent_unknown"),
        ("feedback", {"text": "x", "step": "nothing"}, "step_unknown"),
        ("feedback", {"step": "first"}, "request_invalid"),
        ("adjust", {"changes": {}}, "steer_invalid"),
        ("adjust", {"changes": {"temperature": 3}}, "request_invalid"),
        ("adjust", {"changes": {"model": "gpt-4"}}, "model_unknown"),
        ("pause", {"actor": "ada"}, "request_invalid"),
    ):
        problem(await http.post(f"{at}/{how}", json=body), 422, code)
    for update, steer in (("inject_feedback", {"text": ""}), ("adjust", {"changes": {"top_p": 1}})):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update(update, steer)
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "steer_invalid"
    await handle.result()
    for how, late in (("pause", None), ("feedback", {"text": "late"})):
        problem(await http.post(f"{at}/{how}", json=late), 409, "collaboration_ended")


UPDATES = sorted(name for name in _Definition.must_from_class(Collaboration).updates if name)


async def _asking(on: Stack, **definition: Any) -> Handle:
    """A run that waits for a person."""
    asks = {"kind": "human", "title": "Go on?", "assignees": ["user:ada"]}
    name = await stored(on, {"steps": {"asks": asks}, **definition}, "steered")
    handle = await on.start(name, {}, name)

    async def asked() -> bool:
        query = "SELECT t.id FROM human_tasks t JOIN collaborations c ON c.id = t.collaboration_id"
        return bool(await rows(on, f"{query} WHERE temporal_workflow_id = :id", id=name))

    await _until(asked)
    return handle


async def test_whatever_a_temporal_client_sends_is_answered_with_a_code(platform: Stack) -> None:
    handle = await _asking(platform)
    wrong: list[list[Any]] = [["x"], [{}, {}], [{"colour": "red"}], [{"actor": 5}], [b"bytes"]]
    for update in UPDATES:
        for given in wrong:
            with pytest.raises(WorkflowUpdateFailedError) as caught:
                await handle.execute_update(update, args=given)
            cause = caught.value.cause
            assert isinstance(cause, ApplicationError), (update, given)
            assert cause.type in ("steer_invalid", "human_decision_invalid"), (update, given, cause.type)
            assert cause.message.startswith("found ") and cause.failure is not None
            assert not cause.failure.stack_trace and not cause.failure.HasField("cause")
    for update in {*UPDATES} - {"pause", "resume"}:
        with pytest.raises(WorkflowUpdateFailedError, match="Workflow update failed") as caught:
            await handle.execute_update(update)
        assert isinstance(caught.value.cause, ApplicationError) and caught.value.cause.type is not None
    kinds = {event.WhichOneof("attributes") async for event in handle.fetch_history_events()}
    assert "workflow_execution_update_accepted_event_attributes" not in kinds, (
        "what is refused leaves nothing"
    )
    await handle.execute_update("decide", {"path": "asks", "action": "approve", "actor": "user:ada"})
    await handle.result()


async def test_a_signal_does_what_the_update_of_its_name_does(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle = await _asking(platform)
    for name, given in (
        ("shout", []),
        ("pause", ["x"]),
        ("adjust", [{"changes": {"top_p": 1}}]),
        ("decide", [{}]),
        ("inject_feedback", [{"text": "Be brief."}]),
        ("inject_feedback", [{"text": "Be kind."}]),
        ("pause", []),
    ):
        await handle.signal(name, args=given)

    async def state() -> str:
        return str((await http.get(f"/collaborations/{handle.id}")).json()["sub_state"])

    async def paused() -> bool:
        return await state() == "paused"

    await _until(paused)
    told = "SELECT payload->'detail'->>'text' FROM outbox JOIN collaborations c ON c.id::text = aggregateid"
    query = f"{told} WHERE temporal_workflow_id = :id AND payload->>'action' = 'inject_feedback' ORDER BY seq"
    assert await rows(platform, query, id=handle.id) == [("Be brief.",), ("Be kind.",)]
    await handle.signal("resume")
    decision = {"path": "asks", "action": "approve", "actor": "user:ada"}
    await handle.signal("decide", decision)
    assert (await handle.result())["by"] == ["user:ada"]


async def test_an_update_that_comes_with_the_start_waits_for_the_pin(platform: Stack) -> None:
    name = await stored(platform, _agents(unique("mark")), "steered")
    handle = await platform.start(name, {}, name)
    assert await handle.execute_update("pause") == "paused"
    await _at_rest(handle)
    await handle.execute_update("resume")
    await handle.result()


async def test_updates_tell_people_in_temporals_ui_what_they_do(platform: Stack) -> None:
    handle, _ = await _started(platform, _agents("MARK"))
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    told = {one.name: one.description for one in metadata.definition.update_definitions}
    assert set(told) == {"decide", "pause", "resume", "inject_feedback", "adjust"}
    assert all(told.values())
    await handle.result()


async def test_the_commands(platform: Stack, http: httpx.AsyncClient, tmp_path: Path) -> None:
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=60)
    definition = _agents("MARK")
    definition["steps"]["first"]["timeout"] = "1m"
    # A command takes a second where others are busy.
    handle, _ = await _started(platform, definition, 6.0)

    async def run(*words: str) -> tuple[int, str]:
        done = await facilitair(tmp_path, *words, FACILITAIR_URL=platform.supervisor.addresses["api"])
        return done.code, done.stdout + done.stderr

    assert await run("pause", handle.id, "--as", "ada") == (0, f"{handle.id}  paused\n")
    assert await run("tell", handle.id, "Be brief.", "--step", "second") == (0, f"{handle.id}  paused\n")
    code, told = await run("adjust", handle.id, "--agent", "coder", "--temperature", "0.5", "--json")
    assert code == 0 and json.loads(told)["status"] == "paused"
    code, told = await run("adjust", handle.id)
    assert code == 2 and "expected at least one" in told
    assert await run("resume", handle.id) == (0, f"{handle.id}  running\n")
    await handle.result()
    code, told = await run("stop", handle.id)
    assert code == 2 and "collaboration_ended" in told
    events = (await http.get(f"/collaborations/{handle.id}/events")).json()["items"]
    steered = [one["payload"] for one in events if one["type"] == "RunSteered"]
    assert [one["action"] for one in steered] == ["pause", "inject_feedback", "adjust", "resume"]
    assert steered[0]["actor"] == "user:ada"
