"""The look at every tenant's checkpoints: onwards, back, or wait; and at models that suddenly fail."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.heartbeats import heartbeats
from db.engine import transaction
from db.router import checkpoints, outcomes, quarantines
from db.router.checkpoints import BY_ITSELF, CheckpointSummary
from db.router.outcomes import OutcomeRow
from router.checkpoints import storage
from router.data import dataset, features
from router.edges import adaptive
from router.edges.forecast import Foresight
from router.rollout import evidence, stages
from router.rollout.evidence import FailingModel
from router.rollout.stages import MIN_OUTCOMES, Evidence, Rollout, State
from router.statistics import interval_drift
from router.statistics.interval_drift import OutcomeErrors
from schema.temporal.learning import RolloutsPass

WINDOW: Final = timedelta(days=30)
MAX_ROWS: Final = 5_000
"""The newest outcomes that a look goes by: enough for a verdict, and read every minute."""
MAX_FOLLOWED: Final = 500
"""Outcomes at one look: their texts are read, which takes some milliseconds each."""
STALE: Final = timedelta(days=14)
"""Since the newest outcome that the checkpoint which serves has learned from."""


class RolloutsActivity:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._foresight = Foresight()

    @activity.defn(name="look_at_rollouts")
    async def look_at_rollouts(self) -> RolloutsPass:
        """Looking once more changes nothing; outcomes that came late count when they are there."""
        looked = 0
        after = ""
        async with heartbeats():
            async with transaction(self._engine) as connection:
                edges = await adaptive.review(connection, self._foresight)
            told = [f"{key.definition}: {key.source} → {key.target} {state}" for key, state in edges]
            while True:
                async with transaction(self._engine) as connection:
                    names = await checkpoints.tenants(connection, after=after)
                if not names:
                    return RolloutsPass(looked, told[:100])
                for tenant in names:
                    for simulated in (False, True):
                        told += [f"{tenant}: {one}" for one in await self._look(tenant, simulated)]
                    looked += 1
                after = names[-1]

    async def _look(self, tenant: str, simulated: bool) -> list[str]:
        """Look at the checkpoints of real runs, or of simulated ones; nothing where there are none."""
        now = datetime.now(UTC)
        async with transaction(self._engine) as connection:
            if not await checkpoints.serving(connection, tenant, simulated=simulated):
                return []
            rows = await outcomes.newest(connection, tenant, now - WINDOW, MAX_ROWS, simulated=simulated)
            known = await quarantines.every(connection, tenant, simulated=simulated)
        rows, _ = await asyncio.to_thread(dataset.validate, rows, now)
        rested = {one.model: one.until for one in known}
        broken = await asyncio.to_thread(evidence.broken_models, rows, now, rested)
        told = await self._rest(tenant, broken, simulated)
        async with transaction(self._engine) as connection:
            out = await quarantines.of_tenant(connection, tenant, simulated=simulated)
            found = [
                await checkpoints.find(connection, tenant, one.number)
                for one in await checkpoints.serving(connection, tenant, simulated=simulated)
            ]
        for one in found:
            told.append(await self._judge(one, rows, out, now))
            await self._follow(one, rows)
        return told

    async def _follow(self, found: CheckpointSummary, rows: list[OutcomeRow]) -> None:
        """Move a checkpoint's intervals with what came since the last look."""
        async with transaction(self._engine) as connection:
            before = await checkpoints.followed(connection, found.id)
            since = datetime.fromisoformat(before["until"]) if before else found.trained_until
            new = [row for row in rows if row.at > since][:MAX_FOLLOWED]
            if not new:
                return
            content = await checkpoints.content(connection, found.id)

        def work() -> OutcomeErrors:
            learned = storage.unpack(content, found.sha256)
            table = features.rows([dataset.text_of(row) for row in new])
            return interval_drift.follow(learned, before, new, table)

        moved = await asyncio.to_thread(work)
        async with transaction(self._engine) as connection:
            until = new[-1].at.isoformat()
            await checkpoints.note_followed(connection, found.id, until, moved.as_json())

    async def _rest(self, tenant: str, broken: list[FailingModel], simulated: bool) -> list[str]:
        """Quarantine those that do not rest already."""
        told = []
        for one in broken:
            async with transaction(self._engine) as connection:
                resting = await quarantines.of_tenant(connection, tenant, simulated=simulated)
                if one.model not in resting:
                    added = await quarantines.add(
                        connection, tenant, one.model, one.reason, simulated=simulated
                    )
                    told.append(f"{one.model} rests until {added.until:%Y-%m-%d %H:%M}: {one.reason}")
        return told

    async def _judge(
        self, found: CheckpointSummary, rows: list[OutcomeRow], out: list[str], now: datetime
    ) -> str:
        assert found.number is not None and found.state_since is not None
        state = _state(found)
        seen = await asyncio.to_thread(
            evidence.of_checkpoint, found.number, state, found.state_since, rows, out
        )
        age = now - found.trained_until
        stale = f"; what it learned is {age.days} days old" if state == "all" and age > STALE else ""
        said = f"checkpoint {found.number}{' of simulated runs' if found.simulated else ''} in {state}"
        if seen is None:
            return f"{said} waits for outcomes{stale}"
        next = stages.advance(Rollout(state), seen)
        async with transaction(self._engine) as connection:
            if not await _as_it_was(connection, found):
                return f"{said} was moved by somebody else"
            if next.state != state:
                await checkpoints.move(
                    connection, found.tenant, found.number, next.state, next.reason, BY_ITSELF
                )
                return f"{said} -> {next.state}: {next.reason}"
            await checkpoints.note_outcomes(connection, found.id, seen.outcomes)
        return f"{said}, {_waiting(state, seen)}{stale}"


async def _as_it_was(connection: AsyncConnection, found: CheckpointSummary) -> bool:
    """Tell whether the checkpoint is still in the state that was judged, and lock it."""
    await checkpoints.take_turn(connection, found.tenant)
    assert found.number is not None
    now = await checkpoints.find(connection, found.tenant, found.number)
    return (now.state, now.state_since) == (found.state, found.state_since)


def _state(found: CheckpointSummary) -> State:
    match found.state:
        case "shadow" | "share" | "all":
            return found.state
        case _:
            raise AssertionError(f"a checkpoint in the state {found.state} is not looked at")


def _waiting(state: State, seen: Evidence) -> str:
    gain = f"gain {seen.gain.mean:+.3f} ({seen.gain.low:+.3f} to {seen.gain.high:+.3f})"
    if state == "all":
        return f"{seen.outcomes} outcomes, {gain} on rules"
    waits = f"; waits while {', '.join(seen.quarantined)} rests" if seen.quarantined else ""
    return f"{min(seen.outcomes, MIN_OUTCOMES)} of {MIN_OUTCOMES} outcomes, {gain}{waits}"
