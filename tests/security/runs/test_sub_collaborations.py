"""One start leads to a bounded number of sub-collaborations, planned ones included."""

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.runs.children import ChildrenActivity
from db.runs.admission import Admission
from schema.errors import Refused, StepError
from schema.settings import Settings
from schema.temporal.runs import PinRequest
from schema.temporal.steps import StepRequest
from tests.support.api_client import door
from tests.support.lifecycle import recording
from tests.support.runs import begin, rows

LEAF: dict[str, Any] = {"name": "leaf", "steps": {"rest": {"kind": "wait", "for": "1h"}}}
SUB: dict[str, Any] = {"kind": "collaboration", "ref": "leaf"}
PARENT: dict[str, Any] = {"name": "parent", "steps": dict.fromkeys("abcde", SUB)}
PLANNER: dict[str, Any] = {
    "name": "planner",
    "steps": {
        name: {"kind": "collaboration", "definition": "${input.plan}", "input": {"plan": "${input.plan}"}}
        for name in "abcd"
    },
}


def bounded(engine: AsyncEngine, **limits: int) -> ChildrenActivity:
    return ChildrenActivity(engine, Admission(engine, Settings().model_copy(update=limits)))


async def begun(children: ChildrenActivity, request: StepRequest, *steps: str) -> list[str]:
    """What each step of a run came to when all began at once: `begun`, or the code of its refusal."""

    async def one(step: str) -> str:
        within = StepRequest(request.collaboration, request.tenant, step, request.traceparent)
        try:
            await ActivityEnvironment().run(children.begin_child, within)
        except (StepError, Refused) as error:
            return error.code
        return "begun"

    return list(await asyncio.gather(*map(one, steps)))


async def counted(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    return await rows(engine, "SELECT root_id::text, children FROM run_trees")


async def test_sub_collaborations_are_counted_at_the_outermost_run(
    engine: AsyncEngine, settings: Settings
) -> None:
    children = bounded(engine, max_sub_collaborations=3)
    await begin(engine, LEAF)
    root = await begin(engine, PARENT, step="a")
    assert await begun(children, root, "a") == ["begun"]
    inner = await begin(engine, PARENT, step="a", parent=root)
    assert await begun(children, inner, "a", "b") == ["begun", "begun"]
    assert await begun(children, inner, "c") == ["too_many_children"]
    assert await begun(children, root, "b") == ["too_many_children"]
    assert await counted(engine) == [(root.collaboration, 3)]
    async with door(settings) as http:
        for run in (root, inner):
            shown = (await http.get(f"/v1/collaborations/{run.collaboration}?limit=1")).json()
            assert shown["sub_collaborations"] == 3


async def test_a_retry_counts_nothing_a_second_time(engine: AsyncEngine) -> None:
    children = bounded(engine, max_sub_collaborations=1)
    await begin(engine, LEAF)
    root = await begin(engine, PARENT)
    for _ in range(3):
        assert await begun(children, root, "a") == ["begun"]
    assert await counted(engine) == [(root.collaboration, 1)]


async def test_many_at_once_stay_within_the_limit(engine: AsyncEngine) -> None:
    children = bounded(engine, max_sub_collaborations=3)
    await begin(engine, LEAF)
    root = await begin(engine, PARENT)
    came_to = await begun(children, root, *"abcde")
    assert sorted(came_to) == ["begun"] * 3 + ["too_many_children"] * 2
    assert await counted(engine) == [(root.collaboration, 3)]


async def test_planned_definitions_within_planned_ones_count_too(engine: AsyncEngine) -> None:
    children = bounded(engine, max_sub_collaborations=5)
    plan = {"steps": PLANNER["steps"]}
    root = await begin(engine, PLANNER, input={"plan": plan})
    assert await begun(children, root, *"abcd") == ["begun"] * 4
    within = StepRequest(root.collaboration, root.tenant, "a", root.traceparent)
    inner = await begin(engine, PLANNER, parent=within, input={"plan": plan})
    assert sorted(await begun(children, inner, "a", "b")) == ["begun", "too_many_children"]


async def test_a_sub_collaboration_begins_only_where_one_more_run_may(engine: AsyncEngine) -> None:
    await begin(engine, LEAF)
    root = await begin(engine, PARENT)
    assert await begun(bounded(engine, max_running_runs=2), root, "a") == ["too_many_running"]
    assert await counted(engine) == []
    assert await begun(bounded(engine, max_running_runs=3), root, "a") == ["begun"]


async def test_what_a_fork_goes_on_with_counts_for_the_fork(engine: AsyncEngine) -> None:
    children = bounded(engine)
    await begin(engine, LEAF)
    root = await begin(engine, PARENT)
    assert await begun(children, root, "a", "b") == ["begun", "begun"]
    fork = {"collaboration": root.collaboration, "from_steps": [], "outputs": {}}
    id = "00000000-0000-4000-8000-000000000001"
    request = PinRequest("fork", id, "parent", {}, "default", None, "local", fork=fork)
    async with recording(engine) as record:
        await ActivityEnvironment().run(record.pin, request)
    assert sorted(await counted(engine)) == sorted([(root.collaboration, 2), (id, 2)])
    # They have been counted: to begin them is to go on.
    assert await begun(children, StepRequest(id, "default", "a", root.traceparent), "a") == ["begun"]
    assert sorted(await counted(engine)) == sorted([(root.collaboration, 2), (id, 2)])


async def test_planned_definitions_share_the_room_for_definitions(engine: AsyncEngine) -> None:
    root = await begin(engine, PLANNER, input={"plan": {"steps": LEAF["steps"]}})
    [(used,)] = await rows(engine, "SELECT used FROM tenant_usage WHERE subject = 'definition_bytes'")
    assert await begun(bounded(engine, max_definition_bytes=used), root, "a") == ["definitions_full"]
    assert await rows(engine, "SELECT name FROM workflows") == [("planner",)]
