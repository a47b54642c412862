"""No record takes another run's down: every batch that runs share, with one poisoned record among its own."""

import ast
import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.tokens import TokenLog
from activities.upkeep.projections import VectorCopy, copy_batch
from activities.upkeep.reconcile import Reconciler
from db import wakeups
from db.batches import Batches
from db.engine import sync_engine, transaction
from db.isolation import befalls_all
from db.live import archive, tokens
from db.live.reader import LiveSource
from db.runs import executions
from db.runs.collaborations import Run
from db.runs.executions import Assignment
from db.runs.journal import Journal, JournalEntry
from db.telemetry import _IsolatedExporter, _PostgresExporter
from db.wakeups import Bell
from gateway.client import Gateway
from gateway.limits.access import Traffic
from gateway.limits.window import WindowPace
from gateway.request import Usage
from schema import telemetry
from schema.live import StreamPosition
from schema.temporal.runs import ENGINE, Finish
from schema.temporal.steps import StepRequest
from tests.integration.gateway.test_traffic import CallTarget, call, soon
from tests.integration.money.test_ledger import lost
from tests.support.event_log import TRACEPARENT, begin, catch_up, run
from tests.support.lifecycle import journal
from tests.support.providers import only_simulated
from tests.support.runs import rows

ROOT = Path(__file__).parents[3]
PACKAGES = ("activities", "api", "db", "gateway", "graph", "memory", "plan", "router", "workers", "workflows")


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


POISON = {
    "half a surrogate pair": "\ud83d",
    "NUL": "a\0b",
    "NaN": float("nan"),
    "Infinity": [float("inf")],
    "too deep": deep(50_000),
    "too large": 10**400,
    "no JSON": {1, 2},
}

Driver = Callable[[AsyncEngine], Awaitable[None]]
DRIVEN: dict[str, Driver] = {}
"""Where a batch is written part by part → the proof that a record of it takes no other along."""


def drives(*places: str) -> Callable[[Driver], Driver]:
    def note(driver: Driver) -> Driver:
        DRIVEN.update(dict.fromkeys(places, driver))
        return driver

    return note


def url_of(engine: AsyncEngine) -> str:
    return engine.url.render_as_string(hide_password=False)


async def pairs(engine: AsyncEngine, count: int) -> list[StepRequest]:
    return [await begin(engine, "work", tenant=f"tenant-{number}") for number in range(count)]


def entry(request: StepRequest, **changes: Any) -> JournalEntry:
    now = datetime.now(UTC)
    usual = JournalEntry(
        request.collaboration,
        request.tenant,
        TRACEPARENT,
        "code",
        "code",
        "transform",
        0,
        1,
        "transform",
        "completed",
        now,
        now,
        output="fine",
    )
    return replace(usual, **changes)


# -- the journal: one driver for each of its statements ----------------------------------------------------


async def recorded(writing: Journal, requests: Sequence[StepRequest], poison: Any) -> list[Any]:
    poisoned, *healthy = requests
    asked = [writing.record(entry(poisoned, output=poison)), *(writing.record(entry(one)) for one in healthy)]
    return list(await asyncio.gather(*asked, return_exceptions=True))


async def finished(writing: Journal, requests: Sequence[StepRequest], poison: Any) -> list[Any]:
    asked = [
        writing.finish(
            Finish(one.collaboration, one.tenant, TRACEPARENT, "completed"), "fine" if number else poison
        )
        for number, one in enumerate(requests)
    ]
    return list(await asyncio.gather(*asked, return_exceptions=True))


async def looked_up(writing: Journal, requests: Sequence[StepRequest], poison: Any) -> list[Any]:
    asked = [
        writing.states(UUID(one.collaboration), ["code" if number else poison])
        for number, one in enumerate(requests)
    ]
    return list(await asyncio.gather(*asked, return_exceptions=True))


async def started(writing: Journal, requests: Sequence[StepRequest], poison: Any) -> list[Any]:
    version = uuid.uuid4()  # of no version: a start that is answered, and begins nothing
    asked = [
        writing.start(
            Run(
                uuid.uuid4(),
                f"wf-{number}",
                one.tenant,
                {"a": "fine" if number else poison},
                "t",
                TRACEPARENT,
                None,
                datetime.now(UTC),
                version,
                "pair",
                1,
                "0",
                ENGINE,
            ),
            None,
            "test",
        )
        for number, one in enumerate(requests)
    ]
    return list(await asyncio.gather(*asked, return_exceptions=True))


STATEMENTS = {"_start": started, "_states": looked_up, "_record": recorded, "_finish": finished}


async def test_every_statement_of_the_journal_is_driven(engine: AsyncEngine) -> None:
    async with journal(engine) as writing:
        found = {name for name, value in vars(writing).items() if isinstance(value, Batches)}
    assert found == set(STATEMENTS)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("poison", POISON)
