"""Adaptive edges of all tenants, looked at from time to time."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from db.router import edges
from db.router.edges import NETWORK, EdgeKey, EdgeState, State
from router.edges import topology
from router.edges.forecast import Foresight
from router.edges.topology import Effect
from router.statistics.offpolicy import PolicyValue


async def review(
    connection: AsyncConnection, foresight: Foresight | None = None
) -> list[tuple[EdgeKey, State]]:
    """Judge the edges that runs have met lately; those whose state changed, with the new one.

    Each edge reads at most `WINDOW` trials: every few minutes is often enough. With `foresight`, those that
    too few runs have tried are told what it foresees.
    """
    recent = dict(await edges.recent(connection))
    found = {key: topology.effect(await edges.evidence(connection, key)) for key in recent}
    # Before anything is written: to learn may take seconds, in which nobody should wait for a lock.
    foreseen = await _foreseen(connection, foresight, recent, found) if foresight else {}
    changed: list[tuple[EdgeKey, State]] = []
    for key, standing in recent.items():
        after, runs = topology.decide(standing.state, found[key]), found[key].runs
        value = foreseen.get(key)
        by, value = (None, found[key].value) if value is None else (NETWORK, value)
        if await edges.judge(connection, key, after, value.mean, value.low, value.high, runs, by):
            changed.append((key, after))
    return changed


async def _foreseen(
    connection: AsyncConnection,
    foresight: Foresight,
    recent: Mapping[EdgeKey, EdgeState],
    found: Mapping[EdgeKey, Effect],
) -> dict[EdgeKey, PolicyValue]:
    foreseen: dict[EdgeKey, PolicyValue] = {}
    for tenant, simulated in dict.fromkeys((key.tenant, key.simulated) for key in recent):
        own = {key: one for key, one in found.items() if (key.tenant, key.simulated) == (tenant, simulated)}
        # Of what a person has set the network says nothing.
        new = [key for key, one in own.items() if not one.is_known and recent[key].set_by in (None, NETWORK)]
        foreseen |= await foresight.of(connection, tenant, own, new, simulated=simulated)
    return foreseen
