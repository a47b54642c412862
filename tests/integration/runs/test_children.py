"""Steps that run another collaboration, on the real Temporal, Postgres and worker."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.client import WorkflowFailureError

from tests.integration.runs.test_collaboration import attempts, failure, status, unique
from tests.support.stack import Stack

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
SHOUT: dict[str, Any] = {
    "input": TEXT,
    "steps": {"shout": {"kind": "transform", "value": "${input.text}!"}},
}
LONG: dict[str, Any] = {"steps": {"rest": {"kind": "wait", "for": "1h"}}}
BAD: dict[str, Any] = {"steps": {"bad": {"kind": "tool", "tool": "json.parse", "args": {"text": "no json"}}}}


async def stored(on: Stack, definition: dict[str, Any], name: str = "child") -> str:
    """The name of its own under which the definition is stored."""
    name = unique(name)
    await on.store({**definition, "name": name})
    return name


async def rows(on: Stack, query: str, **values: Any) -> list[tuple[Any, ...]]:
    async with on.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query), values)]


async def children_of(on: Stack, workflow_id: str) -> list[tuple[Any, ...]]:
    """(workflow id, path, version, status, error code) of a run's sub-collaborations, in order of paths."""
    return await rows(
        on,
        """SELECT c.temporal_workflow_id, c.parent_path, w.version, c.status, c.error_code
        FROM collaborations c JOIN workflows w ON w.id = c.workflow_id
        JOIN collaborations p ON p.id = c.parent_id WHERE p.temporal_workflow_id = :id
        ORDER BY c.parent_path""",
        id=workflow_id,
    )


async def test_a_step_runs_the_version_that_was_there_at_upload(platform: Stack) -> None:
    child = await stored(platform, SHOUT)
    parent = await stored(
        platform,
        {
            "steps": {
                "loud": {"kind": "collaboration", "ref": child, "input": {"text": "${input.who}"}},
                "greet": {"kind": "transform", "value": "Hello ${steps.loud.output}"},
            }
        },
        "parent",
    )
    newer = {**SHOUT, "name": child, "steps": {"shout": {"kind": "transform", "value": "newer"}}}
    await platform.store(newer)
    assert await (await platform.start(parent, {"who": "Ada"}, parent)).result() == "Hello Ada!"
    assert await children_of(platform, parent) == [(f"{parent}~loud", "loud", 1, "completed", None)]
    assert await rows(
        platform,
        """SELECT e.status, e.kind, e.agent_name, e.cost_usd, e.output FROM agent_executions e
        JOIN collaborations c ON c.id = collaboration_id
        WHERE c.temporal_workflow_id = :id AND path = 'loud'""",
        id=parent,
    ) == [("completed", "collaboration", child, 0, "Ada!")]


async def test_every_item_of_a_map_has_a_sub_collaboration_of_its_own(platform: Stack) -> None:
    child = await stored(platform, SHOUT)
    body = {"steps": {"loud": {"kind": "collaboration", "ref": child, "input": {"text": "${item}"}}}}
    parent = await stored(
        platform,
        {"steps": {"each": {"kind": "map", "over": "input.words", "max_items": 5, "body": body}}},
        "parent",
    )
    assert await (await platform.start(parent, {"words": ["a", "b"]}, parent)).result() == ["a!", "b!"]
    assert [row[:2] for row in await children_of(platform, parent)] == [
        (f"{parent}~each[0].loud", "each[0].loud"),
        (f"{parent}~each[1].loud", "each[1].loud"),
    ]


async def test_a_failing_sub_collaboration_fails_the_step_with_its_code(platform: Stack) -> None:
    child = await stored(platform, BAD)
    step = {"kind": "collaboration", "ref": child}
    parent = await stored(platform, {"steps": {"sub": step}}, "parent")
    error = await failure(await platform.start(parent, {}, parent))
    assert error.type == "tool_failed"
    assert await status(platform, parent) == ("failed", "", "tool_failed")
    assert await attempts(platform, parent) == [("sub", 1, "failed", "tool_failed")]
    assert await rows(
        platform,
        """SELECT o.payload ->> 'step', o.payload ->> 'error_code' FROM outbox o
        JOIN collaborations c ON c.id::text = o.aggregateid
        WHERE c.temporal_workflow_id = :id AND o.type = 'AttemptFailed'""",
        id=parent,
    ) == [("sub", "tool_failed")]
    caught = {**step, "catch": [{"errors": ["tool_failed"], "value": "never mind"}]}
    parent = await stored(platform, {"steps": {"sub": caught}}, "parent")
    assert await (await platform.start(parent, {}, parent)).result() == "never mind"


async def test_input_that_does_not_fit_is_refused_before_anything_is_started(platform: Stack) -> None:
    child = await stored(platform, SHOUT)
    parent = await stored(
        platform,
        {"steps": {"loud": {"kind": "collaboration", "ref": child, "input": {"text": "${input.n}"}}}},
        "parent",
    )
    error = await failure(await platform.start(parent, {"n": 5}, parent))
    assert error.type == "input_invalid"
    assert "'loud'" in error.message and "/text" in error.message
    assert await attempts(platform, parent) == [("loud", 1, "failed", "input_invalid")]
    assert await children_of(platform, parent) == []
    error = await failure(await platform.start(parent, {"n": "x" * 300_000}, unique("large")))
    assert error.type == "input_too_large"


async def _begun(on: Stack, id: str) -> None:
    async with asyncio.timeout(20):
        while not await children_of(on, id):
            await asyncio.sleep(0.05)