async def test_a_poisoned_record_fails_alone(engine: AsyncEngine, statement: str, poison: str) -> None:
    async with journal(engine) as writing:
        requests = await pairs(engine, 6)
        _, *others = await STATEMENTS[statement](writing, requests, POISON[poison])
    assert not [one for one in others if isinstance(one, BaseException)]


@drives("db.batches:_run_apart")
async def _journal(engine: AsyncEngine) -> None:
    async with journal(engine) as writing:
        requests = await pairs(engine, 9)
        ended = await recorded(writing, requests[4:] + requests[:4], "a\0b")
        assert [isinstance(one, BaseException) for one in ended] == [True] + [False] * 8
        kept = await rows(engine, "SELECT count(*) FROM agent_executions WHERE status = 'completed'")
        assert kept == [(8,)]


# -- the others ----------------------------------------------------------------------------------------------


@drives("activities.agent.tokens:_write")
async def _tokens(engine: AsyncEngine) -> None:
    bell = Bell(url_of(engine))
    log = TokenLog(url_of(engine), bell)
    requests = await pairs(engine, 4)
    async with transaction(engine) as connection:
        said = [await executions.claim(connection, one, Assignment("agent", "a")) for one in requests]
    for text in (text for text in POISON.values() if isinstance(text, str)):
        for one, begun in zip(requests, said, strict=True):
            await log.append(one.tenant, one.collaboration, begun.execution, len(text), text, [])
    # What no cleaning helps: a number beyond its column.
    await log.append("tenant-0", requests[0].collaboration, said[0].execution, 2**40, "x", [])
    with pytest.raises(Exception, match="out of range"):
        await log.flush(said[0].execution)
    for begun in said[1:]:
        await log.flush(begun.execution)
        async with transaction(engine) as connection:
            assert (await tokens.said(connection, begun.execution)).text == "\ufffdab"
    log.drop(said[0].execution)
    await log.flush(said[0].execution)
    await log.close()
    await bell.close()


@drives("db.telemetry:export")
async def _spans(engine: AsyncEngine) -> None:
    exporter = _IsolatedExporter(_PostgresExporter(sync_engine(url_of(engine)), "test"))
    spans = made_spans([{telemetry.TENANT: f"tenant-{number}"} for number in range(5)])
    bad = made_spans([{"a": "a\0b"}, {"a": float("nan")}, {"a": "\ud83d"}, {"a\0": 1}])
    await asyncio.to_thread(exporter.export, [*spans[:2], *bad, *spans[2:]])
    exporter.shutdown()
    assert await rows(engine, "SELECT count(*) FROM spans WHERE tenant_id LIKE 'tenant-%'") == [(5,)]


def made_spans(attributes: list[dict[str, Any]]) -> Sequence[ReadableSpan]:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for one in attributes:
        provider.get_tracer("test").start_span("span", attributes=one).end()
    return kept.get_finished_spans()


@drives("db.wakeups:_tell")
async def _wakeups(engine: AsyncEngine) -> None:
    bell, healthy = Bell(url_of(engine)), str(uuid.uuid4())
    listening = wakeups.listen(url_of(engine))
    await anext(listening)
    bell.changed(["\ud83d", "a\0b", "x" * 9_000, "no run", healthy])
    async with asyncio.timeout(10):
        while healthy.replace("-", "") not in (await anext(listening))[1]:
            pass
    await listening.aclose()  # type: ignore[attr-defined]
    await bell.close()


@drives("activities.upkeep.projections:_apply_apart")
async def _projections(engine: AsyncEngine) -> None:
    """Of Weaviate and Neo4j: `test_memory` and `test_graph`, with what these refuse."""

    def encode(tasks: Sequence[str]) -> list[list[float]]:
        if "poison" in tasks:
            raise TypeError("no text")
        return [[0.0] * 383 + [1.0] for _ in tasks]

    for task in ("one", "two", "poison", "three"):
        await run(engine, task)
    await catch_up(engine, copy := VectorCopy(engine, encode))
    assert await rows(engine, "SELECT count(*) FROM task_vectors") == [(3,)]
    assert await copy_batch(engine, "test", copy) == 0


@drives("activities.upkeep.reconcile:one")
async def _reconciling(engine: AsyncEngine) -> None:
    gateway = Gateway(only_simulated("http://127.0.0.1:9"))
    elsewhere = {"account": "'openai:abc'", "reserved_usd": "NULL", "reserved_tokens": "NULL"}
    calls = [await lost(engine, one, **elsewhere) for one in await pairs(engine, 4)]
    query = "UPDATE model_calls SET most_input_tokens = 9000000000000000000 WHERE id = "
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"{query} '{calls[1]}'")
    done = await Reconciler(engine, gateway).all_lost()
    assert (done.assumed, done.left) == (3, 1)
    await gateway.close()


