"""Signs of life from long activities: how Temporal notices a dead worker, and how a cancel arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from temporalio import activity

HEARTBEAT_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 2.0
"""Between two beats where many beat: Temporal writes each down, and 200 a second take a third of a processor
from what they keep alive. They must stay two within the timeout."""
MANY_BEATS: Final = 50

_beating: set[asyncio.Task[None]] = set()


@contextlib.asynccontextmanager
async def heartbeats() -> AsyncIterator[None]:
    """Beat while the block runs, also when nothing in it moves."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS if len(_beating) < MANY_BEATS else BUSY_SECONDS)

    task = asyncio.create_task(beat())
    _beating.add(task)
    try:
        yield
    finally:
        _beating.discard(task)
        task.cancel()
