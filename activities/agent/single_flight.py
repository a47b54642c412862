"""Single flight: of equal steps at the same moment one asks the model, and the others take its output."""

import asyncio
import contextlib
import logging
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.runs import cache, in_flight
from db.runs.executions import AttemptOutcome

FIRST_LOOK_SECONDS: Final = 0.02
MAX_LOOK_SECONDS: Final = 0.1
"""One query for all who wait in the process, however many; who waits holds no connection."""

_log = logging.getLogger(__name__)


class Flights:
    """One per process."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Most often there is an answer, and then one round trip is all.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pause = FIRST_LOOK_SECONDS

    async def take(
        self, tenant: str, key: str, ttl_seconds: float, execution: UUID, until: float, lead_seconds: float
    ) -> AttemptOutcome | None:
        """The output of an equal execution of the tenant: one that is kept, or is being made anywhere.

        None: the caller is to make it. It leads the others for `lead_seconds` at most, and ends with
        `flights.land` or `flights.release`; once its execution runs no more another one takes over anyhow.
        After the loop's time `until` nobody waits any longer.
        """
        if ttl_seconds <= 0:
            return None
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            # What was made while one waited is never too old.
            age = max(ttl_seconds, loop.time() - began + 1)
            async with self._reading.connect() as connection:
                if kept := await cache.find(connection, tenant, key, age):
                    return kept
            async with transaction(self._engine) as connection:
                leads = await in_flight.lead(connection, tenant, key, execution, lead_seconds)
                # It may have landed in between, and then there is nothing more to make.
                if leads and (kept := await cache.find(connection, tenant, key, age)):
                    await in_flight.release(connection, tenant, key, execution)
                    return kept
            if leads or not await self._landed(tenant, key, until):
                return None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _landed(self, tenant: str, key: str, until: float) -> bool:
        """Wait until the answer is no longer under way; return False once `until` has passed."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault((tenant, key), set())
        waiting.add(event)
        self._pause = FIRST_LOOK_SECONDS
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout_at(until):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get((tenant, key)) is waiting:
                del self._waiting[tenant, key]
        return True

    async def _watch(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause)
            self._pause = min(1.5 * self._pause, MAX_LOOK_SECONDS)
            asked = list(self._waiting)
            try:
                async with transaction(self._engine) as connection:
                    still = await in_flight.under_way(connection, asked)
            except (SQLAlchemyError, OSError) as error:
                _log.warning(
                    "Polling for shared answers failed, Postgres unavailable",
                    extra={"error": type(error).__name__},
                )
                self._pause = 1.0
                continue
            for one in asked:
                if one not in still:
                    for event in self._waiting.get(one, ()):
                        event.set()
