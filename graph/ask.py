"""A person's own Cypher, read only.

This is the operator's door: Cypher cannot be confined to a tenant, so a caller sees the graph of
all tenants. The platform has the one tenant `default` so far.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graph.client import GraphDrivers, answering
from schema.errors import Refused, Unavailable

TIMEOUT_SECONDS: Final = 10.0
MAX_ROWS: Final = 1_000
MAX_CHARS: Final = 4 * 1024 * 1024
MAX_VALUES: Final = 50_000
"""Bound on the values of all rows together."""

PROCEDURES: Final = frozenset(
    {
        "db.labels",
        "db.relationshiptypes",
        "db.propertykeys",
        "db.schema.visualization",
        "db.schema.nodetypeproperties",
        "db.schema.reltypeproperties",
    }
)
_SHOWS: Final = frozenset({"ShowIndexes", "ShowConstraints", "ShowFunctions"})

# What may hold any text without meaning it, and the quoted names that may hold a quote. Left to right, as
# the server reads.
_QUOTED: Final = re.compile(
    r"""/\*.*?\*/ | //[^\r\n]* | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | (?P<name>`[^`]*`)""",
    re.DOTALL | re.VERBOSE,
)
_LOAD_CSV: Final = re.compile(r"\bload\s+csv\b", re.IGNORECASE)
_CALL: Final = re.compile(r"\bcall\b\s*(?=[^\s({])((?:`[^`]*`|[\w\s.])+)", re.IGNORECASE)


@dataclass(frozen=True)
class QueryResult:
    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    """There was more than MAX_ROWS."""


