"""The graph as a copy of the log, on a real Neo4j that belongs to these tests alone."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.upkeep.projections import GraphCopy, copy_batch
from activities.upkeep.verify import VerifyActivity
from db import outbox
from db.engine import transaction
from db.outbox import Position
from db.runs import forgetting
from graph import projection, verify
from graph.ask import MAX_ROWS, ask
from graph.client import GraphDrivers, connect
from graph.fold import EVENT_TYPES
from graph.queries import cypher, names, of_kind
from infra.local import start
from schema.errors import Refused, Unavailable
from schema.events import CollaborationForgotten, CollaborationStarted
from schema.settings import Settings
from schema.temporal.upkeep import VerifyPass
from tests.support.event_log import Work, begin, catch_up, run, work
from tests.support.stack import settings_of

DESIGN = Work("design", "architect", "openai/gpt-4")
CODE_A = Work("code", "coder", "model/a")
CODE_B = Work("code", "coder", "model/b")


@pytest.fixture(scope="session")
def own_neo4j() -> Iterator[Settings]:
    """The community edition has one database, which the platform's projector keeps filling: these tests
    empty theirs, so it is another server; TEST_NEO4J_URI names one that may be emptied."""
    if uri := os.environ.get("TEST_NEO4J_URI"):
        yield Settings(neo4j_uri=uri, neo4j_password=os.environ.get("TEST_NEO4J_PASSWORD", ""))
        return
    data = Path(tempfile.mkdtemp(prefix="facilitair-neo4j-"))
    supervisor = start(data, only=["neo4j"], given={})
    try:
        supervisor.wait_ready("neo4j", timeout_seconds=600)
        yield settings_of(dict(supervisor.environment))
    finally:
        supervisor.stop()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
async def graph(own_neo4j: Settings) -> AsyncIterator[GraphDrivers]:
    made = connect(own_neo4j)
    await empty(made)
    yield made
    await made.close()


async def empty(graph: GraphDrivers) -> None:
    async with graph.session() as session:
        await (await session.run("MATCH (n) DETACH DELETE n")).consume()


def review(model: str, found: bool, iteration: int = 0) -> Work:
    return Work("review", "reviewer", model, found_issues=found, quality=0.5, iteration=iteration)


async def write_known_log(engine: AsyncEngine) -> None:
    """Pairs (a, r): 3 reviews, 2 with issues. (b, r): 1 review, 1 with issues. Refined twice."""
    await run(engine, "one", DESIGN, CODE_A, review("model/r", True), Work("refine", "refiner", "model/a"))
    await run(engine, "two", CODE_A, review("model/r", True), review("model/r", False, iteration=1))
    await run(engine, "three", CODE_B, review("model/r", True), Work("refine", "refiner", "model/b"))
    await run(engine, "three", Work("check", None, "", kind="tool"))


async def count(graph: GraphDrivers, pattern: str) -> int:
    return int((await ask(graph, f"MATCH {pattern} RETURN count(*)")).rows[0][0])


async def test_the_graph_is_the_fold_of_the_log(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    await catch_up(engine, GraphCopy(graph))
    assert await verify.check(engine, graph) == []
    assert await count(graph, "(t:Task)") == 4
    assert await count(graph, "(:Agent)-[r]->(:Task)") == 10
    assert await count(graph, "(:Task)-[:RUN_OF]->(:Definition)") == 4


async def test_a_fork_goes_on_from_its_source(engine: AsyncEngine, graph: GraphDrivers) -> None:
    source = await run(engine, "one", CODE_A)
    fork = await run(engine, "one", review("model/r", False), forked_from=source)
    copy = GraphCopy(graph)
    await catch_up(engine, copy)
    edges = await ask(graph, "MATCH (t:Task)-[:FORKED_FROM]->(s:Task) RETURN t.key, s.key")
    assert edges.rows == [[fork, source]]
    assert await verify.check(engine, graph) == []
    async with graph.session() as session:
        await (await session.run("MATCH (:Task)-[r:FORKED_FROM]->() DELETE r")).consume()
    assert await verify.check(engine, graph) == [f"forked_from {fork}: expected {source}, found None"]


async def test_both_questions_of_the_seed(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    await catch_up(engine, GraphCopy(graph))
    pairs = await ask(graph, cypher("issues_by_pair"))
    assert pairs.columns == ["coder.model", "reviewer.model", "issue_count"]
    assert pairs.rows == [["model/a", "model/r", 2], ["model/b", "model/r", 1]]
    async with engine.connect() as connection:
        query = text("SELECT avg(latency_ms)::float FROM agent_executions WHERE role = 'refiner'")
        expected = (await connection.execute(query)).scalar_one()
    assert (await ask(graph, cypher("average_refinement"))).rows == [[expected]]


async def test_our_own_questions(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    await catch_up(engine, GraphCopy(graph))
    rates = await ask(graph, cypher("issue_rate_by_pair"))
    assert rates.rows == [
        ["model/a", "model/r", 3, 2, pytest.approx(2 / 3)],
        ["model/b", "model/r", 1, 1, 1.0],
    ]
    slow = await ask(graph, cypher("bottlenecks"))
    assert {row[1] for row in slow.rows} == {"design", "code", "review", "refine"}
    cheap = await ask(graph, cypher("cheapest_for_quality"))
    # Three runs were judged; they cost 4, 3 and 3 executions of $0.0015.
    assert cheap.rows == [["pair", 1, 3, 0.5, pytest.approx(0.005), pytest.approx(0.01)]]


async def test_a_stored_question_asks_about_runs_of_one_kind(
    engine: AsyncEngine, graph: GraphDrivers
) -> None:
    await run(engine, "one", CODE_A, review("model/r", True))
    await run(
        engine, "two", replace(CODE_B, simulated=False), replace(review("model/r", True), simulated=False)
    )
    await catch_up(engine, GraphCopy(graph))
    for simulated, model in ((True, "model/a"), (False, "model/b")):
        pairs = await ask(graph, of_kind("issues_by_pair"), {"simulated": simulated})
        assert pairs.rows == [[model, "model/r", 1]]
        for name in names():
            await ask(graph, of_kind(name), {"simulated": simulated})
    # As an earlier release projected them.
    async with graph.session() as session:
        await (await session.run("MATCH (t:Task) REMOVE t.simulated")).consume()
    assert (await ask(graph, of_kind("issues_by_pair"), {"simulated": False})).rows == [
        ["model/b", "model/r", 1]
    ]


async def test_forgotten_runs_leave_the_graph_and_stay_away(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    real = await run(engine, "real", replace(CODE_A, simulated=False))
    await catch_up(engine, GraphCopy(graph))
    async with transaction(engine) as connection:
        assert await forgetting.runs(connection, "default") == 4
    await catch_up(engine, GraphCopy(graph))
    assert (await ask(graph, "MATCH (t:Task) RETURN t.key")).rows == [[real]]
    assert await count(graph, "(a:Agent)") == 1
    assert await verify.check(engine, graph) == []
    await empty(graph)
    await catch_up(engine, GraphCopy(graph))
    assert await verify.check(engine, graph) == []


async def test_a_log_cut_anywhere_makes_the_same_graph(engine: AsyncEngine, graph: GraphDrivers) -> None:
    """A fork that starts beside the forgetting of its source is told of on either side of it."""
    first = CollaborationStarted("c1", "wf-1", "one", 1, "task")
    fork = CollaborationStarted("c2", "wf-2", "one", 1, "task", forked_from="c1")
    async with transaction(engine) as connection:
        for event in (first, CollaborationForgotten("c1"), fork):
            await outbox.append(connection, "default", event.collaboration_id, event)
    async with transaction(engine) as connection:
        events = await outbox.read_after(connection, Position(), 10, list(EVENT_TYPES))
    for size in (1, 2, 3):
        await empty(graph)
        after = Position()
        for start_at in range(0, len(events), size):
            batch = events[start_at : start_at + size]
            assert await projection.apply(graph, after, batch)
            after = batch[-1].position
        assert await verify.check(engine, graph) == []
        assert await count(graph, "(:Task)-[:FORKED_FROM]->(:Task {key: 'c1'})") == 1


async def test_the_daily_comparison_names_what_differs_without_its_values(
    engine: AsyncEngine, graph: GraphDrivers
) -> None:
    task = await run(engine, "one", CODE_A)
    await catch_up(engine, GraphCopy(graph))
    compare = VerifyActivity({"graph": partial(verify.check, engine, graph)}).verify_copies
    assert await ActivityEnvironment().run(compare) == VerifyPass({"graph": 0}, [])
    async with graph.session() as session:
        await (await session.run("MATCH (t:Task) SET t.description = 'secret'")).consume()
    assert await ActivityEnvironment().run(compare) == VerifyPass({"graph": 1}, [f"graph: tasks {task}"])


async def test_applying_an_event_twice_changes_nothing(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    await catch_up(engine, GraphCopy(graph))
    once = await verify.actual(graph)
    async with graph.session() as session:
        await (await session.run("MATCH (p:Projection) DELETE p")).consume()
    assert await catch_up(engine, GraphCopy(graph)) > 0
    assert verify.differences(once, await verify.actual(graph)) == []


async def test_an_event_that_neo4j_cannot_hold_is_left_out_alone(
    engine: AsyncEngine, graph: GraphDrivers
) -> None:
    runs = [await run(engine, task, CODE_A) for task in ("one", "two", "three")]
    query = """
        UPDATE outbox SET payload = jsonb_set(payload, '{latency_ms}', to_jsonb(10::numeric ^ 25))
        WHERE aggregateid = :run AND type = 'StepFinished'
    """
    async with engine.begin() as connection:
        await connection.execute(text(query), {"run": runs[1]})
    copy = GraphCopy(graph)
    await catch_up(engine, copy)
    found = await ask(graph, "MATCH (:Agent)-->(t:Task) RETURN t.description ORDER BY t.description")
    assert found.rows == [["one"], ["three"]]
    assert await copy_batch(engine, "test", copy) == 0


async def test_an_emptied_graph_rebuilds_itself(engine: AsyncEngine, graph: GraphDrivers) -> None:
    await write_known_log(engine)
    copy = GraphCopy(graph)
    events = await catch_up(engine, copy)
    before = await verify.actual(graph)
    await empty(graph)
    assert await catch_up(engine, copy) == events
    assert verify.differences(before, await verify.actual(graph)) == []


async def test_a_projector_that_was_thought_dead_writes_nothing(
    engine: AsyncEngine, graph: GraphDrivers
) -> None:
    await write_known_log(engine)
    await catch_up(engine, GraphCopy(graph))
    at = await projection.position(graph)
    async with transaction(engine) as connection:
        old = await outbox.read_after(connection, Position(), 500, list(EVENT_TYPES))
    assert await projection.apply(graph, Position(), old[:2]) is False
    assert await projection.position(graph) == at


async def test_two_projectors_at_once_make_one_graph(engine: AsyncEngine, graph: GraphDrivers) -> None:
    for number in range(20):
        await run(engine, f"task {number}", CODE_A, review("model/r", True))
    await asyncio.gather(*(catch_up(engine, GraphCopy(graph)) for _ in range(4)))
    assert await verify.check(engine, graph) == []


async def test_an_event_that_commits_late_is_not_lost(engine: AsyncEngine, graph: GraphDrivers) -> None:
    """Transaction 1 takes the lower seq and commits last: a cursor on seq alone would pass it by."""
    copy = GraphCopy(graph)
    await copy.prepare()
    first, second = (CollaborationStarted(f"c{i}", f"wf-{i}", "late", 1, f"task {i}") for i in (1, 2))
    async with engine.connect() as slow:
        begun = await slow.begin()
        await outbox.append(slow, "default", "c1", first)
        async with transaction(engine) as quick:
            await outbox.append(quick, "default", "c2", second)
        # Neither may be read yet: what lies before the second one is not settled.
        assert await copy_batch(engine, "graph", copy) == 0
        await begun.commit()
    assert await catch_up(engine, copy) == 2
    assert (await verify.actual(graph)).tasks.keys() == {"c1", "c2"}


async def test_an_older_transaction_that_writes_later_is_not_lost(
    engine: AsyncEngine, graph: GraphDrivers
) -> None:
    """Here the lower xid takes the higher seq."""
    copy = GraphCopy(graph)
    await copy.prepare()
    first, second = (CollaborationStarted(f"c{i}", f"wf-{i}", "late", 1, f"task {i}") for i in (1, 2))
    async with engine.connect() as slow:
        begun = await slow.begin()
        await slow.execute(text("SELECT pg_current_xact_id()"))
        async with transaction(engine) as quick:
            await outbox.append(quick, "default", "c2", second)
        await outbox.append(slow, "default", "c1", first)
        assert await copy_batch(engine, "graph", copy) == 0
        await begun.commit()
    assert await catch_up(engine, copy) == 2
    assert (await verify.actual(graph)).tasks.keys() == {"c1", "c2"}


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (n:Task {key: 'x'}) RETURN n",
        "MATCH (n) DETACH DELETE n",
        "EXPLAIN MATCH (n) DETACH DELETE n",
        "MATCH (t:Task) SET t.status = 'x'",
        "MATCH (t:Task) REMOVE t:Task",
        "MERGE (:Task {key: 'y'})",
        "MATCH (t:Task) CALL (t) { SET t.x = 1 } RETURN t",
        "MATCH (t:Task) CALL (t) { SET t.x = 1 } IN TRANSACTIONS RETURN t",
        "FOREACH (x IN [1] | CREATE (:Task))",
        "CREATE INDEX x FOR (t:Task) ON (t.status)",
        "DROP CONSTRAINT task_key",
        "CREATE USER eve SET PASSWORD 'abcdefgh'",
        "SHOW USERS",
        "SHOW SETTINGS",
        "SHOW TRANSACTIONS",
        "TERMINATE TRANSACTION 'neo4j-transaction-1'",
        "LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
        "RETURN reduce(a = 0, x IN [1] | a + COUNT { LOAD CSV FROM 'http://x' AS r RETURN r })",
        "CALL dbms.listConfig()",
        "CALL db.createLabel('X')",
        "RETURN COLLECT { CALL dbms.listConfig() YIELD name RETURN name }",
    ],
)
async def test_a_question_cannot_write_or_look_elsewhere(
    query: str, engine: AsyncEngine, graph: GraphDrivers
) -> None:
    await run(engine, "one", CODE_A)
    await catch_up(engine, GraphCopy(graph))
    before = await verify.actual(graph)
    with pytest.raises(Refused) as refused:
        await ask(graph, query)
    assert refused.value.code == "cypher_not_read_only"
    assert verify.differences(before, await verify.actual(graph)) == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        ";",
        "nonsense",
        "MATCH (n) RETURN m",
        "PROFILE CREATE (n)",
        "RETURN 1; CREATE (n)",
        "RETURN $missing",
        "RETURN 1 / 0",
        "RETURN 'open",
    ],
)
async def test_a_wrong_question_says_so(query: str, graph: GraphDrivers) -> None:
    with pytest.raises(Refused) as refused:
        await ask(graph, query)
    assert refused.value.code == "cypher_invalid"


async def test_answers_are_json(graph: GraphDrivers, engine: AsyncEngine) -> None:
    await run(engine, "one", CODE_A)
    await catch_up(engine, GraphCopy(graph))
    found = await ask(
        graph,
        "MATCH p = (a:Agent)-[r]->(t:Task) RETURN a, r, length(p) AS n, $x AS x, date('2026-01-02') AS d, "
        "0.0 / 0.0 AS nan, null AS none, {k: [1, true]} AS map, p",
        {"x": "given"},
    )
    [[agent, edge, length, given, date, nan, none, mapped, path]] = found.rows
    assert agent == {
        "labels": ["Agent"],
        "properties": {
            "key": "default/coder/model/a",
            "model": "model/a",
            "name": "coder",
            "tenant_id": "default",
        },
    }
    assert (edge["type"], edge["from"], edge["properties"]["tokens"]) == (
        "IMPLEMENTED",
        "default/coder/model/a",
        30,
    )
    assert (length, given, date, nan, none, mapped) == (
        1,
        "given",
        "2026-01-02",
        "nan",
        None,
        {"k": [1, True]},
    )
    assert [node["labels"] for node in path["nodes"]] == [["Agent"], ["Task"]]


async def test_answers_stop_at_a_thousand_rows(graph: GraphDrivers) -> None:
    found = await ask(graph, "UNWIND range(1, 5000) AS n RETURN n")
    assert (len(found.rows), found.truncated) == (MAX_ROWS, True)
    assert (await ask(graph, "CALL db.labels()")).truncated is False


async def test_an_endless_question_is_ended(graph: GraphDrivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.ask.TIMEOUT_SECONDS", 0.5)
    with pytest.raises(Refused) as refused:
        await ask(graph, "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b RETURN sum(a * b)")
    assert refused.value.code == "cypher_timeout"


async def test_a_neo4j_that_is_away_is_unavailable() -> None:
    graph = connect(Settings(neo4j_uri="bolt://127.0.0.1:1", neo4j_password="x"))
    calls: list[Any] = [ask(graph, "RETURN 1"), projection.position(graph)]
    for call in calls:
        with pytest.raises(Unavailable) as away:
            await call
        assert away.value.code == "graph_unavailable"
    await graph.close()


async def test_work_arrives_while_a_run_goes_on(engine: AsyncEngine, graph: GraphDrivers) -> None:
    copy = GraphCopy(graph)
    request = await begin(engine, "slow")
    await work(engine, request, CODE_A)
    await catch_up(engine, copy)
    assert (await verify.actual(graph)).tasks[request.collaboration]["status"] == "running"
    await work(engine, request, review("model/r", True))
    await catch_up(engine, copy)
    assert await verify.check(engine, graph) == []