@drives("db.live.archive:_moved")
async def _archive(engine: AsyncEngine) -> None:
    requests, said = await pairs(engine, 3), []
    bell = Bell(url_of(engine))
    log = TokenLog(url_of(engine), bell)
    for one in requests:
        async with transaction(engine) as connection:
            said.append((await executions.claim(connection, one, Assignment("agent", "a"))).execution)
        await log.append(one.tenant, one.collaboration, said[-1], 0, "word", [])
    await log.flush()
    await log.close()
    await bell.close()
    async with journal(engine) as writing:
        await finished(writing, requests, "fine")
    broken = "INSERT INTO token_archives VALUES ('{}', 'default', '\\x00', 1, now(), now())"
    async with engine.begin() as connection:
        columns = "(execution_id, tenant_id, tokens, count, first_at, archived_at)"
        await connection.exec_driver_sql(
            broken.format(said[0]).replace("VALUES", f"{columns} VALUES").replace("\\x00", "\\x0042")
        )
    async with transaction(engine) as connection:
        moved = await archive.archive(connection, datetime.now(UTC) + timedelta(hours=1), 10)
    assert (moved.executions, moved.tokens) == (2, 2)


@drives("db.live.reader:_apart")
async def _followers(engine: AsyncEngine) -> None:
    requests = await pairs(engine, 3)
    query = "UPDATE outbox SET payload = '{}' WHERE aggregateid = "
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"{query} '{requests[1].collaboration}'")
    source = LiveSource(url_of(engine))
    followers = [await source.follower(UUID(one.collaboration), StreamPosition()) for one in requests]
    first, poisoned, last = await source.read(followers)
    assert (len(first), len(poisoned), len(last)) == (1, 0, 1)
    assert [one.ended for one in followers] == [False, True, False]
    await source.close()


# Owed corrections of all callers go into one transaction with the turns of those who wait.
@drives("gateway.limits.rate_limiter:owe")
async def _gate(engine: AsyncEngine) -> None:
    traffic = Traffic(url_of(engine), WindowPace(window=1_000, margin=100, slot=50, spread=150, share=500))
    to = CallTarget(requests_per_minute=100, tokens_per_minute=1_000)
    async with traffic.passage(to, tokens=10, until=soon()) as passage:
        passage.used(Usage(10**30, 10**30))
    other = replace(to, account="other")
    assert await call(traffic, other) <= soon(0)
    await traffic.close()
    assert (await rows(engine, "SELECT count(*) FROM rate_buckets WHERE account = 'account'"))[0][0] == 1


# -- which they are ------------------------------------------------------------------------------------------


def calls_of(name: str) -> set[str]:
    """module:function of everything in the packages that calls a function of this name."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    inner = (one for part in node.body for one in _own(part))
                    if any(isinstance(one, ast.Call) and ast.unparse(one.func) == name for one in inner):
                        found.add(f"{module}:{node.name}")
    return found


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what stands in it, functions within it apart."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    yield node
    for part in ast.iter_child_nodes(node):
        yield from _own(part)


def test_every_batch_that_is_written_part_by_part_is_driven() -> None:
    found = calls_of("isolation.refuse") | (calls_of("befalls_all") - {"db.isolation:refuse"})
    assert found | {"db.live.reader:_apart", "gateway.limits.rate_limiter:owe"} == set(DRIVEN)


SHARED = re.compile(r"json_to_recordset\(|\bunnest\(|UNWIND|insert_many\(|\.copy\(_|asyncio\.gather\(")
ELSEWHERE = {
    "activities/improve/optimize.py": "the trials of one prompt",
    "activities/upkeep/reconcile.py": "driven",
    "activities/runs/segment.py": "the items of one run",
    "api/console/mount.py": "the sides of one socket",
    "api/health/routes.py": "checks of servers, each with its own answer",
    "api/live/sockets.py": "the sides of one socket",
    "api/health/projections.py": "two lags of one answer",
    "db/runs/in_flight.py": "keys that are hashes of ours",
    "db/runs/journal.py": "driven",
    "db/live/reader.py": "driven",
    "db/router/outcomes.py": "ids of ours",
    "db/live/tokens.py": "driven",
    "gateway/http.py": "connections that are closed",
    "gateway/limits/access.py": "writes that are awaited at the end, each for itself",
    "graph/projection.py": "driven, and in test_graph",
    "memory/projection.py": "driven, and in test_memory",
    "plan/walk.py": "the steps of one run",
    "workflows/pausing.py": "the children of one run",
}
"""Where many records stand in one statement or wait for each other, and why none takes others along."""


def test_no_other_batch_has_come_into_being() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if SHARED.search(path.read_text()) and path.name != "batches.py"
    }
    assert found == set(ELSEWHERE)


@pytest.mark.parametrize("place", DRIVEN)
async def test_a_poisoned_record_takes_no_other_along(engine: AsyncEngine, place: str) -> None:
    await DRIVEN[place](engine)


def test_what_befalls_all_is_nobodys_fault() -> None:
    assert befalls_all(OSError()) and befalls_all(asyncio.CancelledError())
    assert not befalls_all(ValueError()) and not befalls_all(RecursionError())
