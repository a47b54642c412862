"""Ask the collaboration graph."""

import re
from typing import Final

from fastapi import APIRouter, Request

from api.http.bodies import body_of, read_json
from api.http.problems import BadRequest, errors
from api.http.shared_models import GraphAnswer, GraphQuery, StoredQuery
from api.state import Simulated, StateOf
from graph import queries

router = APIRouter(prefix="/graph", tags=["graph"])

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*\Z")


@router.get("/queries", responses=errors())
async def stored() -> list[StoredQuery]:
    """The questions that can be asked by name."""
    return [StoredQuery(name=_shown(name), cypher=queries.cypher(name)) for name in queries.names()]


@router.post("/query", openapi_extra=body_of(GraphQuery), responses=errors(404, 413, 415))
async def query(request: Request, state: StateOf, simulated: Simulated) -> GraphAnswer:
    """Run a reading Cypher query, or a stored one by its name. It sees the graph of all tenants. Stored ones
    ask about real runs or about simulated ones: `$simulated`, which any query may use."""
    asked = await read_json(request, state, GraphQuery)
    # One lower-case word is no Cypher: it can only be a name.
    is_name = _NAME.match(asked.cypher) is not None
    cypher = queries.of_kind(asked.cypher.replace("-", "_")) if is_name else asked.cypher
    parameters = {"simulated": simulated} | asked.parameters
    graph = await state.projections.graph()
    from graph.ask import ask

    try:
        answer = await ask(graph, cypher, parameters)
    except OverflowError:
        raise BadRequest(
            "request_invalid", "found a parameter beyond 64 bits; expected an integer that Neo4j can hold."
        ) from None
    return GraphAnswer(
        columns=answer.columns,
        rows=answer.rows,
        truncated=answer.truncated,
        simulated=bool(parameters["simulated"]) if "$simulated" in cypher else None,
    )


def _shown(name: str) -> str:
    return name.replace("_", "-")