async def ask(graph: GraphDrivers, cypher: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
    """The rows of a read-only query as JSON. Raises Refused for any other query, Unavailable for no Neo4j."""
    from neo4j.exceptions import ClientError, Neo4jError

    check_text(cypher)
    loop = asyncio.get_running_loop()
    try:
        with answering():
            async with asyncio.timeout(TIMEOUT_SECONDS + 2):
                return await loop.run_in_executor(graph.readers, _ask, graph, cypher, parameters)
    except TimeoutError:
        raise Unavailable("graph_unavailable", "Neo4j did not answer in time.") from None
    except ClientError as error:
        raise _refusal(error) from error
    except Neo4jError as error:
        # Out of memory for this query, and the like: the server stays, the query must become smaller.
        raise Refused("cypher_failed", f"Neo4j gave the query up: {error.message}") from error


def _ask(graph: GraphDrivers, cypher: str, parameters: Mapping[str, Any] | None) -> QueryResult:
    with graph.reading_session() as session:
        _check_plan(session, cypher, parameters)
        return _read(session, cypher, parameters)


def check_text(cypher: str) -> None:
    """Refuse what a plan can hide: a subquery inside an expression may read files, addresses or settings.

    The plan names these only where they stand on their own (5.26), so the text is read too.
    """
    if "\\u" in cypher:
        # The server decodes \uXXXX before it reads: words and quotes could be spelled with it.
        raise Refused("cypher_invalid", "found \\u in the query; write the character itself.")
    text = _QUOTED.sub(lambda found: found["name"] or " ", cypher)
    if _LOAD_CSV.search(text):
        raise Refused("cypher_not_read_only", "found LOAD CSV; expected a query that reads the graph alone.")
    for name in (match[1] for match in _CALL.finditer(text)):
        _check_procedure(name)


def _check_procedure(written: str) -> None:
    # What follows the name (YIELD, an argument list) begins after a space that no dot precedes.
    name = re.sub(r"\s*\.\s*", ".", written.replace("`", "").strip()).split()[0].lower()
    if name not in PROCEDURES:
        raise Refused(
            "cypher_not_read_only",
            f"found a call of {name}; expected one of {', '.join(sorted(PROCEDURES))}, or none.",
        )


def _check_plan(session: Any, cypher: str, parameters: Mapping[str, Any] | None) -> None:
    from neo4j import Query

    query = Query(f"EXPLAIN {cypher}", timeout=TIMEOUT_SECONDS)
    summary = session.run(query, parameters).consume()
    if summary.query_type != "r":
        raise Refused(
            "cypher_not_read_only", "found a query that writes or administers; expected one that reads."
        )
    for operator, details in _operators(summary.plan or {}):
        if operator == "ProcedureCall":
            _check_procedure(details.split("(")[0])
        if operator == "LoadCSV" or operator.startswith("Terminate"):
            raise Refused(
                "cypher_not_read_only", f"found {operator}; expected a query that reads the graph alone."
            )
        if operator.startswith("Show") and operator not in _SHOWS:
            raise Refused(
                "cypher_not_read_only", f"found {operator}; expected one of {', '.join(sorted(_SHOWS))}."
            )


def _operators(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    waiting = [plan]
    while waiting:
        part = waiting.pop()
        yield part.get("operatorType", "").split("@")[0], str(part.get("args", {}).get("Details", ""))
        waiting.extend(part.get("children", ()))


def _read(session: Any, cypher: str, parameters: Mapping[str, Any] | None) -> QueryResult:
    from neo4j import Query

    result = session.run(Query(cypher, timeout=TIMEOUT_SECONDS), parameters)
    columns, room = list(result.keys()), _Room()
    rows: list[list[Any]] = []
    for record in result:
        if len(rows) == MAX_ROWS:
            return QueryResult(columns, rows, truncated=True)
        rows.append([as_json(value, room) for value in record.values()])
    return QueryResult(columns, rows, truncated=False)


class _Room:
    """The room that is left in an answer."""

    def __init__(self) -> None:
        self._chars, self._values = MAX_CHARS, MAX_VALUES

    def take(self, chars: int) -> None:
        """Note one more value; raises Refused where the answer becomes too large."""
        self._chars, self._values = self._chars - chars, self._values - 1
        if self._chars < 0 or self._values < 0:
            raise Refused(
                "cypher_answer_too_large",
                f"found an answer of more than {MAX_CHARS:,} characters or {MAX_VALUES:,} values; expected "
                "less. Return fewer properties, or add a LIMIT.",
            )


def _refusal(error: Any) -> Refused:
    code = error.code or ""
    if "AccessMode" in code or "Forbidden" in code:
        return Refused("cypher_not_read_only", "found a query that writes; expected one that reads.")
    if "TransactionTimedOut" in code or "Terminated" in code:
        return Refused(
            "cypher_timeout",
            f"the query took longer than {TIMEOUT_SECONDS:.0f} s. Narrow its MATCH or add a LIMIT.",
        )
    return Refused("cypher_invalid", str(error.message))


def as_json(value: Any, room: _Room) -> Any:
    """Neo4j's values as JSON: nodes, relationships and paths as objects, times as ISO 8601 text."""
    from neo4j.graph import Node, Path, Relationship

    room.take(len(value) if isinstance(value, str) else 0)
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Node():
            return {"labels": sorted(value.labels), "properties": _object(value, room)}
        case Relationship():
            return {
                "type": value.type,
                "from": value.start_node.get("key") if value.start_node else None,
                "to": value.end_node.get("key") if value.end_node else None,
                "properties": _object(value, room),
            }
        case Path():
            return {
                "nodes": [as_json(node, room) for node in value.nodes],
                "relationships": [as_json(edge, room) for edge in value.relationships],
            }
        case list() | tuple():
            return [as_json(item, room) for item in value]
        case dict():
            return {str(key): as_json(item, room) for key, item in value.items()}
        case _:
            iso_format = getattr(value, "iso_format", None)
            return iso_format() if iso_format else str(value)


def _object(entity: Any, room: _Room) -> dict[str, Any]:
    return {key: as_json(item, room) for key, item in sorted(entity.items())}
