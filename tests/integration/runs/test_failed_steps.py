"""Every failure has its step: its name in the run's error, an attempt and an event, whatever kind it is of,
whatever of it fails; and nothing of a run that has ended is running."""

import asyncio
from datetime import timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import text
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.upkeep.ended_runs import EndingsActivity
from schema.endings import SUB_STATES
from schema.language.steps import Step
from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.integration.runs.test_children import rows, stored
from tests.integration.runs.test_collaboration import attempts, unique
from tests.support.stack import Stack

Handle = WorkflowHandle[Any, Any]

NOTHING = "input.nope.x"
BAD = f"${{{NOTHING}}}"
_NOP = {"kind": "transform", "value": 1}
_WAIT = {"kind": "wait", "for": "1h"}
_NOBODY = {"kind": "tool", "activity": "x", "task_queue": "nobody-serves-this", "args": {}}


def _map(**inside: Any) -> dict[str, Any]:
    return {"kind": "map", "over": "[1, 2]", "max_items": 2, "body": {"steps": inside}}


def _loop(**inside: Any) -> dict[str, Any]:
    return {"kind": "loop", "max_iterations": 2, "body": {"steps": inside}}


def broken(child: str) -> dict[str, dict[str, dict[str, Any]]]:
    """kind → what fails of it → a step. Where a step within is the one that fails, its name is `inner`."""
    inner = {"kind": "transform", "value": BAD}
    slow = {"kind": "wait", "until": BAD}
    ends = _loop(inner=_NOP)
    return {
        "agent": {"prompt": {"kind": "agent", "agent": "coder", "prompt": BAD}},
        "tool": {
            "quick": {"kind": "tool", "tool": "json.parse", "args": {"text": BAD}},
            "slow": {"kind": "tool", "tool": "http", "args": {"url": BAD}},
            "own": _NOBODY | {"args": {"x": BAD}},
        },
        "transform": {"value": {"kind": "transform", "value": BAD}},
        "switch": {
            "case": {"kind": "switch", "cases": [{"when": f"{NOTHING} == 1", "then": "a"}], "else": "b"}
        },
        "map": {
            "over": _map(inner=_NOP) | {"over": NOTHING},
            "item": _map(inner=inner),
            "slow_item": _map(inner=slow),
            "output": _map(inner=_NOP) | {"body": {"steps": {"inner": _NOP}, "output": BAD}},
        },
        "loop": {
            "init": ends | {"init": BAD},
            "until": ends | {"until": f"{NOTHING} == 1"},
            "carry": ends | {"carry": BAD},
            "turn": _loop(inner=inner),
            "slow_turn": _loop(inner=slow),
        },
        "human": {
            "title": {"kind": "human", "title": BAD},
            "show": {"kind": "human", "title": "?", "show": {"x": BAD}},
        },
        "collaboration": {"input": {"kind": "collaboration", "ref": child, "input": {"x": BAD}}},
        "wait": {"until": {"kind": "wait", "until": BAD}},
    }


def _sound(child: str) -> dict[str, dict[str, Any]]:
    """kind → a step that would do its work."""
    return {
        "agent": {"kind": "agent", "agent": "coder", "prompt": "x"},
        "tool": _NOBODY,
        "transform": _NOP,
        "switch": {"kind": "switch", "cases": [{"when": "true", "then": "a"}], "else": "b"},
        "map": _map(inner=_NOP),
        "loop": _loop(inner=_NOP),
        "human": {"kind": "human", "title": "?"},
        "collaboration": {"kind": "collaboration", "ref": child},
        "wait": _WAIT,
    }


def _within(around: str, step: dict[str, Any]) -> dict[str, Any]:
    match around:
        case "map":
            return {"around": _map(broken=step) | {"over": "[1]"}}
        case "loop":
            return {"around": _loop(broken=step)}
    return {"broken": step}


KINDS = {
    kind for model in get_args(get_args(Step)[0]) for kind in get_args(model.model_fields["kind"].annotation)
}


async def _failing(on: Stack, steps: dict[str, Any]) -> str:
    """What is wrong with how a run ends whose step `broken` fails; empty where all is told."""
    name = await stored(on, {"agents": {"coder": {"role": "coder"}}, "steps": steps}, "broken")
    handle = await on.start(name, {}, name)
    try:
        async with asyncio.timeout(60):
            return f"came to {await handle.result()!r}"
    except WorkflowFailureError as caught:
        error = caught.cause
    except TimeoutError:
        return "does not end"
    failed = [(step, code) for step, _, state, code in await attempts(on, name) if state == "failed"]
    told = await rows(
        on,
        "SELECT payload->>'step' FROM outbox JOIN collaborations c ON c.id::text = aggregateid "
        "WHERE type = 'AttemptFailed' AND temporal_workflow_id = :id",
        id=name,
    )
    if not isinstance(error, ApplicationError) or "broken" not in error.message:
        return f"tells {error}"
    if error.type != "expression_failed":
        return f"has the code {error.type}"
    if failed.count(("broken", "expression_failed")) != 1:
        return f"has the attempts {failed}"
    if ("broken",) not in told:
        return f"has told of {told}"
    return str(await _running(on, name) or "")


