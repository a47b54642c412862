"""Equal steps at the same moment: one makes the answer, the others take it, and somebody always makes it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.single_flight import Flights
from db.engine import async_engine, transaction
from db.runs import cache, executions, in_flight
from db.runs.executions import Assignment, AttemptOutcome, Claim
from schema.temporal.steps import StepRequest
from tests.support.runs import begin, rows

ASKING = {"kind": "agent", "agent": "a", "prompt": "?"}
ONE = {"agents": {"a": {"model": "openai/gpt-4o-mini"}}, "steps": {"ask": ASKING}}
AGENT = Assignment("agent", "a")
KEY = "k" * 64


@pytest.fixture
async def workers(postgres_url: str) -> AsyncIterator[list[tuple[AsyncEngine, Flights]]]:
    """Two, as two processes would be."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            engine = async_engine(postgres_url, pool_size=10)
            stack.push_async_callback(engine.dispose)
            found.append((engine, Flights(engine)))
            stack.push_async_callback(found[-1][1].close)
        yield found


async def claimed(engine: AsyncEngine, **more: Any) -> tuple[StepRequest, Claim]:
    request = await begin(engine, ONE, **more)
    async with transaction(engine) as connection:
        return request, await executions.claim(connection, request, AGENT)


async def all_claimed(engine: AsyncEngine, count: int) -> list[tuple[StepRequest, Claim]]:
    """As many items of one run."""
    one = await begin(engine, ONE)
    requests = [replace(one, frame=f"m[{index}]") for index in range(count)]
    async with transaction(engine) as connection:
        return [(request, await executions.claim(connection, request, AGENT)) for request in requests]


async def take(
    flight: Flights,
    claim: Claim,
    *,
    ttl: float = 60,
    wait: float = 20,
    lead: float = 20,
    tenant: str = "default",
) -> AttemptOutcome | None:
    until = asyncio.get_running_loop().time() + wait
    return await flight.take(tenant, KEY, ttl, claim.execution, until, lead)


async def finish(engine: AsyncEngine, request: StepRequest, claim: Claim, output: Any = "answer") -> None:
    outcome = AttemptOutcome(output, "m", "simulator", 3, 4, Decimal("0.1"), simulated=True)
    async with transaction(engine) as connection:
        assert await executions.complete(connection, request, AGENT, claim, outcome)
        await in_flight.land(connection, request.tenant, KEY, claim.execution)


async def fails(engine: AsyncEngine, request: StepRequest, claim: Claim) -> None:
    async with transaction(engine) as connection:
        await executions.fail(connection, request, claim, "provider_auth", "scripted")


async def standing(engine: AsyncEngine) -> list[UUID]:
    return [row[0] for row in await rows(engine, "SELECT execution_id FROM flights")]


async def test_one_of_a_hundred_makes_the_answer_and_the_others_take_it(
    workers: list[tuple[AsyncEngine, Flights]],
) -> None:
    claims = await all_claimed(workers[0][0], 100)
    made: list[Claim] = []

    async def step(index: int) -> AttemptOutcome | None:
        engine, flight = workers[index % 2]
        request, claim = claims[index]
        found = await take(flight, claim)
        if found is None:
            made.append(claim)
            await asyncio.sleep(0.3)
            await finish(engine, request, claim, {"by": index})
        return found

    outcomes = await asyncio.gather(*(step(index) for index in range(100)))
    assert len(made) == 1
    taken = [outcome for outcome in outcomes if outcome]
    assert len(taken) == 99
    assert {outcome.reused_from for outcome in taken} == {made[0].execution}
    assert {(o.cost_usd, o.input_tokens, o.simulated, o.model) for o in taken} == {(Decimal(0), 0, True, "m")}
    assert await standing(workers[0][0]) == []


async def test_when_the_leader_fails_one_of_the_others_leads(
    workers: list[tuple[AsyncEngine, Flights]],
) -> None:
    claims = await all_claimed(workers[0][0], 20)
    made: list[int] = []

    async def step(index: int) -> None:
        engine, flight = workers[index % 2]
        request, claim = claims[index]
        if await take(flight, claim) is None:
            made.append(index)
            await asyncio.sleep(0.1)
            # Three of them fail, one after the other.
            if len(made) < 4:
                await fails(engine, request, claim)
            else:
                await finish(engine, request, claim)

    await asyncio.gather(*(step(index) for index in range(20)))
    assert len(made) == 4


