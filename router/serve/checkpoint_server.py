"""The checkpoints that this process has at hand, and decisions by them or by rules.

A checkpoint is loaded in a thread and takes its place when it can answer at once; until then the one before
it decides, or rules do. One that is broken is left out, and every decision that it should have made says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal
from uuid import UUID

from db.router.decisions import RoutingDecision
from router.checkpoints import storage
from router.checkpoints.storage import Checkpoint
from router.data import features
from router.data.arrays import Floats
from router.data.embedding_cache import EmbeddingCache
from router.serve import decisions
from router.serve.decisions import LoadedCheckpoint
from router.serve.predictions import ExpectationCache, RoutingQuestion
from router.statistics.choose import PricePair
from router.statistics.model import IntervalShifts

MAX_LOADED: Final = 6
"""Checkpoints in memory: those before the present ones too, so that a rollback takes no loading."""
RETRY_SECONDS: Final = 30.0
"""Seconds until a checkpoint that could not be loaded is tried again: its row may have been repaired."""

_WARM_UP: Final = "warm up"
_AT_ONCE: Final = 8
"""Decisions for which the event loop may be held."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint that is to be asked, as the database tells it."""

    id: UUID
    number: int
    state: Literal["shadow", "share", "all"]
    sha256: str
    moves: IntervalShifts | None = None


@dataclass(frozen=True)
class Staff:
    """Checkpoints that can answer now."""

    checkpoints: tuple[LoadedCheckpoint, ...] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    """number → why it cannot be asked."""
    loading: tuple[int, ...] = ()
    lost: bool = False
    """Whether the one that should serve is among the broken."""


Fetch = Callable[[UUID], Awaitable[bytes]]
"""A checkpoint's content by its id; raises when there is none."""


class CheckpointServer:
    """Checkpoints loaded by one process and event loop."""

    def __init__(self, embed: Callable[[Sequence[str]], Floats] = features.rows) -> None:
        self.rows = EmbeddingCache(embed)
        self.loads = 0
        """Checkpoints that were loaded since the process began."""
        self.loaded_at: dict[UUID, datetime] = {}
        self._loaded: OrderedDict[UUID, tuple[Checkpoint, ExpectationCache]] = OrderedDict()
        self._broken: dict[UUID, tuple[float, str]] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._before: dict[str, ServedCheckpoint] = {}
        """tenant → who serves, or did until the next one can."""

    def staff(self, tenant: str, wanted: Sequence[ServedCheckpoint], fetch: Fetch) -> Staff:
        """Return the wanted checkpoints that can answer, and begin to load the others. Never waits."""
        found: list[LoadedCheckpoint] = []
        broken: dict[int, str] = {}
        loading: list[int] = []
        for one in wanted:
            if one.id in self._loaded:
                self._loaded.move_to_end(one.id)
                found.append(LoadedCheckpoint(one.number, one.state, *self._loaded[one.id], one.moves))
                if one.state == "all":
                    self._before[tenant] = one
            elif one.id in self._broken:
                tried_at, broken[one.number] = self._broken[one.id]
                if time.monotonic() - tried_at > RETRY_SECONDS:
                    self._begin(tenant, one, fetch)
            else:
                loading.append(one.number)
                self._begin(tenant, one, fetch)
        serving = next((one for one in wanted if one.state == "all"), None)
        if serving is None:
            self._before.pop(tenant, None)
        elif serving.number in loading and (before := self._before.get(tenant)) and before.id in self._loaded:
            found.append(LoadedCheckpoint(before.number, "all", *self._loaded[before.id], before.moves))
        lost = serving is not None and serving.number in broken
        return Staff(tuple(found), broken, tuple(loading), lost)

    def model(self, id: UUID) -> Checkpoint | None:
        """A checkpoint that is at hand."""
        return self._loaded[id][0] if id in self._loaded else None

    def why_broken(self, id: UUID) -> str | None:
        known = self._broken.get(id)
        return known[1] if known else None

    async def settled(self, wanted: Sequence[ServedCheckpoint]) -> None:
        """Wait until everything that is being loaded has been, or has proved broken."""
        if tasks := [self._tasks[one.id] for one in wanted if one.id in self._tasks]:
            await asyncio.wait(tasks)

    async def decide(
        self,
        staff: Staff,
        question: RoutingQuestion,
        rules_choice: RoutingDecision,
        quarantined: Collection[str],
        prices: Mapping[str, PricePair],
        key: str,
    ) -> RoutingDecision:
        """Decide as `decisions.decide_all` does; by rules, flagged, if a checkpoint should have decided and
        could not."""
        [decision] = await self.decide_all(staff, [question], [rules_choice], quarantined, prices, [key])
        return decision

    async def decide_all(
        self,
        staff: Staff,
        questions: Sequence[RoutingQuestion],
        rules_choices: Sequence[RoutingDecision],
        quarantined: Collection[str],
        prices: Mapping[str, PricePair],
        keys: Sequence[str],
    ) -> list[RoutingDecision]:
        """Decide questions with the same candidates; many of them in a thread."""
        try:
            rows = await self.rows.of([one.text for one in questions]) if staff.checkpoints else None
            began = time.perf_counter()
            work = partial(
                decisions.decide_all,
                questions,
                rows,
                staff.checkpoints,
                rules_choices,
                quarantined,
                prices,
                keys,
            )
            # A network takes several times as long as all the rest.
            slow = len(questions) > _AT_ONCE or any(one.model.neural for one in staff.checkpoints)
            found = await asyncio.to_thread(work) if slow else work()
            lost = staff.lost
            broken = "; ".join(staff.broken.values())
        except Exception as error:
            _log.exception("Checkpoint failed, rules decide")
            began = time.perf_counter()
            found = decisions.decide_all(questions, None, (), rules_choices, quarantined, prices, keys)
            lost, broken = True, f"{type(error).__name__}: {error}"[:300]
        if broken:
            found = [decisions.without(one, broken, fallback=lost) for one in found]
        milliseconds = round((time.perf_counter() - began) * 1000 / len(questions), 3)
        return [replace(one, features=one.features | {"ms": milliseconds}) for one in found]

    def _begin(self, tenant: str, one: ServedCheckpoint, fetch: Fetch) -> None:
        if one.id not in self._tasks:
            self._tasks[one.id] = asyncio.create_task(self._load(tenant, one, fetch))

    async def _load(self, tenant: str, one: ServedCheckpoint, fetch: Fetch) -> None:
        try:
            content = await fetch(one.id)
            await self.rows.of([_WARM_UP])  # the encoder itself takes seconds the first time
            loaded = await asyncio.to_thread(_load, content, one.sha256)
        except Exception as error:
            _log.exception("Checkpoint could not be loaded", extra={"checkpoint": one.number})
            self._broken[one.id] = (time.monotonic(), f"checkpoint {one.number}: {error}"[:300])
        else:
            self._broken.pop(one.id, None)
            self._loaded[one.id] = loaded
            self.loaded_at[one.id] = datetime.now(UTC)
            self.loads += 1
            if one.state == "all":
                self._before[tenant] = one
            while len(self._loaded) > MAX_LOADED:
                self.loaded_at.pop(self._loaded.popitem(last=False)[0], None)
        finally:
            self._tasks.pop(one.id, None)


def _load(content: bytes, sha256: str) -> tuple[Checkpoint, ExpectationCache]:
    """With all at hand that takes its time."""
    model, kept = storage.unpack(content, sha256), ExpectationCache()
    kept.novel_above(model)
    return model, kept
