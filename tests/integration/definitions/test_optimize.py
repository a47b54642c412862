"""The search for better examples: its gate, its budget, and where DSPy is installed what it comes to."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.agent.resources import Resources
from activities.agent.tokens import TokenLog
from activities.improve.model_calls import Asker
from activities.improve.optimize import OptimizeActivity
from db.engine import transaction
from gateway.request import Message
from schema.errors import Refused
from schema.language.catalogue import BUILT_IN
from schema.settings import Settings
from schema.temporal.upkeep import OptimizationResult, OptimizePrompt
from tests.support.api_client import door, problem
from tests.support.runs import begin, means_of, rows
from tests.support.stack import Stack

with_dspy = pytest.mark.skipif(
    find_spec("dspy") is None, reason="the optional extra `dspy` is not installed: uv sync --extra dspy"
)


def definition(name: str) -> dict[str, Any]:
    return {
        "agents": {"a": {"model": "openai/gpt-4o-mini", "prompt": name}},
        "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Write a Python function: ${input.task}"}},
    }


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


@pytest.fixture
async def means(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog
) -> AsyncIterator[Resources]:
    async with means_of(engine, simulator_url, tokens) as found:
        yield found


async def scored_runs(http: httpx.AsyncClient, engine: AsyncEngine, count: int, name: str = "p") -> None:
    """So many judged runs of a step that used the prompt, as the platform's own rows tell of them."""
    await http.put(f"/v1/prompts/{name}", json={"system": "You are a programmer."})
    request = await begin(engine, definition(name), input={"task": "nothing"})
    async with transaction(engine) as connection:
        await connection.execute(
            text("""
            WITH model AS (SELECT * FROM collaborations WHERE id = :model), runs AS (
                INSERT INTO collaborations (id, tenant_id, workflow_id, temporal_workflow_id, task, input,
                    status, quality_score, engine, traceparent, started_at, completed_at)
                SELECT gen_random_uuid(), model.tenant_id, workflow_id, gen_random_uuid()::text, 'task',
                    json_build_object('task', 'it handles case ' || n), 'completed', (n % 10) / 10.0, engine,
                    model.traceparent, now(), now()
                FROM model, generate_series(1, :count) AS n
                RETURNING id, quality_score, input
            )
            INSERT INTO agent_executions (id, tenant_id, collaboration_id, path, step_id, kind, attempt,
                agent_name, model_id, requested_model, status, prompt, output, completed_at)
            SELECT gen_random_uuid(), 'default', id, 'ask', 'ask', 'agent', 1, 'a', 'openai/gpt-4o-mini',
                'openai/gpt-4o-mini', 'completed', :ref, to_json('KNOWN ' || (input ->> 'task')), now()
            FROM runs
            """),
            {"model": request.collaboration, "count": count, "ref": f"{name}@1"},
        )


async def judge(control: httpx.AsyncClient, *, good: float, other: float) -> None:
    """A model that answers GOOD once it has seen examples, and a judge who gives fixed marks."""
    answers = {
        "## Answer\nGOOD": f'{{"quality": {good}}}',
        "Judge how well": f'{{"quality": {other}}}',
        "KNOWN it handles": "GOOD",
        "GOOD": "GOOD",
    }
    rules = [
        {"kind": "answer", "text": said, "match": {"contains": heard}, "times": None}
        for heard, said in answers.items()
    ]
    (await control.post("/_simulator/faults", json=rules)).raise_for_status()


def search(**more: Any) -> OptimizePrompt:
    values = {"id": str(uuid.uuid4()), "limit": 2_000, "budget_usd": "1", **more}
    return OptimizePrompt(tenant="default", name="p", actor="test", **values)


async def run(means: Resources, request: OptimizePrompt) -> OptimizationResult:
    return await ActivityEnvironment().run(OptimizeActivity(means).optimize_prompt, request)


