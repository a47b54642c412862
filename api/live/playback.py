"""A run told once more, in the order and the rhythm in which it happened.

A place in a playback is `p` and the number of things that were told: a token counts as one, however many came
at once. Of a run that has ended it means the same every time.
"""

import asyncio
import heapq
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from api.state import ApiState
from db.live import playback as past
from db.live import tokens
from db.live.fold import beginning_of, end_of, plain_event, superseded, with_end
from db.live.tokens import SpokenToken
from schema.errors import Refused
from schema.live import AGENT, LiveEvent, PlacedEvent, RunEnded, StepBegan, StepEnded, TokensCame

MAX_PAUSE_SECONDS: Final = 5.0
"""Longest pause in a playback, in seconds of the run: nobody waits for a night that people slept."""
SILENCE_SECONDS: Final = 5.0
"""After as much of real time an empty list says that more will come."""
MAX_AT_ONCE: Final = 1_000
"""Events, and tokens of an event. Then others whom the process serves get their turn."""
_PAGE: Final = 2_000
"""Tokens that are read at a time; of each of many who speak at once, fewer, but not fewer than these."""
_MIN_BATCH: Final = 100
_PLACE: Final = re.compile(r"p([0-9]{1,12})")
_AT_ONCE_SECONDS: Final = 0.001


async def playback(
    state: ApiState, run: UUID, speed: float, place: str = ""
) -> AsyncIterator[list[PlacedEvent]]:
    """Replay a run as lists of simultaneous events: `speed` 1 as it was, 10 ten times as fast, 0 at once.

    `place` is that of the last event received. Raises Refused.
    """
    known = place_in_playback(place) if place else 0
    clock = _Clock(speed)
    telling = _PlaybackStep()
    async for at, event in _Timeline(state, run).told():
        if telling.number < known:
            telling.number += 1
            if telling.number % MAX_AT_ONCE == 0:
                await asyncio.sleep(0)
            continue
        if clock.seconds_until(at) > _AT_ONCE_SECONDS or telling.full:
            if lives := telling.take():
                yield lives
            while await clock.wait():
                yield []  # nothing yet, and the reader may look whether anybody listens
        telling.add(at, event)
    if lives := telling.take():
        yield lives


def place_in_playback(place: str) -> int:
    """Return how many events precede the place. Raises Refused."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise Refused(
            "stream_place_invalid",
            f"found {place[:60]!r}; expected the `id` of an event of this playback, as it was sent.",
        )
    return int(found.group(1))


class _Clock:
    """Maps times of the run to times of the playback."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due = 0.0
        self._last: datetime | None = None

    def seconds_until(self, at: datetime) -> float:
        now = asyncio.get_running_loop().time()
        if self._last is None:
            self._due = now
        elif self._speed > 0:
            self._due += min((at - self._last).total_seconds(), MAX_PAUSE_SECONDS) / self._speed
        self._last = at
        return self._due - now

    async def wait(self) -> bool:
        """Wait for what is due next; True when there is still more to wait for."""
        seconds = self._due - asyncio.get_running_loop().time()
        # Also when nothing is to wait for: others get their turn.
        await asyncio.sleep(min(max(seconds, 0), SILENCE_SECONDS))
        return seconds > SILENCE_SECONDS


@dataclass
class _PlaybackStep:
    """Events that are sent together. Consecutive tokens of an agent become one event."""

    number: int = 0
    lives: list[PlacedEvent] = field(default_factory=list)
    said: list[TokensCame] = field(default_factory=list)
    at: datetime = datetime.min
    """Time of the last of these words."""

    @property
    def full(self) -> bool:
        return len(self.lives) >= MAX_AT_ONCE or len(self.said) >= MAX_AT_ONCE

    def add(self, at: datetime, event: LiveEvent) -> None:
        if self.said and not (isinstance(event, TokensCame) and event.execution == self.said[-1].execution):
            self._join()
        self.number += 1
        if isinstance(event, TokensCame):
            self.said.append(event)
            self.at = at
        else:
            self.lives.append(PlacedEvent(f"p{self.number}", at, event))

    def take(self) -> list[PlacedEvent]:
        self._join()
        lives, self.lives = self.lives, []
        return lives

    def _join(self) -> None:
        if self.said:
            one, count = self.said[0], len(self.said)
            text = "".join(said.text for said in self.said)
            event = TokensCame(one.execution, one.path, text, one.first, count, one.agent)
            self.lives.append(PlacedEvent(f"p{self.number}", self.at, event))
            self.said = []


@dataclass(eq=False)
class _Voice:
    """The text of one execution: a page of it, and how many of its tokens were sent."""

    step: StepBegan
    page: deque[SpokenToken]
    told: int = 0


