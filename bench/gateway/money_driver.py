"""Workers that do steps, die and are started again; what they had begun is tried again, as Temporal would."""

import asyncio
import contextlib
import heapq
import multiprocessing
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

from bench.gateway.money_worker import work

MAX_ATTEMPTS: Final = 8
HEARTBEAT_SECONDS: Final = 0.2
"""After which what a dead worker did begins anew: with Temporal it takes longer."""
MAX_WAIT_SECONDS: Final = 3.0


@dataclass
class Driver:
    database_url: str
    simulator_url: str
    units: list[dict[str, Any]]
    """Arguments of StepRequest."""
    at_once: int
    """Steps that a worker has at a time."""
    kills: int
    chance: random.Random
    ends: Counter[str] = field(default_factory=Counter)
    """`completed`, or the code of the last failure → units."""
    killed: int = 0
    attempts: int = 0
    strange: list[str] = field(default_factory=list)
    """Failures that no script and no budget explains."""
    _attempts: Counter[int] = field(default_factory=Counter)
    _ready: list[tuple[float, int]] = field(default_factory=list)
    _left: int = 0
    _workers: list[ForkServerProcess] = field(default_factory=list)

    async def run(self, processes: int) -> None:
        """Until every unit has ended."""
        self._left = len(self.units)
        self._ready = [(0.0, number) for number in range(len(self.units))]
        # Workers begin as copies of one that has imported everything: that takes longer than their lives.
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["litellm", work.__module__])
        async with asyncio.TaskGroup() as group:
            for _ in range(processes):
                group.create_task(self._keep_working(context))
            group.create_task(self._kill())

    async def _kill(self) -> None:
        """At random moments, but spread over the work."""
        for number in range(self.kills):
            due = len(self.units) * (number + self.chance.random()) / (self.kills + 1)
            while self._left > len(self.units) - due and self._left:
                await asyncio.sleep(0.02)
            if self._left and self._workers:
                self.chance.choice(self._workers).kill()
                self.killed += 1

    async def _keep_working(self, context: multiprocessing.context.ForkServerContext) -> None:
        while self._left:
            ours, theirs = context.Pipe()
            worker = context.Process(target=work, args=(theirs, self.database_url, self.simulator_url))
            await asyncio.to_thread(worker.start)
            theirs.close()
            self._workers.append(worker)
            await self._feed(ours)
            self._workers.remove(worker)
            await asyncio.to_thread(worker.join)

    async def _feed(self, line: "Connection[Any, Any]") -> None:
        doing: set[int] = set()
        loop, dead = asyncio.get_running_loop(), asyncio.Event()

        def take() -> None:
            try:
                self._take(line.recv(), doing)
            except (EOFError, OSError):
                loop.remove_reader(line.fileno())
                dead.set()

        loop.add_reader(line.fileno(), take)
        with contextlib.suppress(OSError):
            while self._left and not dead.is_set():
                while len(doing) < self.at_once and self._ready and self._ready[0][0] <= time.monotonic():
                    _, number = heapq.heappop(self._ready)
                    doing.add(number)
                    self._attempts[number] += 1
                    self.attempts += 1
                    line.send({"number": number, **self.units[number]})
                await asyncio.sleep(0.01)
        loop.remove_reader(line.fileno())
        line.close()
        for number in doing:
            self._again(number, HEARTBEAT_SECONDS)

    def _take(self, end: dict[str, Any], doing: set[int]) -> None:
        number = end["number"]
        doing.discard(number)
        if end["code"] in ("internal_error", "database_unavailable", "io_error"):
            self.strange.append(end["said"])
        if end["again"] and self._attempts[number] < MAX_ATTEMPTS:
            self._again(number, max(end["after"], 0.1 * 2 ** self._attempts[number]))
        else:
            self.ends[end["code"] or "completed"] += 1
            self._left -= 1

    def _again(self, number: int, after: float) -> None:
        heapq.heappush(self._ready, (time.monotonic() + min(after, MAX_WAIT_SECONDS), number))
