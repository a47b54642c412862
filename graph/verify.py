"""Check that the graph equals the fold of the log."""

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from db import outbox
from db.engine import transaction
from graph.client import GraphDrivers, answering
from graph.fold import EVENT_TYPES, GraphRows, Properties, Relationship, fold
from graph.projection import position

_NODES: Final = {
    "definitions": "MATCH (n:Definition) RETURN n.key AS key, properties(n) AS properties",
    "tasks": "MATCH (n:Task) RETURN n.key AS key, properties(n) AS properties",
    "agents": "MATCH (n:Agent) RETURN n.key AS key, properties(n) AS properties",
}
_RUN_OF: Final = "MATCH (t:Task)-[:RUN_OF]->(d:Definition) RETURN t.key AS task, d.key AS definition"
_FORKED_FROM: Final = "MATCH (t:Task)-[:FORKED_FROM]->(s:Task) RETURN t.key AS task, s.key AS source"
_EDGES: Final = """
MATCH (a:Agent)-[r]->(t:Task)
RETURN r.execution_id AS execution, type(r) AS type, a.key AS agent, t.key AS task,
       properties(r) AS properties
"""


async def actual(graph: GraphDrivers) -> GraphRows:
    """Everything that is in the graph. Doubles stand out: a second edge of an execution gets a key of its
    own, which no fold ever makes."""
    rows = GraphRows()
    with answering():
        async with graph.session(read_only=True) as session:
            for name, cypher in _NODES.items():
                nodes = getattr(rows, name)
                async for record in await session.run(cypher):
                    nodes[_free(nodes, record["key"])] = _plain(record["properties"], "key")
            async for record in await session.run(_RUN_OF):
                rows.run_of[_free(rows.run_of, record["task"])] = record["definition"]
            async for record in await session.run(_FORKED_FROM):
                rows.forked_from[_free(rows.forked_from, record["task"])] = record["source"]
            async for record in await session.run(_EDGES):
                rows.edges[_free(rows.edges, record["execution"])] = Relationship(
                    record["type"],
                    record["agent"],
                    record["task"],
                    _plain(record["properties"], "execution_id"),
                )
    return rows


async def check(engine: AsyncEngine, graph: GraphDrivers) -> list[str]:
    """Compare the graph with the fold of the log up to where the graph is; the differences."""
    place, found = await outbox.read_at_rest(partial(position, graph), partial(actual, graph))
    async with transaction(engine) as connection:
        events = await outbox.read_up_to(connection, place, list(EVENT_TYPES))
    return differences(fold(events), found)


def differences(expected: GraphRows, found: GraphRows) -> list[str]:
    """One line per node or relationship that is missing, extra or different; none when they are equal."""
    return [
        f"{name} {key}: expected {want.get(key)}, found {have.get(key)}"
        for name in ("definitions", "tasks", "agents", "run_of", "forked_from", "edges")
        for want, have in [(getattr(expected, name), getattr(found, name))]
        for key in sorted(want.keys() | have.keys(), key=str)
        if want.get(key) != have.get(key)
    ]


def _free(taken: dict[str, Any], key: str) -> str:
    while key in taken:
        key = f"{key} (again)"
    return key


def _plain(properties: dict[str, Any], without: str) -> Properties:
    return {name: _value(value) for name, value in properties.items() if name != without}


def _value(value: Any) -> Any:
    to_native = getattr(value, "to_native", None)
    if to_native is None:
        return value
    native = to_native()
    return native.astimezone(UTC) if isinstance(native, datetime) else native
