"""Fold a stretch of the event log into rows of the graph. Pure, and the measure that the graph is checked
against."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from db.outbox import LoggedEvent
from schema.language.catalogue import OTHER_RELATIONSHIP, RELATIONSHIPS

EVENT_TYPES: Final = (
    "DefinitionStored",
    "CollaborationStarted",
    "StepFinished",
    "CollaborationFinished",
    "CollaborationForgotten",
)

Value = str | int | float | bool | datetime
Properties = dict[str, Value]


@dataclass
class GraphRows:
    """Nodes by key, relationships by the execution that left them."""

    definitions: dict[str, Properties] = field(default_factory=dict)
    tasks: dict[str, Properties] = field(default_factory=dict)
    agents: dict[str, Properties] = field(default_factory=dict)
    run_of: dict[str, str] = field(default_factory=dict)
    """task key → definition key"""
    forked_from: dict[str, str] = field(default_factory=dict)
    """task key → key of the task that it goes on from"""
    edges: dict[str, "Relationship"] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    """Keys of tasks that go, with all that leads to them, before the other rows are written."""


@dataclass(frozen=True)
class Relationship:
    """An agent's work on a task: one execution."""

    type: str
    agent: str
    task: str
    properties: Properties


def fold(events: Iterable[LoggedEvent]) -> GraphRows:
    """Fold events into the graph's rows, later facts over earlier ones."""
    rows = GraphRows()
    for event in events:
        match event.type:
            case "DefinitionStored":
                _definition(rows, event, event.payload["name"], event.payload["version"]).update(
                    sha256=event.payload["sha256"]
                )
            case "CollaborationStarted":
                _started(rows, event)
            case "StepFinished":
                _step(rows, event)
            case "CollaborationFinished":
                _finished(rows, event)
            case "CollaborationForgotten":
                _forget(rows, event.aggregate_id)
            case _:
                pass
    return rows


def _forget(rows: GraphRows, task: str) -> None:
    """Drop what earlier events said of a task, and agents that worked on nothing else.

    Later events count again, wherever the log is cut into batches: a fork may still name its source."""
    rows.forgotten.add(task)
    rows.tasks.pop(task, None)
    rows.run_of.pop(task, None)
    rows.forked_from = {
        fork: source for fork, source in rows.forked_from.items() if task not in (fork, source)
    }
    rows.edges = {key: edge for key, edge in rows.edges.items() if edge.task != task}
    busy = {edge.agent for edge in rows.edges.values()}
    rows.agents = {key: agent for key, agent in rows.agents.items() if key in busy}


def _known(properties: dict[str, Value | None]) -> Properties:
    """Neo4j has no null property; an absent one is the same."""
    return {name: value for name, value in properties.items() if value is not None}


def _definition(rows: GraphRows, event: LoggedEvent, name: str, version: int) -> Properties:
    key = f"{event.tenant}/{name}@{version}"
    return rows.definitions.setdefault(key, {"tenant_id": event.tenant, "name": name, "version": version})


def _task(rows: GraphRows, event: LoggedEvent) -> Properties:
    return rows.tasks.setdefault(event.payload["collaboration_id"], {"tenant_id": event.tenant})


def _started(rows: GraphRows, event: LoggedEvent) -> None:
    facts = event.payload
    _definition(rows, event, facts["name"], facts["version"])
    rows.run_of[facts["collaboration_id"]] = f"{event.tenant}/{facts['name']}@{facts['version']}"
    if source := facts.get("forked_from"):
        rows.forked_from[facts["collaboration_id"]] = source
        rows.tasks.setdefault(source, {"tenant_id": event.tenant})
    _task(rows, event).update(
        description=facts["task"],
        workflow=facts["name"],
        version=facts["version"],
        workflow_id=facts["temporal_workflow_id"],
        status="running",
        started_at=_utc(event.created_at),
    )


def _finished(rows: GraphRows, event: LoggedEvent) -> None:
    facts = event.payload
    _task(rows, event).update(
        _known(
            {
                "status": facts["status"],
                "sub_state": facts["sub_state"],
                "error_code": facts["error_code"],
                "cost_usd": float(facts["cost_usd"]),
                "quality": facts["quality"],
                "latency_ms": facts["latency_ms"],
                "finished_at": _utc(event.created_at),
                "simulated": facts.get("simulated"),
            }
        )
    )


def _step(rows: GraphRows, event: LoggedEvent) -> None:
    facts = event.payload
    if facts["relationship"] is None:
        return
    # Types cannot be parameters of a MERGE: they come from this closed set and never from an event.
    type_ = facts["relationship"] if facts["relationship"] in RELATIONSHIPS else OTHER_RELATIONSHIP
    _task(rows, event)
    agent = f"{event.tenant}/{facts['agent']}/{facts['model']}"
    rows.agents[agent] = {"tenant_id": event.tenant, "name": facts["agent"], "model": facts["model"]}
    rows.edges[facts["execution_id"]] = Relationship(
        type_, agent, facts["collaboration_id"], _work(facts, event)
    )


def _work(facts: dict[str, Any], event: LoggedEvent) -> Properties:
    return _known(
        {
            "step": facts["step"],
            "iteration": facts["iteration"],
            "attempt": facts["attempt"],
            "role": facts["role"],
            "requested_model": facts["requested_model"],
            "latency_ms": facts["latency_ms"],
            "tokens": facts["input_tokens"] + facts["output_tokens"],
            "cost_usd": float(facts["cost_usd"]),
            "found_issues": facts["found_issues"],
            "severity": facts["severity"],
            "quality": facts["quality"],
            "simulated": facts["simulated"],
            "at": _utc(event.created_at),
            "tenant_id": event.tenant,
        }
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