class _Timeline:
    """Everything that happened, in one order.

    The log, the beginnings and every voice are in order by themselves; a heap holds the next of each. Clocks
    of several machines need not agree: that an execution begins, speaks, ends, and the run ends last holds
    whatever the times say.
    """

    def __init__(self, state: ApiState, run: UUID) -> None:
        self._state, self._run = state, run
        self._heap: list[tuple[datetime, int, int, Any]] = []
        """(time, rank, number, what): the number makes the order of what is of one time a fixed one."""
        self._events: deque[Any] = deque()
        self._begun: deque[past.PlayedAttempt] = deque()
        self._last_event: Any = None
        self._last_begun: past.PlayedAttempt | None = None
        self._open: dict[str, StepBegan] = {}
        self._voices: dict[str, _Voice] = {}
        self._early: set[str] = set()
        """Executions that had to begin earlier than their time says."""
        self._number = 0
        self._now = datetime.min.replace(tzinfo=UTC)

    async def told(self) -> AsyncIterator[tuple[datetime, LiveEvent]]:
        async with self._state.transaction() as connection:
            self._to = await past.bounds(connection, self._run)
        end: LiveEvent | None = None
        await self._next_event()
        if self._heap:
            # The run itself begins before all else.
            at, _, _, first = heapq.heappop(self._heap)
            self._now = at
            await self._next_event()
            async for event in self._happened(first):
                yield self._now, event
        await self._next_begun()
        while self._heap:
            at, _, _, what = heapq.heappop(self._heap)
            self._now = max(self._now, at)
            async for event in self._of(what):
                if isinstance(event, RunEnded):
                    end = event
                else:
                    yield self._now, event
        if end:
            # Nothing is left open: a step that nobody waited for any more may have had no end of its own.
            for step in list(self._open.values()):
                async for event in self._end(superseded(step)):
                    yield self._now, event
            yield self._now, end

    async def _of(self, what: Any) -> AsyncIterator[LiveEvent]:
        if isinstance(what, _Voice):
            if what.page:  # else its execution has ended meanwhile
                yield self._say(what)
                await self._next_of(what)
        elif isinstance(what, past.PlayedAttempt):
            await self._next_begun()
            if str(what.id) not in self._early:
                yield await self._begin(what.step)
            if what.given_up_at:
                # The next attempt begins at that very time, and a watcher forgets this one first.
                self._push(what.given_up_at, -1, what.step)
        elif isinstance(what, StepBegan):
            async for event in self._end(superseded(what)):
                yield event
        else:
            await self._next_event()
            async for event in self._happened(what):
                yield event

    async def _happened(self, row: Any) -> AsyncIterator[LiveEvent]:
        """Yield the live events of one row of the log."""
        if row.type in ("StepFinished", "AttemptFailed"):
            began = self._open.get(row.payload["execution_id"])
            async for event in self._end(end_of(row.type, row.payload, began)):
                yield event
            return
        kept: dict[str, str] = {}
        if row.type == "CollaborationStarted" and row.payload.get("forked_from"):
            async with self._state.transaction() as connection:
                kept = await past.kept(connection, self._run)
        if plain := plain_event(row.type, row.payload, kept):
            yield await self._whole(plain) if isinstance(plain, RunEnded) else plain

    async def _whole(self, ended: RunEnded) -> RunEnded:
        async with self._state.transaction() as connection:
            return with_end(ended, await past.end(connection, self._run))

    async def _begin(self, step: StepBegan) -> StepBegan:
        self._open[step.execution] = step
        if step.kind == AGENT:
            voice = self._voices[step.execution] = _Voice(step, deque())
            await self._next_of(voice)
        return step

    def _say(self, voice: _Voice) -> TokensCame:
        one = voice.page.popleft()
        voice.told += 1
        step = voice.step
        return TokensCame(step.execution, step.path, one.text, voice.told - 1, 1, step.agent)

    async def _end(self, ended: StepEnded) -> AsyncIterator[LiveEvent]:
        """The end of an execution, behind its beginning and all that it said."""
        if ended.execution not in self._open:
            self._early.add(ended.execution)
            yield await self._begin(beginning_of(ended))
        if voice := self._voices.get(ended.execution):
            while voice.page or await self._read(voice):
                yield self._say(voice)
        self._voices.pop(ended.execution, None)
        del self._open[ended.execution]
        yield ended

    async def _next_event(self) -> None:
        if not self._events:
            async with self._state.transaction() as connection:
                self._events.extend(await past.log(connection, self._run, self._to, self._last_event))
        if self._events:
            self._last_event = self._events.popleft()
            self._push(self._last_event.created_at, 2, self._last_event)

    async def _next_begun(self) -> None:
        if not self._begun:
            async with self._state.transaction() as connection:
                self._begun.extend(await past.begun(connection, self._run, self._to, self._last_begun))
        if self._begun:
            self._last_begun = self._begun.popleft()
            self._push(self._last_begun.at, 0, self._last_begun)

    async def _next_of(self, voice: _Voice) -> None:
        if voice.page or await self._read(voice):
            self._push(voice.page[0].at, 1, voice)
        elif self._voices.get(voice.step.execution) is voice:
            del self._voices[voice.step.execution]

    async def _read(self, voice: _Voice) -> bool:
        # However many speak at once, their pages together stay about as large as one.
        most = max(_PAGE // max(len(self._voices), 1), _MIN_BATCH)
        async with self._state.transaction() as connection:
            voice.page.extend(
                await tokens.spoken(
                    connection, UUID(voice.step.execution), voice.told, most=most, until=self._to.until
                )
            )
        return bool(voice.page)

    def _push(self, at: datetime, rank: int, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at, rank, self._number, what))