@pytest.mark.parametrize("end", ["abandoned", "run over", "released", "out of time"])
async def test_a_leader_that_is_gone_is_replaced_at_once(
    workers: list[tuple[AsyncEngine, Flights]], end: str
) -> None:
    (engine, first), (_, second) = workers
    request, leader = await claimed(engine)
    assert await take(first, leader, lead=0.5 if end == "out of time" else 60) is None
    _, follower = await claimed(engine)
    waiting = asyncio.create_task(take(second, follower))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    began = time.monotonic()
    async with transaction(engine) as connection:
        match end:
            case "abandoned":
                await executions.claim(connection, request, AGENT)
            case "run over":
                over = text("UPDATE collaborations SET status = 'failed' WHERE id = :id")
                await connection.execute(over, {"id": UUID(request.collaboration)})
            case "released":
                await in_flight.release(connection, "default", KEY, leader.execution)
    assert await waiting is None
    assert time.monotonic() - began < 1
    assert await standing(engine) == [follower.execution]


async def test_the_next_attempt_of_a_leader_goes_on_leading(
    workers: list[tuple[AsyncEngine, Flights]],
) -> None:
    (engine, first), (_, second) = workers
    request, leader = await claimed(engine)
    assert await take(first, leader) is None
    _, follower = await claimed(engine)
    waiting = asyncio.create_task(take(second, follower))
    async with transaction(engine) as connection:
        await executions.fail(connection, request, leader, "output_invalid", "scripted")
        again = await executions.claim(connection, request, AGENT)
        await in_flight.hand_on(connection, "default", KEY, leader.execution, again.execution)
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await finish(engine, request, again)
    found = await waiting
    assert found and found.reused_from == again.execution


async def test_nobody_waits_longer_than_there_is_time(workers: list[tuple[AsyncEngine, Flights]]) -> None:
    (engine, first), (_, second) = workers
    _, leader = await claimed(engine)
    assert await take(first, leader) is None
    _, follower = await claimed(engine)
    assert await take(second, follower, wait=0.2) is None
    assert await standing(engine) == [leader.execution]


async def test_what_others_may_take_is_the_tenants_own_and_young_enough(
    workers: list[tuple[AsyncEngine, Flights]],
) -> None:
    engine, flight = workers[0]
    request, leader = await claimed(engine)
    assert await take(flight, leader) is None
    await finish(engine, request, leader)
    _, other = await claimed(engine, tenant="other")
    assert await take(flight, other, tenant="other") is None
    _, strict = await claimed(engine)
    assert await take(flight, strict, ttl=0) is None
    _, lax = await claimed(engine)
    found = await take(flight, lax)
    assert found and (found.output, found.reused_from) == ("answer", leader.execution)


async def test_many_who_wait_hold_no_connection_and_ask_together(
    postgres_url: str, engine: AsyncEngine
) -> None:
    narrow = async_engine(postgres_url, pool_size=1)
    flight = Flights(narrow)
    request, leader = await claimed(engine)
    assert await take(flight, leader) is None
    claims = await all_claimed(engine, 30)
    waiting = [asyncio.create_task(take(flight, claim)) for _, claim in claims]
    await asyncio.sleep(0.5)
    async with transaction(narrow) as connection:
        await connection.execute(text("SELECT 1"))
    await finish(engine, request, leader)
    assert all(await asyncio.gather(*waiting))
    await flight.close()
    await narrow.dispose()


async def test_old_entries_are_deleted_in_batches(engine: AsyncEngine) -> None:
    request, leader = await claimed(engine)
    await finish(engine, request, leader)
    old = "INSERT INTO step_cache (key, execution_id, stored_at) SELECT n::text, :id, now() - interval '40 days' FROM generate_series(1, 5) n"  # fmt: skip  # noqa: E501
    lost = "INSERT INTO flights (key, execution_id, until) VALUES ('x', :id, now() - interval '2 days')"
    async with transaction(engine) as connection:
        for query in (old, lost):
            await connection.execute(text(query), {"id": leader.execution})
        month, day = (datetime.now(UTC) - timedelta(days=days) for days in (31, 1))
        assert [await cache.forget(connection, month, 3) for _ in range(3)] == [3, 2, 0]
        assert await in_flight.forget(connection, day) == 1
    assert await rows(engine, "SELECT key FROM step_cache") == [(KEY,)]
