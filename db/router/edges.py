"""Adaptive stream edges: whether a run uses one, what came of it, and whether it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import case, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.errors import NotFound
from schema.tables.router import edge_trials, edges

State = Literal["kept", "pruned", "pinned"]

BY_ITSELF: Final = "evidence"
NETWORK: Final = "network"
"""Actor of a forecast effect."""
WINDOW: Final = 2_000
"""Trials that an edge is judged by, the newest: what was true of older ones may have changed."""


@dataclass(frozen=True, slots=True)
class EdgeKey:
    """An adaptive edge of a definition, whichever its version."""

    tenant: str
    definition: str
    source: str
    target: str
    simulated: bool
    """Whether the edge belongs to simulated runs, which say nothing of real ones."""


@dataclass(frozen=True, slots=True)
class EdgeState:
    """Inputs to an edge's chance."""

    state: State = "kept"
    set_by: str | None = None
    high: float | None = None

    @property
    def foreseen(self) -> float | None:
        """Return the network's upper forecast of the effect; None without one."""
        return self.high if self.set_by == NETWORK else None


@dataclass(frozen=True, slots=True)
class EdgeDraw:
    """The draw that decides whether a step's output is delivered to another in a run."""

    path: str
    """Path of the step that would be told."""
    source: str
    target: str
    delivered: bool
    chance: float
    """Chance of delivery; strictly between 0 and 1."""


@dataclass(frozen=True, slots=True)
class EdgeTrial:
    """A decision of a run that has ended and was judged."""

    run: UUID
    delivered: bool
    chance: float
    quality: float
    """Quality from 0 to 1."""


@dataclass(frozen=True, slots=True)
class AdaptiveEdge:
    """State of an edge, and the evidence for it."""

    source: str
    target: str
    state: State
    effect: float | None
    """Quality with it less quality without; `low` to `high` is the 90 % interval. None: not yet known."""
    low: float | None
    high: float | None
    runs: int
    set_by: str | None
    """A person, or the network, which foresees what too few runs have tried; None: the evidence."""
    since: datetime


async def states(
    connection: AsyncConnection, tenant: str, definition: str, *, simulated: bool
) -> dict[tuple[str, str], EdgeState]:
    """(source, target) → where the edge stands in such runs; those that no run has met are not there."""
    rows = await connection.execute(
        select(edges.c.source, edges.c.target, edges.c.state, edges.c.set_by, edges.c.high).where(
            edges.c.tenant_id == tenant, edges.c.definition == definition, edges.c.simulated == simulated
        )
    )
    return {(row.source, row.target): EdgeState(row.state, row.set_by, row.high) for row in rows}


async def meet(connection: AsyncConnection, keys: Sequence[EdgeKey]) -> None:
    """Note edges that no run had met: in real runs and in simulated ones, as people's wishes hold in both."""
    await connection.execute(
        upsert(edges).on_conflict_do_nothing(),
        [
            {
                "tenant_id": key.tenant,
                "definition": key.definition,
                "source": key.source,
                "target": key.target,
                "simulated": simulated,
            }
            for key in keys
            for simulated in (False, True)
        ],
    )


async def decided(
    connection: AsyncConnection, run: UUID, paths: Sequence[str]
) -> dict[tuple[str, str], bool]:
    """(path, source) → whether it is delivered, for the steps at those paths."""
    rows = await connection.execute(
        select(edge_trials.c.path, edge_trials.c.source, edge_trials.c.delivered).where(
            edge_trials.c.collaboration_id == run, edge_trials.c.path.in_(paths)
        )
    )
    return {(row.path, row.source): row.delivered for row in rows}


async def decide(
    connection: AsyncConnection, run: UUID, tenant: str, definition: str, made: Sequence[EdgeDraw]
) -> dict[tuple[str, str], bool]:
    """Keep the first decision of each; (path, source) → the one that is kept."""
    await connection.execute(
        upsert(edge_trials).on_conflict_do_nothing(),
        [
            {
                "collaboration_id": run,
                "path": one.path,
                "source": one.source,
                "tenant_id": tenant,
                "definition": definition,
                "target": one.target,
                "delivered": one.delivered,
                "chance": one.chance,
            }
            for one in made
        ],
    )
    return await decided(connection, run, [one.path for one in made])


_OF_EDGE: Final = "tenant_id = :tenant AND definition = :definition AND source = :source AND target = :target"
# What people say of the reader's answer goes before what the run says of itself. Forks are left out: a person
# chose them by how the first run went.
_EVIDENCE: Final = text(f"""
WITH newest AS (
    SELECT collaboration_id, path, delivered, chance FROM edge_trials
    WHERE {_OF_EDGE} ORDER BY at DESC LIMIT :limit
), judged AS (
    SELECT run.id, newest.path, newest.delivered, newest.chance, coalesce(
        told.ok, CASE WHEN run.status = 'failed' THEN 0 END, run.quality_score, reader.quality_score
    ) AS quality
    FROM newest JOIN collaborations AS run ON run.id = newest.collaboration_id
    LEFT JOIN agent_executions AS reader ON reader.collaboration_id = run.id AND reader.path = newest.path
        AND reader.status = 'completed'
    LEFT JOIN outcomes AS told ON told.execution_id = reader.id
    WHERE run.status IN ('completed', 'failed') AND run.sub_state <> 'cancelled' AND run.forked_from IS NULL
        AND run.simulated = :simulated
)
SELECT id, delivered, chance, quality FROM judged WHERE quality IS NOT NULL ORDER BY id, path
""")


