"""The model for a step: chosen once, kept with the chance it had."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.route import RouteActivity
from db.routing import Decision
from schema.messages import RouteResult, StepRequest
from schema.tables import routing_decisions
from tests.integration.known_log import begin


async def route(engine: AsyncEngine, request: StepRequest) -> RouteResult:
    return await ActivityEnvironment().run(RouteActivity(engine).route, request)


async def decisions(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list(await connection.execute(select(routing_decisions)))


async def test_a_step_keeps_its_model(engine: AsyncEngine) -> None:
    request = await begin(engine, "Write a Python function")
    first = await route(engine, request)
    assert await route(engine, request) == first
    [row] = await decisions(engine)
    assert row.candidates == {"openai/gpt-4": 0.02, "deepseek/deepseek-chat": 0.98}
    assert (row.chosen_model, row.propensity) == (first.model, row.candidates[first.model])
    assert (row.policy, row.fallback, row.features["language"]) == ("rules-v1", False, "python")


async def test_a_policy_that_fails_is_replaced_by_the_plain_default(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: str, role: str | None, candidates: Sequence[str], key: str) -> Decision:
        raise RuntimeError("corrupt")

    monkeypatch.setattr("router.rules.choose", broken)
    result = await route(engine, await begin(engine, "Write a Python function"))
    assert result.policy == "rules-v1-fallback"
    [row] = await decisions(engine)
    assert row.fallback
