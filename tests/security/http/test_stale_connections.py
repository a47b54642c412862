"""A worker whose connections to Postgres went stale does not throw away an answer that was paid."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from db import engine as engines
from db.engine import persist, transaction
from db.wakeups import Bell
from tests.support.providers import running_simulator
from tests.support.runs import attempts, begin, means_of, rows

ASK = {
    "agents": {"a": {"model": "openai/gpt-4o-mini"}},
    "defaults": {"retry": {"max_attempts": 1}},
    "steps": {"ask": {"kind": "agent", "agent": "a", "prompt": "Say hello."}},
}
TOLD = "SELECT count(*) FROM outbox WHERE aggregateid = :run AND type = 'StepFinished'"
CALLS = "SELECT state, count(*) FROM model_calls WHERE collaboration_id = :run GROUP BY state"


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    with running_simulator() as url:
        yield url


def cut_all(url: str) -> int:
    """End every connection to the database, as a restart of Postgres does."""
    with psycopg.connect(url, autocommit=True) as own:
        found = own.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert found is not None
    return int(found[0])


class CuttingTokenLog(TokenLog):
    """Ends every connection when an answer has come, before a word of it is written."""

    def __init__(self, url: str, bell: Bell, times: int) -> None:
        super().__init__(url, bell)
        self.url, self.times, self.cut = url, times, 0

    async def flush(self, execution: UUID | None = None) -> None:
        if self.times and self._said_all():
            self.times -= 1
            self.cut += await asyncio.to_thread(cut_all, self.url)
        await super().flush(execution)

    def _said_all(self) -> bool:
        # The writer in the background flushes too, while the answer is still coming.
        task = asyncio.current_task()
        return task is not None and task is not self._task


@pytest.fixture
async def cutting(engine: AsyncEngine) -> AsyncIterator[CuttingTokenLog]:
    url = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    bell = Bell(url)
    log = CuttingTokenLog(url, bell, times=2)
    yield log
    await log.close()
    await bell.close()


async def calls_of(simulator_url: str) -> int:
    async with httpx.AsyncClient(base_url=simulator_url) as client:
        total: int = (await client.get("/_simulator/calls")).json()["total"]["calls"]
        return total


async def test_a_paid_answer_survives_a_restart_of_postgres_before_it_is_written(
    engine: AsyncEngine, simulator_url: str, cutting: CuttingTokenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 1_000.0)  # no connection is asked first
    request = await begin(engine, ASK)
    before = await calls_of(simulator_url)
    async with means_of(engine, simulator_url, cutting) as means:
        result = await AgentActivity(means).agent(request)
    assert cutting.cut > 0
    assert result.status == "completed"
    assert await calls_of(simulator_url) - before == 1
    assert await attempts(engine, request) == [(1, "completed", None, True)]
    assert await rows(engine, CALLS, run=request.collaboration) == [("settled", 1)]
    assert await rows(engine, TOLD, run=request.collaboration) == [(1,)]


async def test_an_idle_connection_that_went_stale_fails_nobody(
    engine: AsyncEngine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.0)
    async with transaction(engine) as one, transaction(engine) as other:
        assert await _one(one) == await _one(other) == 1
    assert cut_all(postgres_url) >= 2
    for _ in range(3):
        async with transaction(engine) as connection:
            assert await _one(connection) == 1


async def test_a_commit_that_nobody_heard_of_is_found_and_told_once(
    engine: AsyncEngine, simulator_url: str, cutting: CuttingTokenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the server has committed and before it said so."""
    cutting.times = 0

    async def unheard(work: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        heard: list[Any] = []

        async def once() -> Any:
            heard.append(await work())
            if len(heard) == 1:
                raise psycopg.OperationalError("the connection is lost")
            return heard[-1]

        return await persist(once, seconds)

    monkeypatch.setattr("activities.agent.attempts.persist", unheard)
    request = await begin(engine, ASK)
    async with means_of(engine, simulator_url, cutting) as means:
        result = await AgentActivity(means).agent(request)
    assert result.status == "completed"
    assert await attempts(engine, request) == [(1, "completed", None, True)]
    assert await rows(engine, CALLS, run=request.collaboration) == [("settled", 1)]
    assert await rows(engine, TOLD, run=request.collaboration) == [(1,)]


async def test_what_is_no_fault_of_postgres_is_not_tried_again() -> None:
    tried = []

    async def wrong() -> None:
        tried.append(1)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await persist(wrong, 5)
    assert tried == [1]


async def test_a_write_is_given_up_when_its_time_is_over() -> None:
    async def away() -> None:
        raise psycopg.OperationalError("away")

    with pytest.raises(psycopg.OperationalError):
        await persist(away, 0.2)


async def _one(connection: AsyncConnection) -> int:
    found: int = (await connection.execute(text("SELECT 1"))).scalar_one()
    return found
