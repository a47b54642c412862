"""What the console asks of the API beyond what there was: search, one step in full, figures over time."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.api_client import door, problem
from tests.support.stack import Stack


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with door(platform.settings) as client:
        yield client


@pytest.fixture
async def run(platform: Stack) -> str:
    """The id of a run that has ended, whose task nobody else has."""
    name = f"figures-{uuid.uuid4().hex[:8]}"
    await platform.store(
        {
            "name": name,
            "agents": {name: {"model": {"among": ["openai/gpt-4o-mini", "deepseek/deepseek-chat"]}}},
            "steps": {
                "write": {"kind": "agent", "agent": name, "prompt": "${input.task}", "recall": {"limit": 1}},
                "end": {"kind": "transform", "value": "${steps.write.output}"},
            },
            "output": "${steps.end.output}",
        }
    )
    handle = await platform.start(name, {"task": f"100% of {name}"}, id=f"run-of-{name}")
    await asyncio.wait_for(handle.result(), 60)
    return f"run-of-{name}"


async def test_runs_are_found_by_id_name_and_task(http: httpx.AsyncClient, run: str) -> None:
    name = run.removeprefix("run-of-")

    async def found(words: str) -> list[Any]:
        answer = await http.get("/v1/collaborations", params={"q": words})
        assert answer.status_code == 200
        return [one["id"] for one in answer.json()["items"]]

    for words in (run, name, f"100% OF {name.upper()}"):
        assert await found(words) == [run]
    # What means something to LIKE means itself.
    assert await found(f"1_0% of {name}") == []
    [summary] = (await http.get("/v1/collaborations", params={"q": run})).json()["items"]
    assert summary["simulated"] is True


async def test_a_step_in_full(http: httpx.AsyncClient, run: str) -> None:
    found = (await http.get(f"/v1/collaborations/{run}/steps/write/details")).json()
    [attempt] = found["attempts"]
    assert (attempt["status"], attempt["simulated"]) == ("completed", True)
    assert found["output"]
    assert found["memory_source"] in ("weaviate", "pgvector", "none")
    assert found["routing"]["model"] == attempt["requested_model"]
    assert set(found["routing"]["candidates"]) == {"openai/gpt-4o-mini", "deepseek/deepseek-chat"}
    plain = (await http.get(f"/v1/collaborations/{run}/steps/end/details")).json()
    assert (plain["memory"], plain["memory_source"], plain["routing"]) == ([], None, None)
    problem(await http.get(f"/v1/collaborations/{run}/steps/nope/details"), 404, "step_not_begun")


@pytest.mark.parametrize("period", ["24h", "7d", "30d"])
async def test_figures_over_time(http: httpx.AsyncClient, run: str, period: str) -> None:
    answer = await http.get("/v1/analytics", params={"period": period})
    assert answer.status_code == 200
    found = answer.json()
    detail = (await http.get(f"/v1/collaborations/{run}")).json()
    agent = next(one for one in found["agents"] if one["name"] == run.removeprefix("run-of-"))
    assert (agent["attempts"], agent["failed"], agent["simulated"]) == (1, 0, True)
    assert agent["cost_usd"] == pytest.approx(detail["cost_usd"])
    assert agent["input_tokens"] + agent["output_tokens"] == detail["tokens"]
    assert 0 < agent["first_token_p50_ms"] <= agent["p50_ms"] == agent["p95_ms"]
    assert sum(one["runs"] for one in found["runs"] if one["status"] == "completed") >= 1
    assert sum(one["cost_usd"] for one in found["costs"]) >= detail["cost_usd"]
    assert all(one["at"] >= found["since"] for one in (*found["runs"], *found["costs"]))


async def test_another_period_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/analytics", params={"period": "1y"})).status_code == 422
