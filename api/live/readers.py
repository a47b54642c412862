"""Live runs for all who watch them in this process: one reader of Postgres, each run read once for everybody.

Watchers at the same position form a feed. A new watcher has a feed of its own, until one reading has
brought it as far as another: then they go on together. A watcher who is too slow is left behind, and goes on
from where they were like one who arrives: nobody waits for them, and they cost no memory.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import psycopg

from db import wakeups
from db.live.fold import Follower
from db.live.reader import LiveSource
from schema.live import PlacedEvent, StreamPosition, parse_place

PACE_SECONDS: Final = 0.005
"""At most this often is anything read: what comes meanwhile is told together."""
LOOK_SECONDS: Final = 1.0
"""Interval of looking at a run that no wake-up named."""
MAX_WAITING: Final = 1_000
"""Readings that a watcher may be behind before they are left to go on alone."""
_RETRY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Watcher:
    """A watcher of a run: iterates over lists of new events until the run has ended."""

    def __init__(self, hub: "Hub", run: UUID, place: str) -> None:
        self.run, self.place = run, place
        self._hub = hub
        self._waiting: list[list[PlacedEvent]] = []
        self._some = asyncio.Event()
        self._over = False
        self._left_behind = False

    def give(self, lives: list[PlacedEvent], ended: bool) -> bool:
        """Hand over events; return False once the watcher has fallen too far behind."""
        if len(self._waiting) >= MAX_WAITING:
            self._left_behind = True
            self._some.set()
            return False
        if lives:
            self._waiting.append(lives)
        self._over = self._over or ended
        if lives or ended:
            self._some.set()
        return True

    def __aiter__(self) -> AsyncIterator[list[PlacedEvent]]:
        return self

    async def __anext__(self) -> list[PlacedEvent]:
        while not self._waiting:
            if self._left_behind:
                await self._hub.join(self)  # who stops waiting for it, and comes again, has not joined
                self._left_behind = False
            if self._over:
                raise StopAsyncIteration
            self._some.clear()
            await self._some.wait()
        lives = [live for waiting in self._waiting for live in waiting]
        self._waiting.clear()
        self.place = lives[-1].place
        return lives


class _RunReader:
    def __init__(self, follower: Follower, watcher: Watcher) -> None:
        self.follower = follower
        self.watchers = [watcher]
        self.looked_at = 0.0


class Hub:
    """Reads for every watcher of the process."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._source = LiveSource(database_url)
        self._feeds: dict[str, list[_RunReader]] = {}
        self._changed: set[str] = set()
        self._spoken: set[str] = set()
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Lock()

    @asynccontextmanager
    async def watch(self, run: UUID, place: str = "") -> AsyncIterator[Watcher]:
        """Watch a run from its beginning, or on from a place. Raises Refused when it is none."""
        watcher = Watcher(self, run, place)
        if place:
            parse_place(place)
        await self.join(watcher)
        try:
            yield watcher
        finally:
            self._leave(watcher)

    @property
    def watchers(self) -> int:
        return sum(len(feed.watchers) for feeds in self._feeds.values() for feed in feeds)

    async def join(self, watcher: Watcher) -> None:
        place = parse_place(watcher.place) if watcher.place else StreamPosition()
        async with self._reading:
            follower = await self._source.follower(watcher.run, place)
        self._feeds.setdefault(follower.run, []).append(_RunReader(follower, watcher))
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._work())]
        self._wake(follower.run)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for feeds in self._feeds.values():
            for feed in feeds:
                for watcher in feed.watchers:
                    watcher.give([], ended=True)
        await self._source.close()

    def _leave(self, watcher: Watcher) -> None:
        run = str(watcher.run)
        for feed in self._feeds.get(run, []):
            if watcher in feed.watchers:
                feed.watchers.remove(watcher)
        self._tidy(run)

    def _tidy(self, run: str) -> None:
        """Forget feeds without watchers, and let those go on together that have come equally far."""
        left: list[_RunReader] = []
        for feed in self._feeds.get(run, []):
            twin = next((one for one in left if one.follower.place == feed.follower.place), None)
            if twin and not twin.follower.behind and not feed.follower.behind:
                twin.watchers += feed.watchers
            elif feed.watchers and not feed.follower.ended:
                left.append(feed)
        if left:
            self._feeds[run] = left
        else:
            self._feeds.pop(run, None)

    def _wake(self, run: str, *, spoken: bool = False) -> None:
        if run in self._feeds:
            (self._spoken if spoken else self._changed).add(run)
            self._some.set()

    async def _listen(self) -> None:
        async for changed, runs in wakeups.listen(self._url):
            for run in runs or self._feeds:
                self._wake(str(UUID(run)), spoken=not changed)

    async def _work(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS / 4):
                    await self._some.wait()
            self._some.clear()
            try:
                async with self._reading:
                    await self._read()
            except Exception as error:
                if isinstance(error, psycopg.Error):
                    _log.warning("Live reads delayed, Postgres unavailable")
                else:
                    # A fault of ours must be seen, and must not silence every watcher for good.
                    _log.exception("Live read failed")
                self._changed.update(self._feeds)
                self._some.set()
                await asyncio.sleep(_RETRY_SECONDS)
            await asyncio.sleep(PACE_SECONDS)

    async def _read(self) -> None:
        now = time.monotonic()
        changed, spoken = self._changed, self._spoken - self._changed
        self._changed, self._spoken = set(), set()
        changed |= {
            run
            for run, feeds in self._feeds.items()
            if any(feed.looked_at < now - LOOK_SECONDS for feed in feeds)
        }
        for runs, read in ((changed, self._source.read), (spoken, self._source.read_tokens)):
            feeds = [feed for run in runs for feed in self._feeds.get(run, [])]
            if not feeds:
                continue
            told = await read([feed.follower for feed in feeds])
            for feed, lives in zip(feeds, told, strict=True):
                self._tell(feed, lives, now)
            for run in runs:
                self._tidy(run)

    def _tell(self, feed: _RunReader, lives: list[PlacedEvent], now: float) -> None:
        follower = feed.follower
        feed.looked_at = now
        if follower.behind:
            self._wake(follower.run)
        over = follower.ended and not follower.behind
        feed.watchers = [watcher for watcher in feed.watchers if watcher.give(lives, over)]
