"""Adaptive edges in runs: who is told, what is noted, and that a retry finds the same."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.notifications import News
from activities.agent.tokens import TokenLog
from db.engine import transaction
from db.router import edges
from db.router.edges import EdgeKey, State
from gateway.client import warm_up
from router.edges import topology
from schema.temporal.steps import StepRequest
from tests.integration.runs.test_collaboration import unique
from tests.integration.runs.test_streams import FAST, SLOW, TEXT, both, live, of, output, says, script, turns
from tests.support.providers import running_simulator
from tests.support.runs import begin, means_of, rows
from tests.support.stack import Stack

KEY = EdgeKey("default", "one", "write", "check", simulated=True)
_TRIALS = "SELECT path, source, target, delivered, chance FROM edge_trials WHERE collaboration_id = :run"
_SENT = (
    "SELECT DISTINCT sent_to FROM token_stream t JOIN agent_executions e ON e.id = t.execution_id"
    " WHERE e.collaboration_id = :run AND e.path = :path"
)


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    with running_simulator("0.5") as url:
        yield url


@pytest.fixture
async def listeners(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog
) -> AsyncIterator[AgentActivity]:
    await asyncio.to_thread(warm_up)
    news = News(engine.url.render_as_string(hide_password=False))
    async with means_of(engine, simulator_url, tokens, news=news) as means:
        yield AgentActivity(means)
    await news.close()


async def _run(engine: AsyncEngine, state: State, *, delivered: bool) -> StepRequest:
    """A run whose draw comes to that, of a definition whose edge stands so."""
    definition = live("Review it.", adaptive=True)
    async with transaction(engine) as connection:
        await edges.meet(connection, [KEY])
        await edges.set_state(connection, KEY, state, "user:ada")
    while True:
        request = await begin(engine, definition)
        if topology.drawn(f"{request.collaboration}/check/write", topology.chance(state)) == delivered:
            return request


async def _sent(engine: AsyncEngine, request: StepRequest, path: str) -> list[tuple[Any, ...]]:
    return await rows(engine, _SENT, run=request.collaboration, path=path)


async def test_who_is_not_told_neither_waits_nor_hears_and_a_retry_finds_the_same(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await _run(engine, "pruned", delivered=False)
    await script(control, says(TEXT, model=SLOW), says("Nothing to read.", model=FAST))
    # The writer has not even begun.
    async with asyncio.timeout(30):
        await listeners.agent(of(request, "check"))
    async with transaction(engine) as connection:
        await edges.set_state(connection, KEY, "pinned", "user:ada")
    await listeners.agent(of(request, "write"))
    assert await output(engine, of(request, "check")) == "Nothing to read."
    assert await turns(engine, request) == []
    assert await _sent(engine, request, "write") == [([],)]
    trials = await rows(engine, _TRIALS, run=request.collaboration)
    assert trials == [("check", "write", "check", False, topology.PRUNED_CHANCE)]


async def test_who_is_told_reads_as_by_any_edge(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await _run(engine, "kept", delivered=True)
    await script(
        control,
        says(TEXT, model=SLOW),
        says("I read it all.", contains="And that is all."),
        *[says("Go on.", model=FAST)] * 2,
    )
    await both(listeners, request, "write", "check")
    assert await output(engine, of(request, "check")) == "I read it all."
    assert await turns(engine, request)
    assert await _sent(engine, request, "write") == [(["fast"],)]
    trials = await rows(engine, _TRIALS, run=request.collaboration)
    assert trials == [("check", "write", "check", True, topology.KEPT_CHANCE)]


async def test_what_is_pinned_is_always_told_and_is_no_trial(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    request = await _run(engine, "pinned", delivered=True)
    await script(control, says("All of it.", model=SLOW), says("Good.", contains="## write\nAll of it."))
    await listeners.agent(of(request, "write"))
    await listeners.agent(of(request, "check"))
    assert await output(engine, of(request, "check")) == "Good."
    assert await _sent(engine, request, "write") == [(["fast"],)]
    assert await rows(engine, _TRIALS, run=request.collaboration) == []


async def test_of_peers_one_may_hear_the_other_and_not_be_heard(
    engine: AsyncEngine, listeners: AgentActivity, control: httpx.AsyncClient
) -> None:
    two_ways = {"start": "sentence", "turns": 2}
    definition = {
        "agents": {
            "one": {"model": FAST, "system": "You are ONE."},
            "two": {"model": FAST, "system": "You are TWO."},
        },
        "steps": {name: {"kind": "agent", "agent": name, "prompt": "Tabs?"} for name in ("one", "two")},
        "stream": [
            {"from": "one", "to": "two", "adaptive": True, **two_ways},
            {"from": "two", "to": "one", **two_ways},
        ],
    }
    key = EdgeKey("default", "one", "one", "two", simulated=True)
    async with transaction(engine) as connection:
        await edges.meet(connection, [key])
        await edges.set_state(connection, key, "pruned", "user:ada")
    request = await begin(engine, definition)
    while topology.drawn(f"{request.collaboration}/two/one", topology.PRUNED_CHANCE):
        request = await begin(engine, definition)
    await script(
        control,
        says("Tabs, of course.", contains="You are ONE."),
        says("Spaces, of course.", contains="You are TWO."),
    )
    await both(listeners, request, "one", "two")
    asked = {path: message for path, message, _ in await turns(engine, request)}
    assert not any(path.startswith("two") for path in asked)
    assert await _sent(engine, request, "one") == [([],)]
    assert await _sent(engine, request, "two") == [(["one"],)]
    assert await output(engine, of(request, "one")) and await output(engine, of(request, "two"))


async def test_on_the_platform_what_was_sent_is_what_was_decided(platform: Stack) -> None:
    name = unique("adaptive")
    body = live("Review it.", adaptive=True)
    await platform.store({"name": name, **body})
    key = EdgeKey("default", name, "write", "check", simulated=True)
    async with transaction(platform.engine) as connection:
        await edges.meet(connection, [key])
        await edges.set_state(connection, key, "pruned", "user:ada")
    handles = [await platform.start(name, {}, f"{name}-{uuid4()}") for _ in range(3)]
    await asyncio.gather(*(handle.result() for handle in handles))
    query = (
        "SELECT trial.delivered, bool_and(token.sent_to = ARRAY['fast']), bool_or(token.sent_to <> '{}')"
        " FROM edge_trials AS trial JOIN collaborations AS run ON run.id = trial.collaboration_id"
        " JOIN agent_executions AS writer ON writer.collaboration_id = run.id AND writer.path = 'write'"
        " JOIN token_stream AS token ON token.execution_id = writer.id"
        " WHERE trial.definition = :name GROUP BY run.id, trial.delivered"
    )
    found = await rows(platform.engine, query, name=name)
    assert len(found) == 3
    assert all(all_sent == any_sent == delivered for delivered, all_sent, any_sent in found)
