"""Waiting for news of a run, for all steps of a process together."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from db.wakeups import listen

LOOK_SECONDS: Final = 0.5
"""A wake-up may be lost: so often one looks without it."""
PACE_SECONDS: Final = 0.02
"""Tokens come by the hundred a second, and every look is a query."""


class News:
    """Wakes who waits for a run, by one connection. Listens from the first who waits on."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def of(self, run: str) -> Iterator[asyncio.Event]:
        """Set whenever something happened in the run; who waits clears it before each look."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        key, event = run.replace("-", ""), asyncio.Event()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(key, None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        async for _, runs in listen(self._url):
            # Without a name anything may have been missed.
            for key in runs or list(self._waiting):
                for event in self._waiting.get(key, ()):
                    event.set()


async def wait(event: asyncio.Event) -> None:
    """Until something happened, or it is time to look anyhow."""
    await asyncio.sleep(PACE_SECONDS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            await event.wait()
