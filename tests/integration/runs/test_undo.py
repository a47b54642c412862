"""Compensation: what a failed or cancelled run undoes, on the real Temporal, Postgres and worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.integration.runs.test_children import rows, stored
from tests.integration.runs.test_collaboration import failure, status, unique
from tests.support.stack import Stack

QUICK = {"retry": {"max_attempts": 2, "initial": "50ms", "max": "50ms"}}
BAD: dict[str, Any] = {"kind": "tool", "tool": "json.parse", "args": {"text": "no json"}}


async def undone(on: Stack, workflow_id: str) -> list[tuple[Any, ...]]:
    """(path, status, error code) of every attempt to undo something, in the order they ended."""
    return await rows(
        on,
        """SELECT e.path, e.status, e.error_code FROM agent_executions e
        JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id AND e.path LIKE '%~undo' ORDER BY e.completed_at""",
        id=workflow_id,
    )


@asynccontextmanager
async def shop(on: Stack) -> AsyncIterator[tuple[str, list[Any]]]:
    """(the queue of a user's own worker, what its activity `take_back` was given)."""
    queue, seen = unique("shop"), list[Any]()

    @activity.defn(name="take_back")
    async def take_back(args: dict[str, Any]) -> str:
        seen.append(args["what"])
        if args["what"] == "stuck":
            raise ApplicationError("it does not come back", type="stuck")
        return "back"

    async with Worker(on.client, task_queue=queue, activities=[take_back]):
        yield queue, seen


def take_back(queue: str, what: str) -> dict[str, Any]:
    return {"activity": "take_back", "task_queue": queue, "args": {"what": what}}


def found(what: str, compensate: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A step that comes to {"value": [what]} and can be undone."""
    args = {"text": f'["{what}"]'}
    return {"kind": "tool", "tool": "json.parse", "args": args, "compensate": compensate, **more}


async def test_the_last_done_is_undone_first(platform: Stack) -> None:
    async with shop(platform) as (queue, seen):
        steps = {
            "a": found("one", take_back(queue, "a: ${steps.a.output.value[0]}")),
            "b": found("two", take_back(queue, "b after ${steps.a.output.value[0]}"), needs=["a"]),
            "c": found("three", take_back(queue, "c"), needs=["b"]),
            "bad": BAD | {"needs": ["c"]},
        }
        name = await stored(platform, {"steps": steps}, "undo")
        assert (await failure(await platform.start(name, {}, name))).type == "tool_failed"
    assert seen == ["c", "b after one", "a: one"]
    assert await undone(platform, name) == [
        ("c~undo", "completed", None),
        ("b~undo", "completed", None),
        ("a~undo", "completed", None),
    ]
    assert await status(platform, name) == ("failed", "", "tool_failed")


async def test_a_completed_run_undoes_nothing(platform: Stack) -> None:
    name = await stored(
        platform, {"steps": {"a": found("x", {"tool": "pause", "args": {"seconds": 0}})}}, "fine"
    )
    await (await platform.start(name, {}, name)).result()
    assert await undone(platform, name) == []


async def test_built_in_tools_undo_as_well(platform: Stack) -> None:
    compensate = {"tool": "json.parse", "args": {"text": '["${steps.a.output.value[0]}"]'}}
    steps = {"a": found("x", compensate), "bad": BAD | {"needs": ["a"]}}
    name = await stored(platform, {"steps": steps}, "built-in")
    await failure(await platform.start(name, {}, name))
    assert await undone(platform, name) == [("a~undo", "completed", None)]
    assert await rows(
        platform,
        """SELECT kind, agent_name, output FROM agent_executions e
        JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id AND path = 'a~undo'""",
        id=name,
    ) == [("tool", "json.parse", {"value": ["x"]})]


async def test_a_compensation_that_fails_is_recorded_and_the_others_still_run(platform: Stack) -> None:
    async with shop(platform) as (queue, seen):
        steps = {
            "first": found("x", take_back(queue, "first")),
            "own": found("x", take_back(queue, "stuck"), needs=["first"]),
            "vague": found("x", take_back(queue, "${steps.own.output.value[7]}"), needs=["own"]),
            "tool": found("x", {"tool": "json.parse", "args": {"text": "no json"}}, needs=["vague"]),
            "unclear": found(
                "x",
                {"tool": "json.parse", "args": {"text": "${steps.tool.output.value[7]}"}},
                needs=["tool"],
            ),
            "bad": BAD | {"needs": ["unclear"]},
        }
        name = await stored(platform, {"defaults": QUICK, "steps": steps}, "stuck")
        assert (await failure(await platform.start(name, {}, name))).type == "tool_failed"
    assert seen == ["stuck", "stuck", "first"]
    assert await undone(platform, name) == [
        ("unclear~undo", "failed", "expression_failed"),
        ("tool~undo", "failed", "tool_failed"),
        ("vague~undo", "failed", "expression_failed"),
        ("own~undo", "failed", "stuck"),
        ("first~undo", "completed", None),
    ]
    events = await rows(
        platform,
        """SELECT o.payload ->> 'step', o.payload ->> 'error_code' FROM outbox o
        JOIN collaborations c ON c.id::text = o.aggregateid
        WHERE c.temporal_workflow_id = :id AND o.type = 'AttemptFailed' ORDER BY o.seq""",
        id=name,
    )
    assert events == [
        ("bad", "tool_failed"),
        ("unclear", "expression_failed"),
        ("tool", "tool_failed"),
        ("vague", "expression_failed"),
        ("own", "stuck"),
    ]


async def test_every_item_of_a_map_is_undone_with_what_it_was(platform: Stack) -> None:
    async with shop(platform) as (queue, seen):
        body = {
            "steps": {
                "buy": found("${item}", take_back(queue, "${item}: ${steps.buy.output.value[0]}")),
                # Fails for the last item.
                "check": {"kind": "transform", "value": "${steps.buy.output.value[item == 'c' ? 9 : 0]}"},
            }
        }
        each = {"kind": "map", "over": "input.words", "max_items": 5, "concurrency": 1, "body": body}
        name = await stored(platform, {"steps": {"each": each}}, "items")
        await failure(await platform.start(name, {"words": ["a", "b", "c"]}, name))
    assert seen == ["c: c", "b: b", "a: a"]
    assert [row[0] for row in await undone(platform, name)] == [
        "each[2].buy~undo",
        "each[1].buy~undo",
        "each[0].buy~undo",
    ]


async def test_what_was_caught_or_skipped_is_not_undone(platform: Stack) -> None:
    pause = {"tool": "pause", "args": {"seconds": 0}}
    steps = {
        "caught": BAD | {"compensate": pause, "catch": [{"errors": ["*"], "value": 1}]},
        "skipped": found("x", pause, when="false"),
        "done": found("x", pause),
        "bad": BAD | {"needs": ["caught", "done"]},
    }
    name = await stored(platform, {"steps": steps}, "caught")
    await failure(await platform.start(name, {}, name))
    assert await undone(platform, name) == [("done~undo", "completed", None)]


async def test_a_cancelled_run_undoes_what_it_did(platform: Stack) -> None:
    steps = {
        "done": found("x", {"tool": "pause", "args": {"seconds": 0}}),
        "rest": {"kind": "wait", "for": "1h", "needs": ["done"]},
    }
    name = await stored(platform, {"steps": steps}, "cancelled")
    handle = await platform.start(name, {}, name)
    waiting = """SELECT 1 FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
        WHERE c.temporal_workflow_id = :id AND path = 'rest'"""
    async with asyncio.timeout(20):
        while not await rows(platform, waiting, id=name):
            await asyncio.sleep(0.05)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert await undone(platform, name) == [("done~undo", "completed", None)]
    assert await status(platform, name) == ("failed", "cancelled", "cancelled")


async def test_a_sub_collaboration_is_undone_by_its_parent(platform: Stack) -> None:
    child = await stored(platform, {"steps": {"a": {"kind": "transform", "value": "made"}}})
    async with shop(platform) as (queue, seen):
        sub = {"kind": "collaboration", "ref": child, "compensate": take_back(queue, "${steps.sub.output}")}
        name = await stored(platform, {"steps": {"sub": sub, "bad": BAD | {"needs": ["sub"]}}}, "parent")
        await failure(await platform.start(name, {}, name))
    assert seen == ["made"]


async def test_a_run_with_more_to_undo_than_fits_one_message(platform: Stack) -> None:
    body = {"steps": {"buy": found("x", {"tool": "pause", "args": {"seconds": 0}})}}
    steps = {
        "each": {"kind": "map", "over": "input.n", "max_items": 1_000, "body": body},
        "bad": BAD | {"needs": ["each"]},
    }
    name = await stored(platform, {"steps": steps}, "many")
    await failure(await platform.start(name, {"n": list(range(450))}, name))
    assert {row[1] for row in await undone(platform, name)} == {"completed"}
    assert len(await undone(platform, name)) == 450
