"""What events come to in the graph, without a graph."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.outbox import LoggedEvent, Position
from graph.ask import check_text
from graph.fold import Properties, Relationship, fold
from graph.projection import statements
from graph.queries import cypher, names
from graph.verify import differences
from schema.errors import NotFound, Refused
from schema.events import CollaborationFinished, CollaborationStarted, DefinitionStored, Event, StepFinished
from schema.language.catalogue import RELATIONSHIPS

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STARTED = CollaborationStarted("c1", "wf-1", "pair", 2, "sort a list")
FINISHED = CollaborationFinished("c1", "completed", "", None, "0.003000", 0.95, 1234)


def logged(*events: Event, tenant: str = "default") -> list[LoggedEvent]:
    return [
        LoggedEvent(
            Position(number, number),
            str(number),
            type(event).__name__,
            "c1",
            tenant,
            event.payload(),
            AT,
            None,
        )
        for number, event in enumerate(events, 1)
    ]


def step(**facts: Any) -> StepFinished:
    usual: dict[str, Any] = {
        "collaboration_id": "c1",
        "execution_id": "e1",
        "step": "review",
        "kind": "agent",
        "iteration": 0,
        "attempt": 1,
        "agent": "critic",
        "role": "reviewer",
        "relationship": "REVIEWED",
        "model": "m",
        "requested_model": "m",
        "input_tokens": 10,
        "output_tokens": 5,
        "latency_ms": 700,
        "cost_usd": "0.0015",
        "found_issues": True,
        "severity": "high",
        "quality": None,
        "simulated": True,
    }
    return StepFinished(**(usual | facts))


def test_a_run_becomes_a_task_of_a_definition_with_an_edge_per_execution() -> None:
    stored = DefinitionStored("v1", "pair", 2, "abc")
    rows = fold(logged(stored, STARTED, step(), FINISHED))
    assert rows.definitions == {
        "default/pair@2": {"tenant_id": "default", "name": "pair", "version": 2, "sha256": "abc"}
    }
    assert rows.tasks == {
        "c1": {
            "tenant_id": "default",
            "description": "sort a list",
            "workflow": "pair",
            "version": 2,
            "workflow_id": "wf-1",
            "status": "completed",
            "sub_state": "",
            "started_at": AT,
            "finished_at": AT,
            "cost_usd": 0.003,
            "quality": 0.95,
            "latency_ms": 1234,
            "simulated": False,
        }
    }
    assert rows.run_of == {"c1": "default/pair@2"}
    assert rows.agents == {"default/critic/m": {"tenant_id": "default", "name": "critic", "model": "m"}}
    work: Properties = {
        "step": "review",
        "iteration": 0,
        "attempt": 1,
        "role": "reviewer",
        "requested_model": "m",
        "latency_ms": 700,
        "tokens": 15,
        "cost_usd": 0.0015,
        "found_issues": True,
        "severity": "high",
        "simulated": True,
        "at": AT,
        "tenant_id": "default",
    }
    assert rows.edges == {"e1": Relationship("REVIEWED", "default/critic/m", "c1", work)}


def test_a_fork_goes_on_from_a_task_that_may_be_in_an_earlier_batch() -> None:
    forked = CollaborationStarted("c2", "wf-2", "pair", 2, "sort a list", "c1")
    rows = fold(logged(STARTED, forked))
    assert rows.forked_from == {"c2": "c1"}
    assert rows.tasks["c1"]["status"] == "running"
    # As old events tell it: they know no forks.
    old = logged(STARTED)
    del old[0].payload["forked_from"]
    assert fold(old).forked_from == {}
    later = fold(logged(forked))
    assert later.tasks["c1"] == {"tenant_id": "default"}
    assert [rows for cypher, rows in statements(later) if "FORKED_FROM" in cypher] == [
        [{"task": "c2", "source": "c1"}]
    ]
    without = fold(logged(forked))
    without.forked_from.clear()
    assert differences(later, without) == ["forked_from c2: expected c1, found None"]


def test_folding_an_event_twice_changes_nothing() -> None:
    events = logged(STARTED, step(), FINISHED)
    assert fold(events + events) == fold(events)


def test_rounds_of_a_step_are_edges_of_their_own() -> None:
    rows = fold(logged(step(), step(execution_id="e2", iteration=1)))
    assert [edge.properties["iteration"] for edge in rows.edges.values()] == [0, 1]


def test_equal_tasks_of_two_runs_stay_two() -> None:
    other = CollaborationStarted("c2", "wf-2", "pair", 2, "sort a list")
    assert fold(logged(STARTED, other)).tasks.keys() == {"c1", "c2"}


def test_tenants_share_no_agent_and_no_definition() -> None:
    rows = fold(logged(STARTED, step(), tenant="a") + logged(STARTED, step(), tenant="b"))
    assert rows.agents.keys() == {"a/critic/m", "b/critic/m"}
    assert rows.definitions.keys() == {"a/pair@2", "b/pair@2"}


def test_what_no_agent_did_leaves_no_edge() -> None:
    rows = fold(logged(step(kind="tool", relationship=None, role=None)))
    assert (rows.edges, rows.agents, rows.tasks) == ({}, {}, {})


def test_a_relationship_that_is_not_known_never_reaches_cypher() -> None:
    rows = fold(logged(step(relationship="X]->() DETACH DELETE n //")))
    assert rows.edges["e1"].type == "CONTRIBUTED"
    assert all("DETACH" not in cypher for cypher, _ in statements(rows))


def test_every_role_has_its_relationship() -> None:
    assert RELATIONSHIPS == (
        "DESIGNED",
        "IMPLEMENTED",
        "REVIEWED",
        "REFINED",
        "TESTED",
        "DOCUMENTED",
        "OPTIMIZED",
        "CONTRIBUTED",
    )


def test_nodes_are_written_before_what_joins_them() -> None:
    written = [cypher for cypher, _ in statements(fold(logged(STARTED, step(), FINISHED)))]
    assert ["UNWIND" in cypher and "MATCH" in cypher for cypher in written] == [False] * 3 + [True] * 2


def test_a_difference_names_its_place() -> None:
    want, have = fold(logged(STARTED, step())), fold(logged(STARTED))
    lines = differences(want, have)
    assert [line.split(":")[0] for line in lines] == ["agents default/critic/m", "edges e1"]
    assert differences(want, want) == []


def test_questions_are_found_by_name() -> None:
    assert names() == (
        "average_refinement",
        "bottlenecks",
        "cheapest_for_quality",
        "issue_rate_by_pair",
        "issues_by_pair",
    )
    with pytest.raises(NotFound, match="issue_rate_by_pair"):
        cypher("../client.py")


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        (
            "issues_by_pair",
            "MATCH (reviewer:Agent)-[r:REVIEWED {found_issues: true}]->(t:Task)<-[impl:IMPLEMENTED]-"
            "(coder:Agent) RETURN coder.model, reviewer.model, count(*) as issue_count "
            "ORDER BY issue_count DESC",
        ),
        (
            "average_refinement",
            "MATCH (a:Agent)-[r:REFINED]->(t:Task) RETURN avg(r.latency_ms) as avg_refinement_ms",
        ),
    ],
)
def test_the_seed_asked_these_word_for_word(name: str, seed: str) -> None:
    text = " ".join(line for line in cypher(name).splitlines() if not line.startswith("//"))
    assert "".join(text.split()) == "".join(seed.split())


@pytest.mark.parametrize(
    "query",
    [
        "MATCH (t:Task) WHERE t.description CONTAINS 'LOAD CSV' RETURN t",
        "MATCH (t:Task) WHERE t.description = 'please call me \\' now' RETURN t",
        "MATCH (t:Task) // call anything\nRETURN t /* load csv */",
        "CALL db.labels()",
        "CALL db . schema . visualization ( ) YIELD nodes RETURN nodes",
        "CALL `db`.`labels`() YIELD label RETURN label",
        "MATCH (t:Task) CALL (t) { RETURN 1 AS one } RETURN one",
        "MATCH (callable) RETURN callable",
    ],
)
def test_text_that_only_reads_passes(query: str) -> None:
    check_text(query)


@pytest.mark.parametrize(
    "query",
    [
        "LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
        "load/* */csv from 'http://x' as row return row",
        "RETURN 1 AS `'`, COUNT { LOAD CSV FROM 'http://x' AS r RETURN r }, 2 AS `'2`",
        'RETURN 1 AS `"`, COUNT { LOAD // x\n CSV FROM "http://x" AS r RETURN r }',
        "CALL dbms.listConfig()",
        "RETURN COUNT { CALL/**/apoc.load.json('http://x') YIELD value RETURN value }",
        "CALL `dbms`.`listConfig`()",
        "CALL db.labels() YIELD label CALL dbms.listConfig() YIELD name RETURN *",
        "\\u004cOAD CSV FROM 'x' AS r RETURN r",
    ],
)
def test_text_that_does_more_is_refused(query: str) -> None:
    with pytest.raises(Refused) as refused:
        check_text(query)
    assert refused.value.code in ("cypher_not_read_only", "cypher_invalid")
