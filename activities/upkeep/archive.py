"""Old tokens into the archive, and archives that were kept long enough out of it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.heartbeats import heartbeats
from db.live.archive import SweepTotals, sweep
from schema.settings import Settings
from schema.temporal.upkeep import ArchivePass


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
        return ArchivePass(done.executions, done.tokens, done.forgotten)