async def test_cancelling_a_run_cancels_its_sub_collaborations(platform: Stack) -> None:
    child = await stored(platform, LONG)
    parent = await stored(platform, {"steps": {"sub": {"kind": "collaboration", "ref": child}}}, "parent")
    handle = await platform.start(parent, {}, parent)
    await _begun(platform, parent)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert await status(platform, parent) == ("failed", "cancelled", "cancelled")
    assert await status(platform, f"{parent}~sub") == ("failed", "cancelled", "cancelled")
    assert await attempts(platform, parent) == [("sub", 1, "failed", "cancelled")]


async def test_a_sub_collaboration_that_somebody_cancels_is_an_error_of_its_step(platform: Stack) -> None:
    child = await stored(platform, LONG)
    catch = [{"errors": ["cancelled"], "value": "without it"}]
    parent = await stored(
        platform, {"steps": {"sub": {"kind": "collaboration", "ref": child, "catch": catch}}}, "parent"
    )
    handle = await platform.start(parent, {}, parent)
    await _begun(platform, parent)
    await platform.client.get_workflow_handle(f"{parent}~sub").cancel()
    assert await handle.result() == "without it"


async def test_a_sub_collaboration_that_takes_too_long_is_cancelled(platform: Stack) -> None:
    child = await stored(platform, LONG)
    parent = await stored(
        platform, {"steps": {"sub": {"kind": "collaboration", "ref": child, "timeout": "1s"}}}, "parent"
    )
    assert (await failure(await platform.start(parent, {}, parent))).type == "timeout"
    assert await status(platform, parent) == ("failed", "", "timeout")
    assert await status(platform, f"{parent}~sub") == ("failed", "cancelled", "cancelled")


PLAN: dict[str, Any] = {
    "name": "whatever it likes",
    "steps": {"double": {"kind": "transform", "value": "${input.n * 2}"}},
    "output": "${steps.double.output}",
}
PLANNER: dict[str, Any] = {
    "steps": {
        "work": {"kind": "collaboration", "definition": "${input.plan}", "input": {"n": "${input.n}"}},
        "more": {"kind": "transform", "value": "${steps.work.output + 1}"},
    },
    "output": "${steps.more.output}",
}


@pytest.mark.parametrize("as_text", [False, True])
async def test_a_planned_definition_is_stored_and_run(platform: Stack, as_text: bool) -> None:
    parent = await stored(platform, PLANNER, "planner")
    plan = json.dumps(PLAN) if as_text else PLAN
    assert await (await platform.start(parent, {"plan": plan, "n": 20}, parent)).result() == 41
    again = unique("again")
    assert await (await platform.start(parent, {"plan": plan, "n": 1}, again)).result() == 3
    # The same plan is the same version, which belongs to the run that planned it first.
    assert await rows(
        platform,
        """SELECT w.version, c.temporal_workflow_id FROM workflows w
        JOIN collaborations c ON c.id = w.planned_by WHERE w.name = :name""",
        name=f"{parent}-work",
    ) == [(1, parent)]
    error = await failure(await platform.start(f"{parent}-work", {"n": 1}, unique("direct")))
    assert error.type == "definition_unknown"


async def test_a_plan_is_checked_like_an_upload(platform: Stack) -> None:
    parent = await stored(platform, PLANNER, "planner")
    plan = {
        "steps": {
            "a": {"kind": "transform", "value": "${steps.nowhere.output}"},
            "b": {"kind": "tool", "tool": "rm", "args": {}},
            "c": {"kind": "collaboration", "ref": "no-such-thing"},
        }
    }
    error = await failure(await platform.start(parent, {"plan": plan, "n": 1}, parent))
    assert error.type == "plan_invalid"
    assert "/steps/a" in error.message and "/steps/b" in error.message
    assert await attempts(platform, parent) == [("work", 1, "failed", "plan_invalid")]
    del plan["steps"]["a"], plan["steps"]["b"]
    error = await failure(await platform.start(parent, {"plan": plan, "n": 1}, unique("ref")))
    assert error.type == "plan_invalid" and "no-such-thing" in error.message
    broken: Any
    for broken in ("no json", 5, {"steps": {}}):
        error = await failure(await platform.start(parent, {"plan": broken, "n": 1}, unique("broken")))
        assert error.type == "plan_invalid"


async def test_plans_within_plans_come_to_an_end(platform: Stack) -> None:
    deeper = {"kind": "collaboration", "definition": "${input.plan}", "input": {"plan": "${input.plan}"}}
    parent = await stored(platform, {"steps": {"deeper": deeper}}, "planner")
    error = await failure(await platform.start(parent, {"plan": {"steps": {"deeper": deeper}}}, parent))
    assert error.type == "plan_too_deep"
    path = "~deeper" * 3
    assert await status(platform, parent + path) == ("failed", "", "plan_too_deep")
    assert await children_of(platform, parent + path) == []


async def test_the_id_of_a_sub_collaboration_stays_within_what_temporal_takes(platform: Stack) -> None:
    child = await stored(platform, SHOUT)
    parent = await stored(
        platform,
        {"steps": {"sub": {"kind": "collaboration", "ref": child, "input": {"text": "a"}}}},
        "parent",
    )
    id = f"{uuid.uuid4().hex}-{'x' * 900}"
    assert await (await platform.start(parent, {}, id)).result() == "a!"
    [(found, *_)] = await children_of(platform, id)
    assert len(found) <= 900 and found.startswith(id[:800])
