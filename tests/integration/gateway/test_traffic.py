"""Limits, pauses and circuits that processes share: each Traffic here stands for a worker of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import async_engine
from gateway.limits import circuit_breaker
from gateway.limits.access import Traffic
from gateway.limits.window import WindowPace
from gateway.request import Usage
from schema.errors import MAX_PROPOSED_WAIT_SECONDS, ProviderError, Unavailable
from tests.support.runs import rows

SECOND = WindowPace(window=1_000, margin=100, slot=50, spread=150, share=500)
"""A minute of one second."""


@dataclass(frozen=True)
class CallTarget:
    account: str = "account"
    provider: str = "openai"
    model: str = "openai/gpt-4o-mini"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@pytest.fixture
async def worker(postgres_url: str) -> AsyncIterator[Callable[..., Traffic]]:
    """Makes workers."""
    async with AsyncExitStack() as stack:

        def make(pace: WindowPace = SECOND) -> Traffic:
            made = Traffic(postgres_url, pace)
            stack.push_async_callback(made.close)
            return made

        yield make


def soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def call(traffic: Traffic, to: CallTarget, tokens: int = 10, **more: Any) -> float:
    """When the call was made."""
    async with traffic.passage(to, tokens=tokens, **{"until": soon(), **more}):
        return asyncio.get_running_loop().time()


async def fail(
    traffic: Traffic, to: CallTarget, code: str = "provider_unavailable", after: float | None = None
) -> None:
    with pytest.raises(ProviderError, match="scripted"):
        async with traffic.passage(to, tokens=1, until=soon()):
            raise ProviderError(code, "scripted", retryable=True, retry_after_seconds=after)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def most_within(times: list[float], seconds: float) -> int:
    times = sorted(times)
    return max(sum(start <= time < start + seconds for time in times) for start in times)


async def test_workers_share_a_limit_of_requests(worker: Callable[..., Traffic], engine: AsyncEngine) -> None:
    workers = [worker() for _ in range(4)]
    to = CallTarget(requests_per_minute=20)
    times = await asyncio.gather(*(call(workers[index % 4], to) for index in range(70)))
    assert most_within(times, 1.0) <= 20
    # 70 of them come in four minutes; in eight half of the limit would be unused.
    assert max(times) - min(times) < 7
    assert await rows(engine, "SELECT count(*) > 1 FROM rate_buckets") == [(True,)]


async def test_tokens_are_limited_by_what_calls_may_take_and_corrected_by_what_they_took(
    worker: Callable[..., Traffic], engine: AsyncEngine
) -> None:
    traffic, to = worker(), CallTarget(tokens_per_minute=1_000)
    began = soon(0)
    for _ in range(20):
        async with traffic.passage(to, tokens=600, until=soon()) as passage:
            passage.used(Usage(10, 20))
    assert soon(0) - began < 4.0
    await traffic.close()
    assert await rows(engine, "SELECT sum(tokens) <= 600 FROM rate_buckets") == [(True,)]


async def test_a_call_larger_than_the_limit_is_refused_for_good(worker: Callable[..., Traffic]) -> None:
    with pytest.raises(ProviderError, match=r"may take 1,001 tokens; expected at most the 1,000") as caught:
        await call(worker(), CallTarget(tokens_per_minute=1_000), 1_001)
    assert (caught.value.code, caught.value.retryable) == ("provider_rate_limited", False)


async def test_who_cannot_have_a_turn_in_time_is_told_when_to_come_again(
    worker: Callable[..., Traffic],
) -> None:
    traffic, to = worker(replace(SECOND, window=20_000)), CallTarget(requests_per_minute=2)
    await asyncio.gather(call(traffic, to), call(traffic, to))
    began = soon(0)
    with pytest.raises(ProviderError, match=r"allows this account 2 requests a minute \(FACIL") as caught:
        await call(traffic, to, until=soon(15))
    # It is certain at once, and not only when the time is up.
    assert soon(0) - began < 2
    error = caught.value
    assert (error.code, error.retryable) == ("provider_rate_limited", True)
    assert error.retry_after_seconds == pytest.approx(20, abs=2)


async def test_one_who_leaves_gives_the_turn_back(
    worker: Callable[..., Traffic], engine: AsyncEngine
) -> None:
    # With a margin in which no turn becomes too old.
    pace = replace(SECOND, window=20_000, margin=5_000, share=1_000)
    traffic, to = worker(pace), CallTarget(requests_per_minute=3)
    async with traffic.passage(to, tokens=1, until=soon()) as passage:
        passage.unused()
    waiting = [asyncio.create_task(call(traffic, to)) for _ in range(9)]
    await until(lambda: sum(task.done() and not task.exception() for task in waiting) >= 3)
    for task in waiting:
        task.cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, float) for one in done) == 3
    await traffic.close()
    assert await rows(engine, "SELECT sum(requests) FROM rate_buckets") == [(3,)]


async def test_one_tenants_calls_do_not_wait_for_all_of_anothers(worker: Callable[..., Traffic]) -> None:
    traffic, to = worker(), CallTarget(requests_per_minute=10)
    many = [asyncio.create_task(call(traffic, to, tenant="many")) for _ in range(40)]
    await until(lambda: any(task.done() for task in many))
    one = await call(traffic, to, tenant="one")
    assert sum(task.done() for task in many) < 25
    times = await asyncio.gather(*many)
    assert sum(time < one for time in times) < 25


async def test_old_slots_are_deleted(worker: Callable[..., Traffic], engine: AsyncEngine) -> None:
    old = "INSERT INTO rate_buckets (account, at, requests) VALUES ('account', now() - interval '1 day', 3)"
    async with engine.begin() as connection:
        await connection.execute(text(old))
    await call(worker(), CallTarget(requests_per_minute=10))
    assert await rows(
        engine, "SELECT max(requests), min(at) > now() - interval '1 hour' FROM rate_buckets"
    ) == [(1, True)]


async def test_without_postgres_limits_are_not_promised_and_calls_without_limits_go_on() -> None:
    engine = async_engine("postgresql://nobody@127.0.0.1:1/none")
    traffic = Traffic(engine)
    await call(traffic, CallTarget())
    with pytest.raises(Unavailable, match="limits that all workers share") as caught:
        await call(traffic, CallTarget(requests_per_minute=10))
    assert caught.value.code == "database_unavailable"
    await traffic.close()
    await engine.dispose()


async def test_when_a_provider_asks_for_a_pause_all_workers_wait(worker: Callable[..., Traffic]) -> None:
    first, second, to = worker(), worker(), CallTarget()
    await call(second, to)
    began = soon(0)
    await fail(first, to, "provider_rate_limited", after=2)
    await until(lambda: second._pauses.any)
    # Another account, and another model of the same: providers limit each model apart.
    for other in (replace(to, account="other"), replace(to, model="openai/gpt-4o")):
        await call(second, other)
    assert soon(0) - began < 2
    assert await call(second, to) - began >= 1.9
    assert await call(first, to) - began >= 2


async def test_a_pause_that_is_too_long_is_told_and_holds_for_limited_accounts(
    worker: Callable[..., Traffic],
) -> None:
    first, second, to = worker(), worker(), CallTarget(requests_per_minute=100)
    await fail(first, to, "provider_rate_limited", after=100_000)
    for traffic in (first, second):
        with pytest.raises(ProviderError, match="asked for a pause") as caught:
            await call(traffic, to, until=soon(5))
        assert caught.value.retry_after_seconds == pytest.approx(MAX_PROPOSED_WAIT_SECONDS, abs=5)


async def test_a_process_that_begins_within_a_pause_keeps_to_it(worker: Callable[..., Traffic]) -> None:
    first, to = worker(), CallTarget()
    await fail(first, to, "provider_rate_limited", after=60)
    await written(first)
    with pytest.raises(ProviderError, match="asked for a pause"):
        await call(worker(), to)


async def test_those_who_wait_for_a_turn_of_a_paused_model_hold_up_no_other(
    worker: Callable[..., Traffic], engine: AsyncEngine
) -> None:
    first, second = worker(replace(SECOND, window=2_000)), worker()
    to = CallTarget(requests_per_minute=1)
    await call(first, to)
    began = soon(0)
    hasty, patient = (asyncio.create_task(call(first, to, until=soon(within))) for within in (4, 30))
    await fail(second, replace(to, requests_per_minute=None), "provider_rate_limited", after=5)
    with pytest.raises(ProviderError, match="asked for a pause") as caught:
        await hasty
    assert caught.value.retry_after_seconds == pytest.approx(5, abs=1.5)
    assert await call(first, replace(to, model="openai/gpt-4o")) < began + 5 <= await patient
    await first.close()
    # Those who left the queue took nothing along.
    assert await rows(engine, "SELECT sum(requests) FROM rate_buckets") == [(3,)]


async def test_a_model_that_keeps_failing_is_left_alone_by_all(
    worker: Callable[..., Traffic], monkeypatch: pytest.MonkeyPatch, engine: AsyncEngine
) -> None:
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.5)
    first, second, to = worker(), worker(), CallTarget()
    await call(second, to)
    for _ in range(circuit_breaker.IN_A_ROW):
        await fail(first, to)
    await until(lambda: second._circuits.any_open)
    for traffic in (first, second):
        with pytest.raises(ProviderError, match="failed so often lately") as caught:
            await call(traffic, to)
        assert (caught.value.code, caught.value.retryable) == ("provider_unavailable", True)
        assert 0 < (caught.value.retry_after_seconds or 0) <= 0.5
    await call(second, replace(to, model="openai/gpt-4o"))

    # One call of all workers tries; it fails, and they stay away for twice as long.
    await until(lambda: all(t._circuits.refusal(to.account, to.model) is None for t in (first, second)))
    tried = await asyncio.gather(*(tries(traffic, to) for traffic in (first, second) for _ in range(5)))
    assert sorted(tried) == [False] * 9 + [True]
    await written(first, second)
    longer = "SELECT failures, open_until - changed_at > interval '0.9 s' FROM circuits"
    assert await rows(engine, longer) == [(2, True)]

    # And then one that succeeds.
    await answered(second, to)
    await until(lambda: not first._circuits.any_open)
    await call(first, to)
    assert await rows(engine, "SELECT 1 FROM circuits") == []


async def answered(traffic: Traffic, to: CallTarget) -> None:
    """A call is made as soon as one may."""
    while True:
        try:
            await call(traffic, to)
            return
        except ProviderError as error:
            if error.code != "provider_unavailable":
                raise
            await asyncio.sleep(0.01)


async def tries(traffic: Traffic, to: CallTarget) -> bool:
    """Whether the call was made; it fails."""
    try:
        async with traffic.passage(to, tokens=1, until=soon()):
            await asyncio.sleep(0.3)
            raise ProviderError("provider_stream_cut", "scripted", retryable=True)
    except ProviderError as error:
        return error.message == "scripted"


async def written(*workers: Traffic) -> None:
    await until(lambda: not any(worker._writing for worker in workers))


async def test_refusals_and_hurried_timeouts_open_no_circuit(worker: Callable[..., Traffic]) -> None:
    traffic, to = worker(), CallTarget()
    for code in ("provider_bad_request", "provider_timeout", "provider_content_policy") * 4:
        await fail(traffic, to, code)
    await call(traffic, to)
    assert not traffic._circuits.any_open


async def test_a_probe_that_is_given_up_leaves_the_next_one_to_try(
    worker: Callable[..., Traffic], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.2)
    traffic, to = worker(), CallTarget()
    for _ in range(circuit_breaker.IN_A_ROW):
        await fail(traffic, to)
    await until(lambda: traffic._circuits.refusal(to.account, to.model) is None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), traffic.passage(to, tokens=1, until=soon()):
            await asyncio.sleep(5)
    await answered(traffic, to)
    await written(traffic)
    # What was read before it was written may still be learned; the next reading is told of by Postgres.
    async with asyncio.timeout(10):
        await until(lambda: not traffic._circuits.any_open)


async def test_those_who_wait_for_a_turn_hear_at_once_that_the_model_fails(
    worker: Callable[..., Traffic],
) -> None:
    first, second = worker(replace(SECOND, window=30_000)), worker()
    to = CallTarget(requests_per_minute=1)
    await call(first, to)
    waiting = asyncio.create_task(call(first, to, until=soon(60)))
    for _ in range(circuit_breaker.IN_A_ROW):
        await fail(second, replace(to, requests_per_minute=None))
    with pytest.raises(ProviderError, match="failed so often lately"):
        await waiting
