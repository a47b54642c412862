"""Lists of runs and definitions: filtered, in pages by a cursor, and quick with ten thousand runs."""

import time
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from schema.settings import Settings
from tests.support.api_client import door
from tests.support.event_log import Work, run
from tests.support.runs import rows

_RUNS = 10_000
QUICK_SECONDS = 1.5
"""Ten times what the slowest of these takes alone; a gate shares its processors."""
# Of three definitions, a second apart; every tenth failed, every hundredth was dear.
_MANY = """
INSERT INTO collaborations (id, workflow_id, temporal_workflow_id, task, input, status, traceparent,
    started_at, completed_at, simulated)
SELECT gen_random_uuid(), (SELECT id FROM workflows WHERE name = (ARRAY['a', 'b', 'c'])[1 + n % 3]),
    'run-' || n, 'Describe part ' || n || ' of the engine', '{}',
    CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'completed' END,
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    now() - n * interval '1 second', now() - n * interval '1 second', n % 2 = 0
FROM generate_series(1, :runs) AS n
"""
_STEPS = """
INSERT INTO agent_executions (id, collaboration_id, path, step_id, kind, attempt, agent_name, model_id,
    status, cost_usd, simulated, started_at, completed_at)
SELECT gen_random_uuid(), run.id, 's' || step, 's' || step, 'agent', 1, 'a', 'm/m', 'completed',
    CASE WHEN right(run.temporal_workflow_id, 2) = '00' THEN 1 ELSE 0.0001 END, run.simulated, run.started_at,
    run.started_at
FROM collaborations AS run CROSS JOIN generate_series(1, 4) AS step
WHERE run.temporal_workflow_id LIKE 'run-%'
"""


async def _many(engine: AsyncEngine) -> None:
    for name in "abc":
        await run(engine, "Another task", Work("code", "coder", "m/m"), name=name)
    async with transaction(engine) as connection:
        await connection.execute(text(_MANY), {"runs": _RUNS})
        await connection.execute(text(_STEPS))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("ANALYZE collaborations, agent_executions, workflows"))


async def _page(http: httpx.AsyncClient, **query: Any) -> tuple[list[dict[str, Any]], str | None]:
    began = time.perf_counter()
    answer = await http.get("/v1/collaborations", params=query)
    took = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    assert took < QUICK_SECONDS, f"{query} took {took:.2f} s"
    found = answer.json()
    return found["items"], found["next"]


async def test_ten_thousand_runs_stay_quick(engine: AsyncEngine, settings: Settings) -> None:
    await _many(engine)
    async with door(settings) as http:
        await http.get("/v1/collaborations")
        newest, more = await _page(http, limit=50)
        assert (len(newest), more is not None) == (50, True)
        failed, _ = await _page(http, status="failed", name="a")
        assert {(one["status"], one["name"]) for one in failed} == {("failed", "a")}
        dear, _ = await _page(http, least_usd=1, limit=200)
        assert len(dear) == _RUNS / 100 and all(one["cost_usd"] == 4 for one in dear)
        none, _ = await _page(http, least_usd=5)
        assert none == []
        found, _ = await _page(http, q="part 9999 of")
        assert [one["id"] for one in found] == ["run-9999"]
        assert (await _page(http, q="no such words"))[0] == []
        real, _ = await _page(http, simulated=False)
        assert {one["simulated"] for one in real} == {False}
        since, until = newest[-1]["started_at"], newest[10]["started_at"]
        between, _ = await _page(http, since=since, until=until)
        assert [one["id"] for one in between] == [one["id"] for one in newest[11:]]
        # The last page comes as soon as the first one.
        last = (await rows(engine, "SELECT min(started_at) + interval '1 minute' FROM collaborations"))[0][0]
        assert len((await _page(http, until=last.isoformat()))[0]) > 0
        began = time.perf_counter()
        listed = (await http.get("/v1/definitions")).json()["items"]
        assert time.perf_counter() - began < QUICK_SECONDS
        assert [one["last_run"]["status"] for one in listed] == ["completed"] * 3


async def test_a_page_ends_where_the_next_begins(engine: AsyncEngine, settings: Settings) -> None:
    for at in range(5):
        await run(engine, f"Task {at}", Work("code", "coder", "m/m"))
    async with door(settings) as http:
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            items, after = await _page(http, limit=2, after=after, simulated=True)
            seen += [one["task"] for one in items]
    assert seen == [f"Task {at}" for at in reversed(range(5))]


@pytest.mark.parametrize("query", [{"least_usd": -1}, {"since": "soon"}, {"simulated": "perhaps"}])
async def test_a_filter_that_makes_no_sense_is_refused(settings: Settings, query: dict[str, Any]) -> None:
    async with door(settings) as http:
        answer = await http.get("/v1/collaborations", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
