"""Uniqueness of `key` on every kind of node: without it MERGE makes doubles under concurrency."""

from typing import Final

from graph.client import GraphDrivers, answering

CONSTRAINTS: Final = (
    "CREATE CONSTRAINT task_key IF NOT EXISTS FOR (n:Task) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT agent_key IF NOT EXISTS FOR (n:Agent) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT definition_key IF NOT EXISTS FOR (n:Definition) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT projection_key IF NOT EXISTS FOR (n:Projection) REQUIRE n.key IS UNIQUE",
)


async def ensure(graph: GraphDrivers) -> None:
    """Create what is missing; doing it again changes nothing."""
    with answering():
        async with graph.session() as session:
            for constraint in CONSTRAINTS:
                await (await session.run(constraint)).consume()
