"""What came of agents' steps, as the rows of runs tell it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.router import decisions, outcomes
from db.router.outcomes import OutcomeRow
from db.runs import executions
from db.runs.executions import Assignment, AttemptOutcome
from schema.errors import FacilitairError
from schema.temporal.steps import StepRequest
from tests.support.runs import begin, rows

SCORE = {"type": "object", "properties": {"quality": {"type": "number"}}, "required": ["quality"]}
AGENTS = {
    "coder": {"model": "openai/gpt-4o-mini", "role": "coder"},
    "critic": {"model": "openai/gpt-4o", "role": "reviewer"},
}
"""Write, put together, review, ask a person, and finish; aside somebody reads the news."""
DEFINITION: dict[str, Any] = {
    "agents": AGENTS,
    "steps": {
        "plan": {"kind": "agent", "agent": "coder", "prompt": "Plan ${input.task}"},
        "write": {"kind": "agent", "agent": "coder", "prompt": "Write ${steps.plan.output}"},
        "whole": {"kind": "transform", "value": {"code": "${steps.write.output}"}},
        "review": {
            "kind": "agent",
            "agent": "critic",
            "prompt": "Review ${steps.whole.output}",
            "output_schema": SCORE,
        },
        "ask": {"kind": "human", "title": "Good?", "show": {"text": "${steps.poem.output}"}},
        "poem": {"kind": "agent", "agent": "coder", "prompt": "A poem"},
        "data": {"kind": "agent", "agent": "coder", "prompt": "Data", "output_schema": {"type": "object"}},
        "aside": {"kind": "agent", "agent": "coder", "prompt": "Say something"},
    },
    "output": "${steps.whole.output}",
}
LOOP: dict[str, Any] = {
    "agents": AGENTS,
    "steps": {
        "improve": {
            "kind": "loop",
            "init": "",
            "max_iterations": 3,
            "carry": "${iter.output}",
            "body": {
                "steps": {
                    "write": {"kind": "agent", "agent": "coder", "prompt": "Better than ${iter.carry}"},
                    "review": {
                        "kind": "agent",
                        "agent": "critic",
                        "prompt": "Review ${steps.write.output}",
                        "output_schema": SCORE,
                    },
                },
                "output": "${steps.write.output}",
            },
        }
    },
}


async def done(
    engine: AsyncEngine,
    run: StepRequest,
    step: str,
    output: Any = "text",
    *,
    model: str = "openai/gpt-4o-mini",
    answered: str | None = None,
    kind: str = "agent",
    frame: str = "",
    fails: str = "",
    reused: uuid.UUID | None = None,
) -> uuid.UUID:
    """One attempt at a step, from its claim to its end."""
    request = replace(run, step=step, frame=frame)
    agent, role = ("critic", "reviewer") if step == "review" else ("coder", "coder")
    worker = Assignment(kind, agent, role, model if kind == "agent" else None)
    came = AttemptOutcome(
        output,
        model=answered or model if kind == "agent" else "",
        input_tokens=100,
        output_tokens=20,
        cost_usd=Decimal("0.01"),
        reused_from=reused,
    )
    async with transaction(engine) as connection:
        begun = await executions.claim(connection, request, worker)
        if fails:
            await executions.fail(connection, request, begun, fails, "it failed", came)
        else:
            await executions.complete(connection, request, worker, begun, came)
    return begun.execution


async def close(
    engine: AsyncEngine, run: StepRequest, quality: float | None = None, status: str = "completed"
) -> None:
    query = (
        "UPDATE collaborations SET status = :status, quality_score = :quality, completed_at = now()"
        " WHERE id = :id"
    )
    async with transaction(engine) as connection:
        values = {"status": status, "quality": quality, "id": run.collaboration}
        await connection.execute(text(query), values)


async def all_rows(engine: AsyncEngine, tenant: str = "default", page_size: int = 2) -> list[OutcomeRow]:
    return [
        row
        async for page in outcomes.every(
            engine, tenant, datetime.now(UTC), page_size=page_size, simulated=False
        )
        for row in page
    ]


def told(found: list[OutcomeRow]) -> dict[str, tuple[str, float | None]]:
    return {row.path: (row.source, row.ok) for row in found}


async def test_each_step_goes_by_the_best_that_tells_of_it(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION, input={"task": "sorting"})
    for step in ("plan", "write", "poem", "aside"):
        await done(engine, run, step)
    await done(engine, run, "data", {"a": 1})
    await done(engine, run, "review", {"quality": 0.7}, model="openai/gpt-4o")
    await done(engine, run, "ask", {"decision": "reject"}, kind="human")
    assert await all_rows(engine) == [], "while it runs, a later step may still judge"
    await close(engine, run, 0.6)
    found = await all_rows(engine)
    assert told(found) == {
        "plan": ("run", 0.6),
        "write": ("review", 0.7),
        "poem": ("human", 0.0),
        "aside": ("", None),
        "data": ("checked", 1.0),
        "review": ("checked", 1.0),
    }
    write = next(row for row in found if row.path == "write")
    assert (write.definition, write.step, write.agent, write.role) == ("one", "write", "coder", "coder")
    assert (write.task, write.prompt) == ("t", "Write ${steps.plan.output}")
    assert (write.model, write.answered_by) == ("openai/gpt-4o-mini", "openai/gpt-4o-mini")
    assert (write.input_tokens, write.output_tokens, write.usd) == (100, 20, 0.01)
    assert write.seconds is not None and 0 <= write.seconds < 60
    assert write.decision is None


async def test_pages_are_in_order_and_newest_has_the_last(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    for step in ("plan", "write", "poem", "aside", "data"):
        await done(engine, run, step)
    await close(engine, run)
    found = await all_rows(engine, page_size=2)
    assert [row.path for row in found] == ["plan", "write", "poem", "aside", "data"]
    assert await all_rows(engine, page_size=100) == found
    assert await all_rows(engine, tenant="another") == []
    async with transaction(engine) as connection:
        assert await outcomes.newest(connection, "default", found[0].at, 2, simulated=False) == found[3:]
        assert await outcomes.newest(connection, "default", found[3].at, simulated=False) == found[4:]
        assert await outcomes.page(connection, "default", found[1].at, simulated=False) == found[:2]


async def test_in_a_loop_each_review_tells_of_its_own_iteration(engine: AsyncEngine) -> None:
    run = await begin(engine, LOOP, step="improve")
    for n, quality in enumerate((0.2, 0.9)):
        await done(engine, run, "write", frame=f"improve[{n}]")
        await done(engine, run, "review", {"quality": quality}, frame=f"improve[{n}]")
    await done(engine, run, "write", frame="improve[2]")
    await close(engine, run, 0.9)
    assert told([row for row in await all_rows(engine) if row.step == "write"]) == {
        "improve[0].write": ("review", 0.2),
        "improve[1].write": ("review", 0.9),
        "improve[2].write": ("run", 0.9),
    }


async def test_failures_count_where_they_are_the_models(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    await done(engine, run, "plan", fails="output_invalid")
    await done(engine, run, "plan", fails="output_invalid")
    await done(engine, run, "write", fails="budget_exceeded")
    await done(engine, run, "aside", fails="provider_auth")
    # One that another model stood in for, and one whose further answer was right.
    await done(engine, run, "poem", fails="provider_unavailable")
    await done(engine, run, "poem", model="anthropic/claude-sonnet-4", answered="anthropic/claude-haiku")
    await done(engine, run, "data", fails="output_invalid")
    await done(engine, run, "data", {"a": 1})
    await close(engine, run, status="failed")
    found = await all_rows(engine)
    assert [(row.path, row.model, row.source, row.ok) for row in found] == [
        ("plan", "openai/gpt-4o-mini", "failed", 0.0),
        ("write", "openai/gpt-4o-mini", "", None),
        ("aside", "openai/gpt-4o-mini", "", None),
        ("poem", "openai/gpt-4o-mini", "failed", 0.0),
        ("poem", "anthropic/claude-sonnet-4", "", None),
        ("data", "openai/gpt-4o-mini", "checked", 1.0),
    ]
    assert [row.answered_by for row in found if row.path == "poem"] == ["", "anthropic/claude-haiku"]


async def test_what_is_no_answer_of_a_model_is_left_out(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    first = await done(engine, run, "plan")
    await done(engine, run, "poem", reused=first)
    await done(engine, replace(run, purpose="turn1"), "write")
    async with transaction(engine) as connection:
        await executions.skip(connection, replace(run, step="data"), Assignment("agent", "coder"))
    await done(engine, run, "whole", {"code": ""}, kind="transform")
    await close(engine, run)
    assert [row.path for row in await all_rows(engine)] == ["plan"]


async def test_a_decision_comes_with_the_model_that_it_drew(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    for step in ("plan", "poem"):
        decision = decisions.RoutingDecision(
            "openai/gpt-4o-mini",
            0.9,
            "rules-v1",
            {"domain": "general"},
            {"openai/gpt-4o-mini": 0.9, "openai/gpt-4o": 0.1},
            False,
        )
        async with transaction(engine) as connection:
            await decisions.record(connection, replace(run, step=step), decision)
    await done(engine, run, "plan")
    await done(engine, run, "poem", model="openai/gpt-4o")
    await close(engine, run)
    plan, poem = await all_rows(engine)
    assert plan.decision is not None and plan.by_router
    assert (plan.decision.policy, plan.decision.propensity) == ("rules-v1", 0.9)
    assert plan.decision.candidates == {"openai/gpt-4o-mini": 0.9, "openai/gpt-4o": 0.1}
    assert plan.decision.features == {"domain": "general"}
    assert poem.decision is not None and not poem.by_router, "people chose another one"


async def test_what_people_say_goes_before_all_else(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    write = await done(engine, run, "write")
    await done(engine, run, "review", {"quality": 0.7})
    id = uuid.UUID(run.collaboration)
    async with transaction(engine) as connection:
        assert await outcomes.tell(connection, "default", id, "write", 0.1, "user:ann", "wrong") == write
    assert told(await all_rows(engine)) == {"write": ("told", 0.1)}, "told while it runs, it counts at once"
    await close(engine, run, 0.7)
    async with transaction(engine) as connection:
        await outcomes.tell(connection, "default", id, "write", 1.0, "user:bob")
    assert told(await all_rows(engine))["write"] == ("told", 1.0)
    assert await rows(engine, "SELECT ok, actor, note FROM outcomes") == [(1.0, "user:bob", "")]
    said = await rows(
        engine, "SELECT actor, detail ->> 'ok' FROM audit_log WHERE action = 'outcome.tell' ORDER BY id"
    )
    assert said == [("user:ann", "0.1"), ("user:bob", "1.0")]


async def test_what_cannot_be_told_is_refused(engine: AsyncEngine) -> None:
    run = await begin(engine, LOOP, step="improve")
    for n in range(2):
        await done(engine, run, "write", frame=f"improve[{n}]")
    await done(engine, run, "improve", kind="loop")
    async with transaction(engine) as connection:
        await executions.claim(
            connection, replace(run, step="review"), Assignment("agent", "critic", None, "m")
        )
    id = uuid.UUID(run.collaboration)

    async def refused(
        place: str, ok: float = 1, tenant: str = "default", note: str = "", run: uuid.UUID = id
    ) -> str:
        with pytest.raises(FacilitairError) as caught:
            async with transaction(engine) as connection:
                await outcomes.tell(connection, tenant, run, place, ok, "user:ann", note)
        return f"{caught.value.code}: {caught.value.message}"

    assert await refused("write") == (
        "outcome_unclear: found that 'write' ran 2 times; expected one of improve[0].write, improve[1].write."
    )
    assert "outcome_unclear: found a step of kind loop at 'improve'" in await refused("improve")
    assert "outcome_unclear: found one that is running at 'review'" in await refused("review")
    assert "step_not_begun" in await refused("nothing")
    assert "outcome_invalid: found 1.5" in await refused("improve[0].write", 1.5)
    assert "outcome_invalid" in await refused("improve[0].write", float("nan"))
    assert "outcome_invalid: found a note of 2,001" in await refused("improve[0].write", note="x" * 2_001)
    assert "collaboration_unknown" in await refused("improve[0].write", tenant="another")
    assert "collaboration_unknown" in await refused("improve[0].write", run=uuid.uuid4())
    async with transaction(engine) as connection:
        await outcomes.tell(connection, "default", id, "improve[1].write", 0.5, "user:ann")


async def test_a_late_verdict_counts_when_it_is_there(engine: AsyncEngine) -> None:
    run = await begin(engine, DEFINITION)
    await done(engine, run, "aside")
    await close(engine, run)
    assert told(await all_rows(engine)) == {"aside": ("", None)}
    async with transaction(engine) as connection:
        await outcomes.tell(connection, "default", uuid.UUID(run.collaboration), "aside", 0.0, "user:ann")
        since = datetime.now(UTC) - timedelta(hours=1)
        assert told(await outcomes.newest(connection, "default", since, simulated=False)) == {
            "aside": ("told", 0.0)
        }