async def evidence(connection: AsyncConnection, key: EdgeKey, limit: int = WINDOW) -> list[EdgeTrial]:
    """The newest trials of runs that have ended and were judged."""
    rows = await connection.execute(_EVIDENCE, {**_values(key), "limit": limit})
    return [EdgeTrial(*row) for row in rows]


_RECENT: Final = text("""
SELECT tenant_id, definition, source, target, simulated, state, set_by, high FROM edges
WHERE state <> 'pinned' AND EXISTS (
    SELECT 1 FROM edge_trials AS trial JOIN collaborations AS run ON run.id = trial.collaboration_id
    WHERE run.simulated = edges.simulated AND trial.tenant_id = edges.tenant_id
    AND trial.definition = edges.definition AND trial.source = edges.source AND trial.target = edges.target
    AND trial.at > now() - interval '1 day'
)
ORDER BY tenant_id, definition, source, target, simulated
""")


async def recent(connection: AsyncConnection) -> list[tuple[EdgeKey, EdgeState]]:
    """Edges of all tenants that runs have met in the last day, and where they stand; without pinned ones."""
    return [(EdgeKey(*row[:5]), EdgeState(*row[5:])) for row in await connection.execute(_RECENT)]


async def of_definition(
    connection: AsyncConnection, tenant: str, definition: str, *, simulated: bool
) -> list[AdaptiveEdge]:
    """The adaptive edges that runs of a definition have met, as real or as simulated runs tell of them."""
    c = edges.c
    rows = await connection.execute(
        select(c.source, c.target, c.state, c.effect, c.low, c.high, c.runs, c.set_by, c.since)
        .where(c.tenant_id == tenant, c.definition == definition, c.simulated == simulated)
        .order_by(c.source, c.target)
    )
    return [AdaptiveEdge(*row) for row in rows]


async def judge(
    connection: AsyncConnection,
    key: EdgeKey,
    state: State,
    effect: float,
    low: float,
    high: float,
    runs: int,
    set_by: str | None = None,
) -> bool:
    """Keep what the evidence says, or the network where it has `set_by`; whether that changed the state.

    A pin stays, and so does what a person has set where only the network says otherwise.
    """
    before = await _lock(connection, key)
    if before is None or before.state == "pinned":
        return False
    by_itself = before.set_by in (None, NETWORK)
    if set_by == NETWORK and not by_itself:
        return False
    changed = state != before.state
    values: dict[str, Any] = {"effect": effect, "low": low, "high": high, "runs": runs}
    await _set(connection, key, state, values | ({"set_by": set_by} if changed or by_itself else {}))
    if changed:
        await _note(
            connection, key, BY_ITSELF, state, before.state, effect=effect, low=low, high=high, runs=runs
        )
    return changed


async def set_state(connection: AsyncConnection, key: EdgeKey, state: State, actor: str) -> None:
    """As a person wants it, in real runs and in simulated ones: `pinned` stays, `kept` and `pruned` until the
    evidence says otherwise.

    Raises NotFound where no run has met such an edge.
    """
    before = await _lock(connection, key)
    if before is None:
        raise NotFound(
            "edge_unknown",
            f"found no adaptive edge from {key.source!r} to {key.target!r} that a run of {key.definition!r} "
            "has met; expected one with adaptive: true. Correct the names, or run it once.",
        )
    for simulated in (False, True):
        await _set(connection, replace(key, simulated=simulated), state, {"set_by": actor})
    await _note(connection, key, actor, state, before.state)


async def _lock(connection: AsyncConnection, key: EdgeKey) -> EdgeState | None:
    columns = select(edges.c.state, edges.c.set_by, edges.c.high)
    row = (await connection.execute(columns.where(*_is(key)).with_for_update())).one_or_none()
    return EdgeState(*row) if row else None


async def _set(connection: AsyncConnection, key: EdgeKey, state: State, values: dict[str, Any]) -> None:
    since = case((edges.c.state == state, edges.c.since), else_=text("clock_timestamp()"))
    await connection.execute(edges.update().where(*_is(key)).values(state=state, since=since, **values))


async def _note(
    connection: AsyncConnection, key: EdgeKey, actor: str, state: State, before: State, **detail: Any
) -> None:
    subject = f"{key.definition}: {key.source} → {key.target}"
    await audit.append(
        connection,
        key.tenant,
        actor,
        f"edge.{state}",
        subject,
        before=before,
        simulated=key.simulated,
        **detail,
    )


def _is(key: EdgeKey) -> tuple[Any, ...]:
    c = edges.c
    return (
        c.tenant_id == key.tenant,
        c.definition == key.definition,
        c.source == key.source,
        c.target == key.target,
        c.simulated == key.simulated,
    )


def _values(key: EdgeKey) -> dict[str, Any]:
    return {
        "tenant": key.tenant,
        "definition": key.definition,
        "source": key.source,
        "target": key.target,
        "simulated": key.simulated,
    }
