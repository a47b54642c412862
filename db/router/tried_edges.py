"""Adaptive edges that many runs have met, and the agents at their ends: what others are foreseen from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.router.edges import EdgeKey
from schema.tables.router import edges


@dataclass(frozen=True, slots=True)
class TriedEdge:
    """An edge that many runs have met."""

    key: EdgeKey
    runs: int
    effect: float | None


async def tried(
    connection: AsyncConnection, tenant: str, runs: int, limit: int, *, simulated: bool
) -> list[TriedEdge]:
    """A tenant's edges with at least that many judged runs of the kind, those with the most."""
    c = edges.c
    rows = await connection.execute(
        select(c.definition, c.source, c.target, c.runs, c.effect)
        .where(c.tenant_id == tenant, c.simulated == simulated, c.runs >= runs)
        .order_by(c.runs.desc(), c.definition, c.source, c.target)
        .limit(limit)
    )
    return [TriedEdge(EdgeKey(tenant, *row[:3], simulated), row.runs, row.effect) for row in rows]


# Per edge, as the index has them: a definition's trials can be many.
_SOURCES: Final = text("""
WITH met AS (
    SELECT edges.definition, trial.collaboration_id, trial.at FROM edges CROSS JOIN LATERAL (
        SELECT collaboration_id, at FROM edge_trials WHERE edge_trials.tenant_id = edges.tenant_id
        AND edge_trials.definition = edges.definition AND edge_trials.source = edges.source
        AND edge_trials.target = edges.target ORDER BY at DESC LIMIT 1
    ) AS trial WHERE edges.tenant_id = :tenant AND edges.definition = ANY(:definitions)
)
SELECT DISTINCT ON (met.definition) met.definition, workflows.source FROM met
JOIN collaborations AS run ON run.id = met.collaboration_id JOIN workflows ON workflows.id = run.workflow_id
ORDER BY met.definition, met.at DESC
""")


async def sources(connection: AsyncConnection, tenant: str, definitions: Sequence[str]) -> dict[str, str]:
    """Definition → its JSON text, in the version of the newest run that has met an adaptive edge of it."""
    values = {"tenant": tenant, "definitions": list(definitions)}
    return {row.definition: row.source for row in await connection.execute(_SOURCES, values)}