async def test_it_is_refused_below_a_thousand_scored_collaborations(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources
) -> None:
    problem(await http.post("/v1/prompts/p/optimize?simulated=false", json={}), 404, "prompt_unknown")
    await scored_runs(http, engine, 999)
    refused = problem(
        await http.post("/v1/prompts/p/optimize?simulated=false", json={}), 409, "too_few_examples"
    )
    assert "found 999 scored collaborations" in refused["detail"]
    with pytest.raises(Refused, match="found 999 scored") as caught:
        await run(means, search())
    assert caught.value.code == "too_few_examples"
    problem(await http.get("/v1/prompts/p/optimize"), 404, "optimization_unknown")


async def test_it_is_refused_while_a_trial_goes_on(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources
) -> None:
    await scored_runs(http, engine, 1_000)
    await http.put("/v1/prompts/p", json={"system": "You are bold."})
    await http.post("/v1/prompts/p/trial", json={"candidate": 2})
    problem(await http.post("/v1/prompts/p/optimize?simulated=false", json={}), 409, "trial_running")
    with pytest.raises(Refused, match="found a trial"):
        await run(means, search())


@pytest.mark.skipif(find_spec("dspy") is not None, reason="DSPy is installed here")
async def test_without_dspy_it_says_what_to_install(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources
) -> None:
    await scored_runs(http, engine, 1_000)
    with pytest.raises(Refused, match="uv sync --extra dspy") as caught:
        await run(means, search())
    assert caught.value.code == "dspy_missing"


@pytest.mark.skipif(find_spec("dspy") is not None, reason="DSPy is installed here")
async def test_a_search_runs_in_temporal_and_its_end_is_told(platform: Stack) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    async with door(platform.settings) as http:
        await scored_runs(http, platform.engine, 1_000, name)
        started = (await http.post(f"/v1/prompts/{name}/optimize?simulated=false", json={})).json()
        assert (started["state"], started["workflow_id"]) == (
            "running",
            f"facilitair.optimize.default.{name}",
        )
        while (told := (await http.get(f"/v1/prompts/{name}/optimize")).json())["state"] == "running":
            await asyncio.sleep(0.1)
    assert (told["state"], told["error"]["code"], told["result"]) == ("failed", "dspy_missing", None)


async def test_its_calls_are_booked_and_end_with_its_budget(
    engine: AsyncEngine, means: Resources, control: httpx.AsyncClient
) -> None:
    asker = Asker(means, "default", BUILT_IN, "user:ann", "search-1", Decimal("0.001"))
    said = [Message("user", "Write a haiku.")]
    answers, refused = 0, None
    while refused is None:
        try:
            await asker.ask("openai/gpt-4o-mini", said, max_output_tokens=400)
            answers += 1
        except Refused as error:
            refused = error
    assert refused.code == "optimization_budget_exceeded" and answers > 0
    assert "of the budget of $0.001 are spent" in refused.message
    calls = (await control.get("/_simulator/calls")).json()["total"]["calls"]
    booked = await rows(
        engine,
        "SELECT count(*), sum(usd) > 0, sum(usd) <= 0.001, min(purpose), min(requested_by), min(state),"
        " max(state), count(collaboration_id) FROM model_calls",
    )
    assert booked == [(answers, True, True, "optimize", "user:ann", "settled", "settled", 0)]
    assert calls == answers
    # Another attempt goes on where the budget stood.
    with pytest.raises(Refused):
        await asker.ask("openai/gpt-4o-mini", said, max_output_tokens=400)


@with_dspy
async def test_examples_that_help_become_a_version_on_trial(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources, control: httpx.AsyncClient
) -> None:
    await scored_runs(http, engine, 1_000)
    # With examples the model answers GOOD, which the judge likes; without, it answers as the simulator does.
    await judge(control, good=0.95, other=0.5)
    request = search()
    done = await run(means, request)
    assert (done.examples, done.scored) == (8, 1_000)
    assert (done.present, round(done.candidate, 6)) == (0.5, 0.95)
    found = (await http.get("/v1/prompts/p", params={"version": 2})).json()
    assert (found["current"], found["on_trial"], found["origin"]) == (1, 2, "optimizer")
    assert len(found["content"]["examples"]) == 8
    shown = found["content"]["examples"]
    assert {one["output"] for one in shown} == {"GOOD"}
    assert all(one["input"].startswith("Write a Python function: it handles case") for one in shown)
    trial = (await http.get("/v1/prompts/p/trial")).json()
    assert (trial["id"], trial["status"], trial["candidate"]["version"]) == (done.trial, "running", 2)
    [(spent, purpose, states)] = await rows(
        engine, "SELECT sum(usd), min(purpose), array_agg(DISTINCT state) FROM model_calls"
    )
    assert 0 < spent < 1 and (purpose, states) == ("optimize", ["settled"])
    # Another attempt at the same search finds what the first one stored, and costs nothing.
    assert await run(means, request) == done


