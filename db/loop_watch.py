"""Watch how long an event loop is held: while it is, every other run, stream and heartbeat waits."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

LIMIT_SECONDS: Final = 0.1
"""A longer hold is worth a warning."""
NOTED_SECONDS: Final = 0.05
"""A longer hold is noted where none was as long before."""
_TICK_SECONDS: Final = 0.01

_log = logging.getLogger(__name__)


class LoopWatch:
    """Measures how long this process's event loop is held: a tick is due every 10 ms, and its delay is the
    hold."""

    def __init__(self, process: str) -> None:
        self._process = process
        self.longest_seconds = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch the running loop."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    async def _tick(self) -> None:
        while True:
            began, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_TICK_SECONDS)
            held = time.perf_counter() - began - _TICK_SECONDS
            if held > NOTED_SECONDS:
                self._note(held, time.thread_time() - used)

    def _note(self, held: float, used: float) -> None:
        fields = {
            "process_name": self._process,
            "held_ms": round(held * 1e3, 1),
            "processor_ms": round(used * 1e3, 1),
        }
        if held > LIMIT_SECONDS:
            _log.warning("Event loop held too long", extra=fields)
        elif held > self.longest_seconds:
            _log.info("Event loop held longer than before", extra=fields)
        self.longest_seconds = max(self.longest_seconds, held)

    def exposition(self) -> str:
        """Return the longest hold as Prometheus reads it."""
        name = "facilitair_loop_hold_seconds_max"
        return (
            f"# HELP {name} The longest time that the event loop of this process was held since it began.\n"
            f"# TYPE {name} gauge\n"
            f'{name}{{process="{self._process}"}} {self.longest_seconds:.4f}\n'
        )
