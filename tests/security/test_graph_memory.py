"""A query that collects without end is given up within its own bound, and the server's memory stays."""

import neo4j
import pytest

from infra.local import Supervisor

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
