"""Time-outs of calls. Only the provider's silence counts: a slow reader of ours costs it nothing."""

import asyncio
import math
from collections.abc import Callable
from typing import Final, Literal

from gateway.request import Timeouts

Which = Literal["connect", "first_token", "stall", "total"]
NEVER: Final = math.inf


class TimedOut(Exception):
    """Nothing came for as long as was allowed."""

    def __init__(self, which: Which, seconds: float, *, sent: bool) -> None:
        super().__init__(f"{which} after {seconds:g} s")
        self.which, self.seconds, self.sent = which, seconds, sent


class CallDeadlines:
    """The deadlines of one call. One timer watches all of them: to set one for every piece costs more than
    to read the piece."""

    def __init__(self, timeouts: Timeouts, *, streamed: bool) -> None:
        self._loop = asyncio.get_running_loop()
        half = timeouts.total / 2
        self._seconds: dict[Which, float] = {
            "connect": timeouts.connect,
            # An answer in one piece has no first token.
            "first_token": (half if timeouts.first_token is None else timeouts.first_token)
            if streamed
            else NEVER,
            "stall": (half if timeouts.stall is None else timeouts.stall) if streamed else NEVER,
            "total": timeouts.total,
        }
        self.total_seconds = timeouts.total
        self._which: Which = "connect"
        self.began = self._loop.time()
        self._end = self.began + timeouts.total
        self._silent_until = self.began + timeouts.connect
        self._left_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut: Callable[[Exception], None] | None = None
        self._head: asyncio.Timeout | None = None
        self.sent = False

    def head(self) -> asyncio.Timeout:
        """For connecting, sending and the first line of the answer; `timed_out` says which it was."""
        self._head = asyncio.timeout_at(min(self._end, self._silent_until))
        return self._head

    def note_sent(self) -> None:
        """The request is on its way: from here on the provider may bill it."""
        self.sent = True
        self._expect("first_token")
        if self._head is not None and not self._head.expired():
            self._head.reschedule(self._deadline())

    def watch(self, cut: Callable[[Exception], None]) -> None:
        """Call `cut` with the error when the answer takes too long from here on."""
        self._cut = cut
        self._arm()

    def heard(self) -> None:
        """Something of the answer came."""
        if self._which == "stall":
            self._silent_until = self._loop.time() + self._seconds["stall"]
        else:
            self._expect("stall")
            # The silence allowed within an answer is often shorter than the one before it.
            self._arm()

    def leave(self) -> None:
        """The reader is busy with what came."""
        self._left_at = self._loop.time()

    def resume(self) -> None:
        """The reader waits again."""
        if self._left_at is not None:
            away = self._loop.time() - self._left_at
            self._left_at = None
            self._end += away
            self._silent_until += away
            if self._timer is None:
                self._arm()

    def close_within(self, seconds: float) -> None:
        """Nothing more of the answer is missing: wait at most this long for its end."""
        end = self._loop.time() + seconds
        if end < self._end:
            self._end = end
            self._arm()

    def over(self) -> bool:
        """Tell whether there was no time from the start."""
        return self._loop.time() >= self._end

    def elapsed_ms(self) -> int:
        return round((self._loop.time() - self.began) * 1000)

    def stop(self) -> None:
        self._cut = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timed_out(self) -> TimedOut:
        which: Which = "total" if self._end <= self._silent_until else self._which
        return TimedOut(which, self._seconds[which], sent=self.sent)

    def _expect(self, which: Which) -> None:
        self._which = which
        self._silent_until = self._loop.time() + self._seconds[which]

    def _deadline(self) -> float:
        return min(self._end, self._silent_until)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._cut is not None:
            self._timer = self._loop.call_at(self._deadline(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._cut is None or self._left_at is not None:
            return
        # Deadlines move on with every piece, the timer does not.
        if self._loop.time() < self._deadline():
            self._arm()
        else:
            self._cut(self.timed_out())