async def _running(on: Stack, id: str) -> list[tuple[Any, ...]]:
    """What is still under way of a run, as Postgres has it."""
    query = """
        SELECT path FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
        WHERE temporal_workflow_id = :id AND e.status = 'running'
        UNION ALL SELECT path FROM human_tasks t JOIN collaborations c ON c.id = t.collaboration_id
        WHERE temporal_workflow_id = :id AND t.status = 'open'
    """
    return await rows(on, query, id=id)


@pytest.mark.parametrize("around", ["", "map", "loop"])
async def test_whatever_fails_of_a_step_of_any_kind_is_told(platform: Stack, around: str) -> None:
    child = await stored(platform, {"steps": {"nop": _NOP}})
    doors = {f"{kind}, {what}": step for kind, found in broken(child).items() for what, step in found.items()}
    doors |= {f"{kind}, when": step | {"when": f"{NOTHING} == 1"} for kind, step in _sound(child).items()}
    assert {door.partition(",")[0] for door in doors} == KINDS
    found = await asyncio.gather(*(_failing(platform, _within(around, step)) for step in doors.values()))
    assert {door: wrong for door, wrong in zip(doors, found, strict=True) if wrong} == {}


async def test_the_error_of_an_output_says_so(platform: Stack) -> None:
    name = await stored(platform, {"steps": {"a": _NOP, "b": _WAIT | {"for": "10ms"}}, "output": BAD})
    with pytest.raises(WorkflowFailureError) as caught:
        await (await platform.start(name, {}, name)).result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.message.startswith("the definition's output: ")


async def test_a_condition_that_is_text_says_so(platform: Stack) -> None:
    name = await stored(platform, {"steps": {"t": _NOP | {"when": "input.flag"}}})
    with pytest.raises(WorkflowFailureError) as caught:
        await (await platform.start(name, {"flag": "true"}, name)).result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "expression_failed"
    assert caught.value.cause.message == (
        "step 't': the condition 'input.flag' came to the text \"true\"; expected true or false. "
        "Compare it with something."
    )


async def test_what_is_tolerated_or_caught_leaves_nothing_running(platform: Stack) -> None:
    """A map within a map, of which an item fails beside a wait: as an item of the outer one, and caught."""
    steps = {
        "each": _map(within=_map(slow=_WAIT, bad={"kind": "wait", "until": BAD}))
        | {"tolerate": {"failed": 2}},
        "caught": _map(deep=_map(late=_WAIT, wrong={"kind": "wait", "until": BAD}))
        | {"catch": [{"errors": ["*"], "value": "none"}]},
        "later": {"kind": "wait", "for": "1s", "needs": ["each", "caught"]},
    }
    name = await stored(platform, {"steps": steps})
    handle = await platform.start(name, {}, name)
    async with asyncio.timeout(30):
        while ("later",) not in (found := await _running(platform, name)):
            await asyncio.sleep(0.02)
    assert found == [("later",)]
    await handle.result()
    closed = {(step, code) for step, _, state, code in await attempts(platform, name) if state == "failed"}
    failed = {(step, "expression_failed") for step in ("bad", "within", "wrong", "deep")}
    assert closed >= failed | {("slow", "cancelled"), ("late", "cancelled")}
    assert ("caught", 1, "completed", "expression_failed") in await attempts(platform, name)


# -- the end of a run ----------------------------------------------------------------------------------------


UNDER_WAY: dict[str, Any] = {
    "w": _WAIT,
    "each": _map(item=_WAIT),
    "again": _loop(turn=_WAIT),
    "own": _NOBODY | {"timeout": "1h"},
    "asks": {"kind": "human", "title": "?"},
}


async def _under_way(on: Stack, more: dict[str, Any], lasts: timedelta | None = None) -> Handle:
    """A run of which one step of every kind that lasts is under way."""
    name = await stored(on, {"steps": UNDER_WAY | more})
    handle: Handle = await on.client.start_workflow(
        name, {}, id=name, task_queue=QUEUE_COLLABORATIONS, execution_timeout=lasts
    )
    expected = {"w", "each", "each[0].item", "again", "again[0].turn", "own", "asks"}
    async with asyncio.timeout(30):
        while not {path for (path,) in await _running(on, name)} >= expected:
            await asyncio.sleep(0.02)
    return handle


