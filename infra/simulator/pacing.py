"""Time the tokens of an answer, and the breaks that a script puts between them."""

import asyncio
import heapq
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.types import Receive

from infra.simulator.faults import FaultRule
from infra.simulator.skills import Traits

# What is due is sent at most this often, so thousands of streams do not mean a wake-up per token.
TICK_SECONDS: Final = 0.05
MAX_SILENCE_SECONDS: Final = 3600.0
BREAKS: Final = frozenset(("drop_mid_stream", "timeout", "stall", "malformed_sse"))


class Ticker:
    """One timer for all streams: wakes those that are due, the longest overdue first.

    Thousands of timers would run in one go; here the connections get their turn after every few streams.
    A stream that comes late sends all that is due by then, so under load packets grow and become fewer.
    """

    AT_ONCE: Final = 32

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    async def until(self, when: float) -> None:
        """Wait until a moment of the monotonic clock."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._number += 1
        heapq.heappush(self._waiting, (when, self._number, future))
        if not self._running and self._waiting[0][2] is future:
            self._arm(loop)
        await future

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(max(0.0, self._waiting[0][0] - time.monotonic()), self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now, woken = time.monotonic(), 0
        while self._waiting and self._waiting[0][0] <= now and woken < self.AT_ONCE:
            future = heapq.heappop(self._waiting)[2]
            # A caller that hung up no longer waits.
            if not future.done():
                future.set_result(None)
                woken += 1
        self._running = bool(self._waiting) and self._waiting[0][0] <= now
        if self._running:
            loop.call_soon(self._tick, loop)
        elif self._waiting:
            self._arm(loop)


class DropError(Exception):
    """Raised into the server to break a connection on purpose."""


class GoneError(Exception):
    """The caller hung up."""


@dataclass(slots=True)
class AnswerTiming:
    """The timetable of one answer."""

    start: float
    per_second: float
    tick: float
    count: int
    ticker: Ticker
    fault: FaultRule | None
    break_at: int | None
    packet_at: float = 0.0
    """No packet of a stream leaves before this."""

    async def until(self, wanted: int) -> int:
        """Wait for at least so many tokens, or for those before a break; how many are due."""
        if self.break_at is not None:
            wanted = min(wanted, self.break_at)
        due_at = max(self.start + (wanted - 1) / self.per_second, self.packet_at)
        now = time.monotonic()
        if due_at > now:
            await self.ticker.until(due_at)
            now = time.monotonic()
        self.packet_at = now + self.tick
        due = self.count if math.isinf(self.per_second) else int((now - self.start) * self.per_second) + 1
        due = min(self.count, max(wanted, due))
        return due if self.break_at is None else min(due, self.break_at)

    async def take_break(self, sent: int) -> bool:
        """Take the script's break if it comes after so many tokens, with its silence or drop; tell whether it
        did."""
        if self.fault is None or sent != self.break_at:
            return False
        self.break_at = None
        match self.fault.kind:
            case "stall":
                await asyncio.sleep(self.fault.delay_seconds)
                self.start += self.fault.delay_seconds
            case "malformed_sse":
                pass
            case "timeout":
                await asyncio.sleep(MAX_SILENCE_SECONDS)
                raise DropError
            case _:
                # Let what was written leave before the connection goes.
                await asyncio.sleep(0.01)
                raise DropError
        return True


def pace_of(
    speed: float, ticker: Ticker, traits: Traits, draw: random.Random, fault: FaultRule | None, count: int
) -> AnswerTiming:
    """The timetable of an answer that begins now; `speed` divides the model's delays, not the script's."""
    instant = speed == 0 or math.isinf(speed)
    start, per_second = time.monotonic(), math.inf
    if not instant:
        first_token, usual = traits.timing(draw)
        start, per_second = start + first_token / speed, usual * speed
    tick = 0.0 if instant else TICK_SECONDS / max(1.0, speed)
    if fault is not None and fault.kind == "slow":
        start += fault.delay_seconds
    if fault is not None and fault.kind == "pace":
        start, per_second, tick = time.monotonic() + fault.delay_seconds, fault.tokens_per_second, 0.0
    return AnswerTiming(start, per_second, tick, count, ticker, fault, _break_at(fault, count))


def _break_at(fault: FaultRule | None, count: int) -> int | None:
    if fault is None or fault.kind not in BREAKS:
        return None
    usual = 0 if fault.kind == "timeout" else count // 2
    return min(count, usual if fault.after_tokens is None else fault.after_tokens)


@asynccontextmanager
async def while_listened(receive: Receive) -> AsyncIterator[None]:
    """Ends what runs inside with GoneError as soon as the caller hangs up."""
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not watcher.done() or task.uncancel():
            raise
        raise GoneError from None
    finally:
        watcher.cancel()
