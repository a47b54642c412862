"""Simulated runs and real ones, in the same tables: who asks for one kind never meets the other."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.routing.recall import RecallActivity
from activities.routing.route import RouteActivity
from activities.upkeep.projections import VectorCopy
from db.engine import transaction
from db.prompts import uses
from db.router import edges, outcomes
from db.router.edges import EdgeDraw, EdgeKey
from db.runs import vectors
from gateway.destinations import Destinations
from router.data.encoder import encode
from schema.settings import Settings
from tests.integration.servers.test_memory import away, hints
from tests.support.api_client import door
from tests.support.event_log import Work, begin, catch_up, end, run, work
from tests.support.learned import learned, put_to_work
from tests.support.providers import SIMULATOR, only_simulated
from tests.support.runs import begin as begin_one
from tests.support.runs import rows

MADE_UP = Work("code", "coder", "openai/gpt-4", quality=0.9)
REAL = replace(MADE_UP, simulated=False)
KEYED = Destinations(only_simulated("http://127.0.0.1:9", openai_api_key="sk-test"))
"""OpenAI answers for its own models, and the simulator for all others."""
TASK = "Sort a list of names"


async def _is_simulated(engine: AsyncEngine, run: str) -> bool:
    [(found,)] = await rows(engine, "SELECT simulated FROM collaborations WHERE id = :run", run=run)
    return bool(found)


async def test_one_simulated_answer_makes_a_run_simulated(engine: AsyncEngine) -> None:
    assert await _is_simulated(engine, await run(engine, TASK, REAL, replace(MADE_UP, step="review")))
    assert not await _is_simulated(engine, await run(engine, TASK, REAL))


async def test_a_run_is_simulated_by_what_its_children_were_answered(engine: AsyncEngine) -> None:
    parent = await begin_one(engine, {"steps": {"ask": {"kind": "transform", "value": 1}}})
    child = await begin_one(engine, {"steps": {"ask": {"kind": "transform", "value": 1}}}, parent=parent)
    await work(engine, child, MADE_UP)
    for one in (child, parent):
        await end(engine, one)
    assert await _is_simulated(engine, parent.collaboration)
    event = "SELECT payload -> 'simulated' FROM outbox WHERE type = 'CollaborationFinished'"
    assert await rows(engine, event) == [(True,), (True,)]


async def test_outcomes_and_examples_are_of_one_kind(engine: AsyncEngine) -> None:
    until = datetime.now(UTC) + timedelta(minutes=1)
    made_up, real = [await run(engine, TASK, one, name="pair") for one in (MADE_UP, REAL)]
    await _name_prompt(engine)
    async with transaction(engine) as connection:
        for simulated, id in ((True, made_up), (False, real)):
            found = await outcomes.page(connection, "default", until, simulated=simulated)
            assert [str(one.collaboration) for one in found] == [id]
            used = await uses.newest(connection, "default", "p", 10, simulated=simulated)
            assert [str(one.collaboration) for one in used] == [id]
            assert await uses.count(connection, "default", "p", simulated=simulated) == 1


async def _name_prompt(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE agent_executions SET prompt = 'p@1'"))


async def test_a_hint_is_of_the_kind_that_answers(engine: AsyncEngine) -> None:
    encode([TASK])  # torch takes its time, which catching up has not
    await run(engine, TASK, MADE_UP, output="made up")
    await run(engine, TASK, REAL, output="real")
    await catch_up(engine, VectorCopy(engine, encode))
    for destinations, expected in ((SIMULATOR, "made up"), (KEYED, "real")):
        asking = await begin(engine, TASK, recall=True)
        activity = RecallActivity(engine, away(), encode, destinations)
        await ActivityEnvironment().run(activity.recall, asking)
        assert [one["final_output"] for one in await hints(engine, asking)] == [expected]


async def test_a_real_choice_is_among_real_models_and_by_no_stand_ins_checkpoint(engine: AsyncEngine) -> None:
    await put_to_work(
        engine,
        learned(
            "deepseek/deepseek-chat", models=("openai/gpt-4", "deepseek/deepseek-chat", "openai/gpt-4o-mini")
        ),
    )
    asking = await begin(engine, TASK)
    found = await ActivityEnvironment().run(RouteActivity(engine, KEYED).route, asking)
    assert (found.model, found.policy) == ("openai/gpt-4", "rules-v1")
    [(candidates,)] = await rows(engine, "SELECT candidates FROM routing_decisions")
    assert candidates == {"openai/gpt-4": 1.0}


async def test_an_edge_is_judged_by_runs_of_one_kind(engine: AsyncEngine) -> None:
    key = EdgeKey("default", "pair", "write", "check", simulated=True)
    for one in (MADE_UP, REAL):
        id = await run(engine, TASK, one)
        async with transaction(engine) as connection:
            decision = EdgeDraw("code", "write", "check", True, 0.95)
            await edges.decide(connection, UUID(id), "default", "pair", [decision])
    async with transaction(engine) as connection:
        await edges.meet(connection, [key])
        assert len(await edges.evidence(connection, key)) == 1
        assert len(await edges.evidence(connection, replace(key, simulated=False))) == 1
        # What people want of it holds in both.
        await edges.set_state(connection, key, "pinned", "user:ada")
        for simulated in (False, True):
            [standing] = (await edges.states(connection, "default", "pair", simulated=simulated)).values()
            assert standing.state == "pinned"


async def test_pages_show_real_runs_from_the_first_real_call_on(
    engine: AsyncEngine, settings: Settings
) -> None:
    await run(engine, TASK, MADE_UP)
    async with door(settings) as http:
        assert await _shown(http) == [(True, 1), (True, None), (True, None)]
        await run(engine, TASK, REAL)
        await _note_real_call(engine)
        assert await _shown(http) == [(False, 1), (False, None), (False, None)]
        assert await _shown(http, simulated=True) == [(True, 1), (True, None), (True, None)]


async def _shown(http: Any, **query: Any) -> list[tuple[bool, int | None]]:
    """(whether of simulated runs, how many runs) of each page that tells of what runs came to."""
    found = []
    for path in ("/v1/analytics", "/v1/router", "/v1/router/model-info"):
        answer = (await http.get(path, params=query)).json()
        runs = sum(one["runs"] for one in answer["runs"]) if "runs" in answer else None
        found.append((answer["simulated"], runs))
    return found


async def _note_real_call(engine: AsyncEngine) -> None:
    call = (
        "INSERT INTO model_calls (id, account, provider, model, state, price_source, input_price_usd,"
        " output_price_usd, most_input_tokens)"
        " VALUES (gen_random_uuid(), 'a', 'openai', 'openai/gpt-4', 'settled', 'test', 1, 1, 1)"
    )
    async with transaction(engine) as connection:
        await connection.execute(text(call))


async def test_all_that_is_simulated_is_forgotten_and_nothing_else(
    engine: AsyncEngine, settings: Settings
) -> None:
    made_up = [await run(engine, TASK, MADE_UP) for _ in range(3)]
    real = await run(engine, TASK, REAL)
    waiting = await begin(engine, TASK)
    await work(engine, waiting, MADE_UP)
    await put_to_work(engine, learned())
    await put_to_work(engine, learned(), simulated=False)
    async with door(settings) as http:
        counted = (await http.post("/v1/simulated/forget", json={"dry_run": True})).json()
        assert counted == {"runs": 3, "running": 1, "trainings": 1, "prompt_versions": 0, "more": False}
        assert (await http.post("/v1/simulated/forget")).json() == counted
        again = (await http.post("/v1/simulated/forget")).json()
        assert (again["runs"], again["trainings"]) == (0, 0)
    left = {str(id) for (id,) in await rows(engine, "SELECT id FROM collaborations")}
    assert left == {real, waiting.collaboration}
    told = await rows(
        engine, "SELECT aggregateid, type FROM outbox WHERE aggregateid = ANY(:ids)", ids=made_up
    )
    assert sorted(told) == sorted((id, "CollaborationForgotten") for id in made_up)
    assert await rows(engine, "SELECT simulated FROM checkpoints WHERE state = 'all'") == [(False,)]
    assert await rows(engine, "SELECT count(*) FROM audit_log WHERE action = 'simulated.forget'") == [(2,)]


async def test_a_run_whose_simulated_call_failed_is_simulated(engine: AsyncEngine) -> None:
    request = await begin(engine, TASK)
    async with transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO model_calls (id, collaboration_id, account, provider, model, state,"
                " price_source, input_price_usd, output_price_usd, most_input_tokens, simulated)"
                " VALUES (gen_random_uuid(), :run, 'a', 'simulator', 'm/m', 'refunded', 'test', 1, 1,"
                " 1, true)"
            ),
            {"run": request.collaboration},
        )
    await end(engine, request, status="failed")
    assert await _is_simulated(engine, request.collaboration)


async def test_vectors_of_one_kind_are_found(engine: AsyncEngine) -> None:
    await run(engine, TASK, REAL)
    await catch_up(engine, VectorCopy(engine, encode))
    async with transaction(engine) as connection:
        for simulated, count in ((False, 1), (True, 0)):
            found = await vectors.nearest(
                connection, "default", encode([TASK])[0], 5, 0.5, simulated=simulated
            )
            assert len(found) == count