@pytest.mark.parametrize("how", SUB_STATES)
async def test_nothing_runs_once_the_run_has_ended(
    platform: Stack, endings: EndingsActivity, how: str
) -> None:
    later = {"kind": "wait", "for": "2s"}
    failing = {"later": later, "bad": {"kind": "transform", "value": BAD, "needs": ["later"]}}
    lasts = timedelta(seconds=3) if how == "TIMED_OUT" else None
    handle = await _under_way(platform, failing if how == "FAILED" else {}, lasts)
    match how:
        case "CANCELED":
            await handle.cancel()
        case "TERMINATED":
            await handle.terminate()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    async with asyncio.timeout(30):
        while (await _status(platform, handle.id))[0] == "running":
            await ActivityEnvironment().run(endings.close_ended)
    assert await _running(platform, handle.id) == []
    run_code = (await _status(platform, handle.id))[1]
    closed = {step: code for step, _, state, code in await attempts(platform, handle.id) if state == "failed"}
    cancelled = "cancelled" if how == "FAILED" else run_code
    assert closed["w"] == closed["each"] == closed["item"] == closed["turn"] == cancelled
    if how == "FAILED":
        assert (run_code, closed["bad"]) == ("expression_failed", "expression_failed")


async def _status(on: Stack, id: str) -> tuple[Any, ...]:
    [found] = await rows(
        on, "SELECT status, error_code FROM collaborations WHERE temporal_workflow_id = :id", id=id
    )
    return found


async def test_the_last_attempt_of_a_tool_that_timed_out_is_closed_with_the_run(platform: Stack) -> None:
    slow = {"kind": "tool", "tool": "pause", "args": {"seconds": 1}, "timeout": "200ms"}
    name = await stored(platform, {"steps": {"slow": slow | {"retry": {"max_attempts": 1}}}})
    with pytest.raises(WorkflowFailureError) as caught:
        await (await platform.start(name, {}, name)).result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert (caught.value.cause.type, "'slow'" in caught.value.cause.message) == ("timeout", True)
    assert [found[2:] for found in await attempts(platform, name)] == [("failed", "timeout")]


async def test_what_older_releases_left_running_is_closed(platform: Stack, endings: EndingsActivity) -> None:
    name = await stored(platform, {"steps": {"a": _NOP}})
    await (await platform.start(name, {}, name)).result()
    left = (
        "UPDATE agent_executions e SET status = 'running' FROM collaborations c "
        "WHERE c.id = e.collaboration_id AND temporal_workflow_id = :id RETURNING e.path"
    )
    async with platform.engine.begin() as connection:
        await connection.execute(text(left), {"id": name})
    await ActivityEnvironment().run(endings.close_ended)
    assert [found[2:] for found in await attempts(platform, name)] == [("failed", "cancelled")]


# -- what Temporal's UI shows --------------------------------------------------------------------------------


async def _details(handle: Handle) -> str:
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return str(metadata.current_details)


async def test_nothing_runs_in_the_details_of_a_run_that_has_ended(platform: Stack) -> None:
    short = {"kind": "wait", "for": "10ms"}
    name = await stored(platform, {"steps": {"a": short, "b": short | {"needs": ["a"]}}})
    handle = await platform.start(name, {}, name)
    await handle.result()
    details = await _details(handle)
    assert details.count("| completed |") == 2 and "running" not in details
    steps = {"a": short, "bad": {"kind": "transform", "value": BAD, "needs": ["a"]}, "w": _WAIT}
    name = await stored(platform, {"steps": steps})
    handle = await platform.start(name, {}, name)
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    details = await _details(handle)
    assert details.startswith("step 'bad': ") and "running" not in details
    assert [details.count(f"| {state} |") for state in ("completed", "failed", "cancelled")] == [1, 1, 1]


async def test_a_failed_run_tells_temporal_one_error_and_no_file_of_the_worker(platform: Stack) -> None:
    waits = {"kind": "wait", "until": BAD}
    document = {"input": {"type": "object", "required": ["x"]}, "steps": {"a": waits}}
    name = await stored(platform, document)
    for input, code in (({}, "input_invalid"), ({"x": 1}, "expression_failed")):
        handle = await platform.start(name, input, unique("told"))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        history = await handle.fetch_history()
        failure = history.events[-1].workflow_execution_failed_event_attributes.failure
        assert failure.application_failure_info.type == code
        assert not failure.HasField("cause") and not failure.stack_trace
        assert ".py" not in str(history.events)