@with_dspy
async def test_examples_that_do_harm_are_dropped(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources, control: httpx.AsyncClient
) -> None:
    await scored_runs(http, engine, 1_000)
    # What it answers with examples is judged as good enough for one, and worse than what it answers without.
    await judge(control, good=0.6, other=0.9)
    with pytest.raises(Refused, match=r"quality of 0\.600 .* present version's 0\.900") as caught:
        await run(means, search())
    assert caught.value.code == "not_better"
    assert (await http.get("/v1/prompts/p")).json()["newest"] == 1


@with_dspy
async def test_a_budget_that_does_not_suffice_ends_it(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources
) -> None:
    await scored_runs(http, engine, 1_000)
    with pytest.raises(Refused) as caught:
        await run(means, search(budget_usd="0.01"))
    assert caught.value.code == "optimization_budget_exceeded"
    [(spent,)] = await rows(engine, "SELECT sum(usd) FROM model_calls")
    assert spent <= 0.01
    assert (await http.get("/v1/prompts/p")).json()["newest"] == 1


@with_dspy
async def test_a_cancelled_search_asks_no_more(
    http: httpx.AsyncClient, engine: AsyncEngine, means: Resources, control: httpx.AsyncClient
) -> None:
    await scored_runs(http, engine, 1_000)
    # No answer is good enough: it would go on through all of them.
    await judge(control, good=0.0, other=0.0)
    loop, its_thread, another = asyncio.get_running_loop(), ThreadPoolExecutor(), ThreadPoolExecutor()
    loop.set_default_executor(its_thread)
    environment = ActivityEnvironment()
    running = asyncio.create_task(environment.run(OptimizeActivity(means).optimize_prompt, search()))
    while (begun := (await control.get("/_simulator/calls")).json()["total"]["calls"]) < 4:
        await asyncio.sleep(0.01)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    loop.set_default_executor(another)
    await loop.run_in_executor(another, its_thread.shutdown)
    # The one under way comes to its end, and another may have begun since we looked.
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] <= begun + 4
    assert await rows(engine, "SELECT DISTINCT state FROM model_calls") == [("settled",)]


@with_dspy
async def test_a_search_outlives_its_worker(platform: Stack) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    simulator = platform.settings.simulator_url
    async with door(platform.settings) as http, httpx.AsyncClient(base_url=simulator) as control:
        await scored_runs(http, platform.engine, 1_000, name)
        try:
            await judge(control, good=0.95, other=0.5)
            started = await http.post(
                f"/v1/prompts/{name}/optimize?simulated=false", json={"limit": 80, "budget_usd": 2}
            )
            id = f"facilitair.optimize.default.{name}"
            assert (started.json()["state"], started.json()["workflow_id"]) == ("running", id)
            problem(
                await http.post(f"/v1/prompts/{name}/optimize?simulated=false", json={}),
                409,
                "optimization_running",
            )
            booked = "SELECT count(*) FROM model_calls WHERE purpose = 'optimize' AND state = 'settled'"
            while (await rows(platform.engine, booked))[0][0] < 5:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(platform.supervisor.kill, "worker")
            while (told := (await http.get(f"/v1/prompts/{name}/optimize")).json())["state"] == "running":
                await asyncio.sleep(0.2)
        finally:
            await control.delete("/_simulator/faults")
        assert (told["state"], told["error"]) == ("completed", None)
        assert (told["result"]["version"], told["result"]["examples"]) == (2, 8)
        versions = (await http.get(f"/v1/prompts/{name}/versions")).json()["items"]
        assert [one["origin"] for one in versions] == ["optimizer", "person"]
        assert (await http.delete(f"/v1/prompts/{name}/trial")).json()["status"] == "stopped"
