"""A person's Cypher takes no more memory than its bounds, in the server and in our process."""

import neo4j
import pytest

from graph.ask import MAX_CHARS, MAX_VALUES, ask
from graph.client import connect
from infra.local import Supervisor
from schema.errors import Refused
from schema.settings import Settings

COLLECTING = (
    "UNWIND range(1, 60000000) AS x WITH collect(toString(x) + ' of many') AS many RETURN size(many)",
    "UNWIND range(1, 60000000) AS x WITH x ORDER BY x % 1000 RETURN x SKIP 59999999",
)


@pytest.mark.parametrize("query", COLLECTING)
@pytest.mark.usefixtures("neo4j")
def test_a_query_that_collects_without_end_is_given_up(servers: Supervisor, query: str) -> None:
    given = servers.environment
    auth = (given["NEO4J_USER"], given["NEO4J_PASSWORD"])
    with neo4j.GraphDatabase.driver(given["NEO4J_URI"], auth=auth) as driver, driver.session() as session:
        with pytest.raises(neo4j.exceptions.Neo4jError) as given_up:
            session.run(query).consume()
        assert given_up.value.code == "Neo.TransientError.General.MemoryPoolOutOfMemoryError"
        assert "dbms.memory.transaction" in str(given_up.value) or "db.memory" in str(given_up.value)
        assert session.run("RETURN 1").single() is not None
    assert servers.state.services["neo4j"].restarts == 0


@pytest.mark.parametrize(
    "query",
    [
        f"UNWIND range(0, {MAX_CHARS // 10_000}) AS x "
        "RETURN reduce(s = '', i IN range(1, 1000) | s + '0123456789')",
        f"RETURN range(1, {MAX_VALUES})",
        f"RETURN [x IN range(1, {MAX_VALUES // 100}) | range(1, 100)]",
        "WITH '0123456789' AS a RETURN {"
        + ", ".join(f"k{number}: reduce(s = a, i IN range(1, 16) | s + s)" for number in range(8))
        + "}",
    ],
    ids=["many rows", "many values", "lists in lists", "few long values"],
)
@pytest.mark.usefixtures("neo4j")
async def test_an_answer_of_too_many_bytes_or_values_is_refused(settings: Settings, query: str) -> None:
    graph = connect(settings)
    try:
        with pytest.raises(Refused) as refused:
            await ask(graph, query)
        assert refused.value.code == "cypher_answer_too_large"
        assert (await ask(graph, "RETURN 1 AS one")).rows == [[1]]
    finally:
        await graph.close()
