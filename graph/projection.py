"""The outbox as a graph: one write transaction per batch, with the place in the log inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from db.outbox import LoggedEvent, Position
from graph.client import GraphDrivers, answering
from graph.fold import GraphRows, fold
from schema.language.catalogue import RELATIONSHIPS

if TYPE_CHECKING:
    from neo4j import AsyncTransaction

PROJECTION: Final = "graph"

_POSITION: Final = "MATCH (p:Projection {key: $key}) RETURN p.xid AS xid, p.seq AS seq"

# SET takes the node's lock before RETURN reads: a projector that was thought dead waits here, finds that
# its place has moved on, and writes nothing.
_LOCK: Final = """
MERGE (p:Projection {key: $key})
ON CREATE SET p.xid = 0, p.seq = 0
SET p.at = datetime()
RETURN p.xid AS xid, p.seq AS seq
"""
_MOVE: Final = "MATCH (p:Projection {key: $key}) SET p.xid = $xid, p.seq = $seq"

_DEFINITIONS: Final = "UNWIND $rows AS row MERGE (n:Definition {key: row.key}) SET n += row.properties"
_TASKS: Final = "UNWIND $rows AS row MERGE (n:Task {key: row.key}) SET n += row.properties"
_AGENTS: Final = "UNWIND $rows AS row MERGE (n:Agent {key: row.key}) SET n += row.properties"
_RUN_OF: Final = """
UNWIND $rows AS row
MATCH (t:Task {key: row.task}), (d:Definition {key: row.definition})
MERGE (t)-[:RUN_OF]->(d)
"""
_FORKED_FROM: Final = """
UNWIND $rows AS row
MATCH (t:Task {key: row.task}), (s:Task {key: row.source})
MERGE (t)-[:FORKED_FROM]->(s)
"""
_EDGES: Final = {
    relationship: f"""
UNWIND $rows AS row
MATCH (a:Agent {{key: row.agent}}), (t:Task {{key: row.task}})
MERGE (a)-[r:{relationship} {{execution_id: row.execution}}]->(t)
SET r += row.properties
"""
    for relationship in RELATIONSHIPS
}


_FORGET: Final = "UNWIND $rows AS row MATCH (t:Task {key: row.key}) DETACH DELETE t"
_IDLE: Final = "UNWIND $rows AS row MATCH (a:Agent) WHERE NOT (a)--() DELETE a"


async def position(graph: GraphDrivers) -> Position:
    """Return the graph's position in the log; the beginning if it is empty, which is how it rebuilds
    itself."""
    with answering():
        async with graph.session(read_only=True) as session:
            record = await (await session.run(_POSITION, key=PROJECTION)).single()
    return Position(record["xid"], record["seq"]) if record else Position()


async def apply(graph: GraphDrivers, after: Position, events: Sequence[LoggedEvent]) -> bool:
    """Write `events`, the next ones behind `after`; False when the graph is no longer at `after`."""
    return await _apply(graph, after, fold(events), events[-1].position)


async def pass_over(graph: GraphDrivers, after: Position, end: Position) -> bool:
    """Leave out what lies between `after` and `end`; False when the graph is no longer at `after`."""
    return await _apply(graph, after, GraphRows(), end)


async def _apply(graph: GraphDrivers, after: Position, rows: GraphRows, end: Position) -> bool:
    with answering():
        # An explicit transaction: the driver's managed ones retry, and retrying is Temporal's.
        async with graph.session() as session, await session.begin_transaction() as transaction:
            written = await _write(transaction, after, rows, end)
            if written:
                await transaction.commit()
            return written


async def _write(transaction: AsyncTransaction, after: Position, rows: GraphRows, end: Position) -> bool:
    record = await (await transaction.run(_LOCK, key=PROJECTION)).single(strict=True)
    if Position(record["xid"], record["seq"]) != after:
        return False
    for cypher, parameters in statements(rows):
        await (await transaction.run(cypher, rows=parameters)).consume()
    await (await transaction.run(_MOVE, key=PROJECTION, xid=end.xid, seq=end.seq)).consume()
    return True


def statements(rows: GraphRows) -> list[tuple[str, list[dict[str, Any]]]]:
    """Forget first, then nodes, then relationships between them; agents left without one go last."""
    gone = [{"key": key} for key in sorted(rows.forgotten)]
    found: list[tuple[str, list[dict[str, Any]]]] = [
        (_FORGET, gone),
        (_DEFINITIONS, _nodes(rows.definitions)),
        (_TASKS, _nodes(rows.tasks)),
        (_AGENTS, _nodes(rows.agents)),
        (_RUN_OF, [{"task": task, "definition": key} for task, key in sorted(rows.run_of.items())]),
        (_FORKED_FROM, [{"task": task, "source": key} for task, key in sorted(rows.forked_from.items())]),
    ]
    for relationship, cypher in _EDGES.items():
        found.append(
            (
                cypher,
                [
                    {
                        "execution": execution,
                        "agent": edge.agent,
                        "task": edge.task,
                        "properties": edge.properties,
                    }
                    for execution, edge in sorted(rows.edges.items())
                    if edge.type == relationship
                ],
            )
        )
    found.append((_IDLE, gone[:1]))
    return [(cypher, parameters) for cypher, parameters in found if parameters]


def _nodes(nodes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "properties": properties} for key, properties in sorted(nodes.items())]
