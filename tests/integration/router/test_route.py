"""The model for a step: chosen once, kept with the chance it had."""

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.routing.facts import Chooser
from activities.routing.route import RouteActivity
from db.engine import transaction
from db.money import prices
from db.router import checkpoints, quarantines
from db.router.decisions import RoutingDecision
from router.checkpoints.storage import Checkpoint
from router.data import features
from schema.tables.router import routing_decisions
from schema.temporal.steps import RouteResult, StepRequest
from tests.support.event_log import begin
from tests.support.learned import learned, put_to_work
from tests.support.providers import SIMULATOR
from tests.support.runs import begin as begin_one

GPT, DEEPSEEK = "openai/gpt-4", "deepseek/deepseek-chat"


@pytest.fixture(scope="module")
def gpt_is_better() -> Checkpoint:
    """Rules would take the other for Python."""
    return learned(GPT, models=(GPT, DEEPSEEK), embedding=features.rows)


async def route(engine: AsyncEngine, request: StepRequest) -> RouteResult:
    return await ActivityEnvironment().run(RouteActivity(engine, SIMULATOR).route, request)


async def routed(activity: RouteActivity, request: StepRequest) -> RouteResult:
    return await ActivityEnvironment().run(activity.route, request)


async def decisions(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        query = select(routing_decisions).order_by(routing_decisions.c.created_at)
        return list(await connection.execute(query))


async def until_loaded(engine: AsyncEngine, chooser: Chooser) -> None:
    from activities.routing.facts import known

    async with transaction(engine) as connection:
        found = await known(connection, "default", simulated=True)
    await chooser.settled(found)


async def test_a_step_keeps_its_model(engine: AsyncEngine) -> None:
    request = await begin(engine, "Write a Python function")
    first = await route(engine, request)
    assert await route(engine, request) == first
    [row] = await decisions(engine)
    assert row.candidates == {GPT: 0.02, DEEPSEEK: 0.98}
    assert (row.chosen_model, row.propensity) == (first.model, row.candidates[first.model])
    assert (row.policy, row.fallback, row.features["language"]) == ("rules-v1", False, "python")
    assert (row.features["checkpoint"], first.confidence, first.ask) == (None, None, False)


async def test_a_policy_that_fails_is_replaced_by_the_plain_default(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: str, role: str | None, candidates: Sequence[str], key: str) -> RoutingDecision:
        raise RuntimeError("corrupt")

    monkeypatch.setattr("router.serve.rules.choose", broken)
    result = await route(engine, await begin(engine, "Write a Python function"))
    assert result.policy == "rules-v1-fallback"
    [row] = await decisions(engine)
    assert row.fallback


async def test_a_checkpoint_decides_once_it_is_loaded(engine: AsyncEngine, gpt_is_better: Checkpoint) -> None:
    await put_to_work(engine, gpt_is_better)
    chooser = Chooser(engine)
    activity = RouteActivity(engine, SIMULATOR, chooser)
    early = await begin(engine, "Sort a Python list")
    assert (await routed(activity, early)).policy == "rules-v1"
    await until_loaded(engine, chooser)
    async with transaction(engine) as connection:
        await prices.add(connection, "default", GPT, Decimal(1), Decimal(2), None, "test")
    request = await begin(engine, "Sort a Python list")
    found = await routed(activity, request)
    assert found.policy == "checkpoint-1"
    assert found.confidence is not None
    assert found.max_output_tokens is None
    # Whoever asks again gets what was kept, also when another checkpoint serves by then.
    async with transaction(engine) as connection:
        await checkpoints.roll_back(connection, "default", "test", "test", simulated=True)
    assert await routed(activity, request) == found
    assert await routed(activity, early) == RouteResult(
        (await decisions(engine))[0].chosen_model, "rules-v1", (await decisions(engine))[0].propensity
    )
    row = (await decisions(engine))[1]
    assert row.candidates[GPT] > 0.9
    assert row.features["votes"] == {"rules": DEEPSEEK, "memory": GPT, "neural": None}
    low, expected, high = row.features["predicted"][GPT]["usd"]
    assert 0 < low < expected < high
    assert (row.features["checkpoint"], row.fallback) == (1, False)
    after = await begin(engine, "Sort a Python list")
    assert (await routed(activity, after)).policy == "rules-v1"


async def test_a_corrupt_checkpoint_never_stops_a_run(engine: AsyncEngine, gpt_is_better: Checkpoint) -> None:
    await put_to_work(engine, gpt_is_better)
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE checkpoints SET content = substring(content FROM 1 FOR 1000)"))
    chooser = Chooser(engine)
    await until_loaded(engine, chooser)
    found = await routed(
        RouteActivity(engine, SIMULATOR, chooser), await begin(engine, "Write a Python function")
    )
    assert found.policy == "rules-v1"
    [row] = await decisions(engine)
    assert row.fallback
    assert "checkpoint 1" in row.features["broken"]


async def test_a_model_that_must_rest_is_hardly_chosen(
    engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    async with transaction(engine) as connection:
        await quarantines.add(connection, "default", DEEPSEEK, "fails", "test", simulated=True)
    await route(engine, await begin(engine, "Write a Python function"))
    [row] = await decisions(engine)
    assert row.candidates == pytest.approx({GPT: 0.99, DEEPSEEK: 0.01})
    assert row.features["quarantined"] == [DEEPSEEK]


async def test_a_rule_can_ask_for_people_and_for_a_limit(
    engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    chooser = Chooser(engine)
    await until_loaded(engine, chooser)
    activity = RouteActivity(engine, SIMULATOR, chooser)

    async def asked(**rule: Any) -> RouteResult:
        rule = {"among": [GPT, DEEPSEEK], **rule}
        definition = {
            "agents": {"one": {"role": "coder", "model": rule}},
            "steps": {"ask": {"kind": "agent", "agent": "one", "prompt": "Do it."}},
        }
        return await routed(activity, await begin_one(engine, definition))

    assert (await asked(ask_below=1.0)).ask
    assert not (await asked(ask_below=0.01)).ask
    limited = await asked(reasoning="auto")
    assert limited.max_output_tokens is not None
    assert 256 <= limited.max_output_tokens <= 32_000


async def test_a_rule_can_let_a_cheap_model_answer_first(engine: AsyncEngine) -> None:
    rule = {"among": [GPT, DEEPSEEK], "verify": {}}
    definition = {
        "agents": {"one": {"role": "architect", "model": rule}},
        "steps": {"ask": {"kind": "agent", "agent": "one", "prompt": "Do it."}},
    }
    await route(engine, await begin_one(engine, definition))
    [row] = await decisions(engine)
    plan = row.features["verify"]
    assert (plan["cheap"], plan["strong"]) == (DEEPSEEK, GPT)
    assert row.candidates[DEEPSEEK] == 0.98


async def test_steps_are_routed_while_checkpoints_are_swapped(
    engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    """120 steps, six at a time, while three more checkpoints come to serve: none fails, none falls back."""
    other = learned(DEEPSEEK, 1, models=(GPT, DEEPSEEK), embedding=features.rows)
    await put_to_work(engine, gpt_is_better)
    chooser = Chooser(engine)
    await until_loaded(engine, chooser)
    activity = RouteActivity(engine, SIMULATOR, chooser)
    requests = [await begin(engine, f"Sort list {number % 10}") for number in range(120)]
    slowest: list[float] = []
    waiting = iter(requests)

    async def working() -> None:
        for request in waiting:
            began = time.perf_counter()
            await routed(activity, request)
            slowest.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)

    async def swapping() -> None:
        for found in (other, gpt_is_better, other):
            await put_to_work(engine, found)
            await until_loaded(engine, chooser)

    await asyncio.gather(swapping(), *(working() for _ in range(6)))
    rows = await decisions(engine)
    assert len(rows) == len(slowest) == 120
    assert not any(row.fallback for row in rows)
    assert {row.policy for row in rows} <= {f"checkpoint-{number}" for number in range(1, 5)}
    assert rows[0].policy == "checkpoint-1"
