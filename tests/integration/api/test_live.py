"""Watching runs on a real Postgres: shared readings, late comers, slow ones, attempts that are given up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import api.live.readers
from activities.agent.tokens import TokenLog
from api.live.readers import Hub, Watcher
from db.engine import transaction
from db.runs import executions
from db.runs.executions import Assignment, AttemptOutcome, Claim
from schema.live import AGENT, RunBegan, RunEnded, StepBegan, StepEnded, TokensCame
from schema.temporal.steps import StepRequest
from tests.support.event_log import end
from tests.support.runs import begin

ASK = {"agents": {"a": {"role": "coder"}}, "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "p"}}}
WORKER = Assignment(AGENT, "a", "coder", "openai/gpt-4o-mini")


@pytest.fixture
async def hub(engine: AsyncEngine) -> AsyncIterator[Hub]:
    found = Hub(engine.url.render_as_string(hide_password=False))
    yield found
    await found.close()


async def claim(engine: AsyncEngine, request: StepRequest) -> Claim:
    async with transaction(engine) as connection:
        return await executions.claim(connection, request, WORKER)


async def say(tokens: TokenLog, request: StepRequest, claim: Claim, first: int, count: int) -> None:
    for seq in range(first, first + count):
        await tokens.append(
            request.tenant, request.collaboration, claim.execution, seq, f"{claim.attempt}.{seq} ", []
        )
    await tokens.flush()


async def finish(engine: AsyncEngine, request: StepRequest, claim: Claim) -> None:
    async with transaction(engine) as connection:
        await executions.complete(connection, request, WORKER, claim, AttemptOutcome("done", model="m"))
    await end(engine, request)


async def all_of(watcher: Watcher) -> list[str]:
    """What a watcher was told: the names of events, tokens joined."""
    told: list[str] = []
    async for lives in watcher:
        for live in lives:
            event = live.event
            if isinstance(event, TokensCame):
                told += event.text.split()
            elif isinstance(event, StepEnded):
                told.append(event.status)
            else:
                told.append(type(event).__name__)
    return told


def said(attempt: int, first: int, end: int) -> list[str]:
    return [f"{attempt}.{seq}" for seq in range(first, end)]


async def test_whoever_comes_is_told_the_same(engine: AsyncEngine, hub: Hub, tokens: TokenLog) -> None:
    request = await begin(engine, ASK)
    run = UUID(request.collaboration)
    async with hub.watch(run) as first, hub.watch(run) as second:
        early = [asyncio.create_task(all_of(one)) for one in (first, second)]
        claimed = await claim(engine, request)
        await say(tokens, request, claimed, 0, 40)
        while not first.place.endswith(":28"):
            await asyncio.sleep(0.01)
        async with hub.watch(run) as third:
            late = asyncio.create_task(all_of(third))
            await say(tokens, request, claimed, 40, 60)
            await finish(engine, request, claimed)
            expected = ["RunBegan", "StepBegan", *said(1, 0, 100), "completed", "RunEnded"]
            for watching in (*early, late):
                assert await watching == expected
    assert hub.watchers == 0
    async with hub.watch(run) as afterwards:
        assert await all_of(afterwards) == expected


async def test_what_an_attempt_said_that_was_given_up_is_superseded(
    engine: AsyncEngine, hub: Hub, tokens: TokenLog
) -> None:
    request = await begin(engine, ASK)
    async with hub.watch(UUID(request.collaboration)) as watcher:
        watching = asyncio.create_task(all_of(watcher))
        first = await claim(engine, request)
        await say(tokens, request, first, 0, 3)
        while not watcher.place.endswith(":3"):
            await asyncio.sleep(0.01)
        second = await claim(engine, request)
        await say(tokens, request, first, 3, 2)  # it lives on for a while, unheard
        await say(tokens, request, second, 0, 2)
        await finish(engine, request, second)
        told = await watching
    assert [one for one in told if not one.startswith("1.")] == [
        "RunBegan",
        "StepBegan",
        "superseded",
        "StepBegan",
        "2.0",
        "2.1",
        "completed",
        "RunEnded",
    ]
    assert told[2:5] == said(1, 0, 3)


async def test_one_who_is_too_slow_is_left_behind_and_loses_nothing(
    engine: AsyncEngine, hub: Hub, tokens: TokenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.live.readers, "MAX_WAITING", 3)
    request = await begin(engine, ASK)
    run = UUID(request.collaboration)
    claimed = await claim(engine, request)
    async with hub.watch(run) as quick, hub.watch(run) as slow:
        watching = asyncio.create_task(all_of(quick))
        for at in range(10):
            await say(tokens, request, claimed, at * 5, 5)
            while not quick.place.endswith(f":{at * 5 + 5:x}"):
                await asyncio.sleep(0.01)
        assert hub.watchers == 1  # nothing more is kept for the slow one
        await finish(engine, request, claimed)
        expected = ["RunBegan", "StepBegan", *said(1, 0, 50), "completed", "RunEnded"]
        assert await watching == expected
        assert await all_of(slow) == expected


async def test_every_place_can_be_gone_on_from_by_another_process(
    engine: AsyncEngine, hub: Hub, tokens: TokenLog
) -> None:
    request = await begin(engine, ASK)
    run = UUID(request.collaboration)
    claimed = await claim(engine, request)
    await say(tokens, request, claimed, 0, 5)
    async with hub.watch(run) as watcher:
        await anext(aiter(watcher))
        place = watcher.place
    await say(tokens, request, claimed, 5, 5)
    await finish(engine, request, claimed)
    other = Hub(engine.url.render_as_string(hide_password=False))
    async with other.watch(run, place) as watcher:
        assert await all_of(watcher) == [*said(1, 5, 10), "completed", "RunEnded"]
    await other.close()
    events = (RunBegan, StepBegan, TokensCame, StepEnded, RunEnded)
    async with hub.watch(run) as watcher:
        told = [live async for lives in watcher for live in lives]
    assert [type(live.event) for live in told] == list(events)
    for at, live in enumerate(told):
        async with hub.watch(run, live.place) as watcher:
            rest = [one.event async for lives in watcher for one in lives]
        assert rest == [one.event for one in told[at + 1 :]]


async def test_a_fault_of_ours_does_not_silence_watchers_for_good(
    engine: AsyncEngine,
    tokens: TokenLog,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = await begin(engine, ASK)
    claimed = await claim(engine, request)
    await finish(engine, request, claimed)
    read, faults = hub._source.read, 1

    async def read_at_last(*given: Any) -> Any:
        nonlocal faults
        if faults:
            faults -= 1
            raise KeyError("not foreseen")
        return await read(*given)

    monkeypatch.setattr(hub._source, "read", read_at_last)
    async with hub.watch(UUID(request.collaboration)) as watcher:
        assert (await all_of(watcher))[-2:] == ["completed", "RunEnded"]
    assert faults == 0
    assert "not foreseen" in caplog.text
