"""Move old tokens into the archive, and delete what was kept long enough: archives, cache entries, leads."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.heartbeats import heartbeats
from db.engine import transaction
from db.live.archive import SweepTotals, sweep
from db.runs import cache, in_flight
from schema.settings import Settings
from schema.temporal.upkeep import ArchivePass

CACHE_KEPT: Final = timedelta(days=31)
"""Longest life of a cache entry, whatever `ttl` a step names."""
LEADS_KEPT: Final = timedelta(days=1)
BATCH: Final = 1_000


class ArchiveActivity:
    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    @activity.defn(name="archive_tokens")
    async def archive_tokens(self) -> ArchivePass:
        """Doing it again goes on where it was broken off."""
        now, keep = datetime.now(UTC), self._settings.tokens_keep_days
        old = now - timedelta(days=self._settings.tokens_archive_after_days)
        done = SweepTotals()
        async with heartbeats():
            async for so_far in sweep(self._engine, old, now - timedelta(days=keep) if keep else None):
                done = so_far
                if activity.is_worker_shutdown():
                    break
            cached = await self._forget_unused(now)
        return ArchivePass(done.executions, done.tokens, done.forgotten, cached)

    async def _forget_unused(self, now: datetime) -> int:
        """Delete cache entries and abandoned leads in batches; return how many."""
        async with transaction(self._engine) as connection:
            deleted = await in_flight.forget(connection, now - LEADS_KEPT)
        last = BATCH
        while last == BATCH and not activity.is_worker_shutdown():
            async with transaction(self._engine) as connection:
                last = await cache.forget(connection, now - CACHE_KEPT, BATCH)
            deleted += last
        return deleted
