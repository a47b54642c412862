"""What a run cost: its own calls and those of everything within it, each counted once."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from api.runs import service
from db.engine import transaction
from db.runs import collaborations
from db.runs.collaborations import RunFilter
from db.runs.journal import Journal
from db.wakeups import Bell
from schema.temporal.runs import Finish
from schema.temporal.steps import StepRequest, StepResult
from tests.support.runs import begin, rows

ASKING: dict[str, Any] = {
    "agents": {"a": {"model": "openai/gpt-4", "max_output_tokens": 100}},
    "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Add 1 and 2."}},
}


def figures(results: list[StepResult]) -> tuple[Decimal, int, bool]:
    """(dollars, tokens, simulated) of some steps."""
    return (
        sum((Decimal(one.cost_usd) for one in results), Decimal(0)),
        sum(one.input_tokens + one.output_tokens for one in results),
        bool(results),
    )


@pytest.fixture
async def family(engine: AsyncEngine, agents: AgentActivity) -> dict[str, list[StepResult]]:
    """run → what was called in it and below: two children ask, one has a child that does, their parent asks
    nothing itself; and another run that asks."""
    other = await begin(engine, {**ASKING, "name": "other"})
    top = await begin(engine, {**ASKING, "name": "top"})
    left, right = [await begin(engine, {**ASKING, "name": "child"}, parent=top) for _ in range(2)]
    below = await begin(engine, {**ASKING, "name": "below"}, parent=left)
    asked = {one.collaboration: await agents.agent(one) for one in (other, left, right, below)}

    def within(*those: StepRequest) -> list[StepResult]:
        return [asked[one.collaboration] for one in those]

    return {
        top.collaboration: within(left, right, below),
        left.collaboration: within(left, below),
        right.collaboration: within(right),
        below.collaboration: within(below),
        other.collaboration: within(other),
    }


async def test_a_runs_total_has_what_its_sub_collaborations_cost(
    engine: AsyncEngine, family: dict[str, list[StepResult]]
) -> None:
    async with transaction(engine) as connection:
        listed = await collaborations.recent(connection, "default", RunFilter())
        found = [await collaborations.find(connection, "default", str(one.uuid)) for one in listed]
    assert found == listed
    assert {
        str(one.uuid): (one.cost_usd, one.input_tokens + one.output_tokens, one.simulated) for one in found
    } == {run: figures(results) for run, results in family.items()}
    shown = service.summary(replace(found[0], status="completed"))
    assert (shown.cost_usd, shown.simulated) == (float(found[0].cost_usd), True)
    steps = {one.name: one.steps_done for one in found}
    assert steps == {"top": 0, "child": 1, "below": 1, "other": 1}


async def test_the_event_of_a_runs_end_has_them_too(
    engine: AsyncEngine, family: dict[str, list[StepResult]]
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    bell = Bell(url)
    journal = Journal(url, bell)
    for run in family:
        assert await journal.finish(Finish(run, "default", "", "completed"), None)
    await journal.close()
    await bell.close()
    told = await rows(
        engine,
        """SELECT aggregateid::text, (payload ->> 'cost_usd')::numeric, (payload ->> 'tokens')::int,
            (payload ->> 'simulated')::bool
        FROM outbox WHERE type = 'CollaborationFinished'""",
    )
    assert {run: tuple(found) for run, *found in told} == {
        run: figures(results) for run, results in family.items()
    }
