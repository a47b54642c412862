"""The look at every running trial; a decided one ends with it."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from db.engine import transaction
from db.prompts import trials
from schema.temporal.upkeep import TrialsPass


class TrialsActivity:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="look_at_trials")
    async def look_at_trials(self) -> TrialsPass:
        """Looking once more changes nothing."""
        looked, ended = 0, []
        after: UUID | None = None
        while True:
            async with transaction(self._engine) as connection:
                page = await trials.running(connection, after=after)
            for trial in page:
                # One by one: a trial whose prompt somebody changes just now holds up no other.
                async with transaction(self._engine) as connection:
                    now, _ = await trials.look(connection, trial)
                looked += 1
                if now.status != "running":
                    ended.append(f"{now.name}: {now.status}")
            if not page:
                return TrialsPass(looked, ended[:100])
            after = page[-1].id
