"""Queue this process's calls to one provider account until Postgres admits them."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.money import traffic
from gateway.limits.fair_order import FairQueue, Waiter
from gateway.limits.window import Slot, WindowPace, WindowState
from gateway.provider_limits import ProviderLimits
from schema.errors import MAX_PROPOSED_WAIT_SECONDS, FacilitairError, ProviderError, Unavailable

AT_ONCE: Final = 500
"""Turns that are asked for in one transaction."""
MAX_PAUSE_SECONDS: Final = 1.0
"""Longest pause between questions to Postgres, by which permits returned elsewhere are found."""
MIN_PAUSE_SECONDS: Final = 0.02
JITTER_SECONDS: Final = 0.05
"""Random addition to a pause, since all processes learn of room at the same moment."""
OWING_SECONDS: Final = 0.1
"""Corrections of calls that end at about the same time are written down together."""
FORGET_SECONDS: Final = 30.0
MAX_CORRECTION: Final = 1_000_000_000
"""Tokens by which one call's count is corrected: what a provider counts is written down for all who wait."""
SETTING: Final = "FACILITAIR_PROVIDER_LIMITS, or the tenant's provider"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call."""

    gate: "Gate"
    slot: int
    tokens: int
    given_at: float

    def correct(self, tokens: int) -> None:
        """Correct the permit to the call's actual tokens."""
        self.gate.owe(self.slot, 0, tokens - self.tokens)

    def give_back(self) -> None:
        """No call was made."""
        self.gate.owe(self.slot, -1, -self.tokens)


@dataclass(slots=True, eq=False)
class Caller:
    """A caller that waits for a permit, until a time of the loop's clock."""

    provider: str
    model: str
    tokens: int
    until: float
    turn: "asyncio.Future[Permit]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class _Admission:
    """Postgres' answer to a request for admission."""

    standing: WindowState
    """With those who go."""
    going: int
    asked_at: float


class Gate:
    """The queue for one account, in one process."""

    def __init__(self, engine: AsyncEngine, account: str, limits: ProviderLimits, pace: WindowPace) -> None:
        self._engine, self._account, self._pace = engine, account, pace
        self.limits = limits
        self._queue: FairQueue[Caller] = FairQueue()
        self._owed: dict[int, tuple[int, int]] = {}
        self._owing = asyncio.Event()
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._swept_at = 0.0
        self._forget_at = 0.0
        self._known: tuple[WindowState, float] | None = None
        """The account's state, and the loop time at which it was read."""

    async def wait(self, caller: Caller, tenant: str, priority: int) -> Permit:
        place = self._queue.join(tenant, priority, caller)
        self._joined.set()
        self._work()
        try:
            async with asyncio.timeout_at(caller.until):
                return await caller.turn
        except BaseException as error:
            self._queue.leave(place)
            if caller.turn.done() and not caller.turn.cancelled() and caller.turn.exception() is None:
                # It came in the same moment.
                caller.turn.result().give_back()
            if isinstance(error, TimeoutError):
                raise self._too_late(caller, self._again_in()) from None
            raise

    def owe(self, slot: int, requests: int, tokens: int) -> None:
        """Correct a slot soon."""
        if self.limits.tokens_per_minute is None:
            tokens = 0
        tokens = max(-MAX_CORRECTION, min(tokens, MAX_CORRECTION))
        if requests or tokens:
            before = self._owed.get(slot, (0, 0))
            self._owed[slot] = (before[0] + requests, before[1] + tokens)
            self._owing.set()
            self._work()

    def refuse(self, model: str, refusal: Callable[[str, str], ProviderError | None]) -> None:
        for place in list(self._queue):
            if place.what.model == model and (error := refusal(self._account, model)):
                self._turn_away(place, error)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(SQLAlchemyError, OSError):
            await self._ask([])

    def _work(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        while self._queue or self._owed:
            await self._until_due()
            batch = self._queue.take(AT_ONCE)
            try:
                await self._let_go(batch, await self._ask_twice([place.what.tokens for place in batch]))
            except asyncio.CancelledError:
                for place in batch:
                    place.what.turn.cancel()
                raise
            except (SQLAlchemyError, OSError):
                for place in (*batch, *self._queue):
                    self._turn_away(place, unlimited())
            if not self._queue:
                self._next_at = 0.0

    async def _until_due(self) -> None:
        """Until there may be room, or something to write down that makes some."""
        loop = asyncio.get_running_loop()
        if not self._queue:
            self._joined.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OWING_SECONDS):
                    await self._joined.wait()
        elif self._next_at > loop.time():
            seconds = min(self._next_at - loop.time(), MAX_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._owing.wait()
                await asyncio.sleep(OWING_SECONDS)

    async def _let_go(self, batch: list[Waiter[Caller]], answer: _Admission | None) -> None:
        if answer is None:
            return
        standing, going, now = answer.standing, answer.going, asyncio.get_running_loop().time()
        self._known = (standing, now)
        for place in batch[:going]:
            turn = Permit(self, standing.slots[-1].at, place.what.tokens, answer.asked_at)
            if place.what.turn.done():
                turn.give_back()
            else:
                place.what.turn.set_result(turn)
        self._queue.put_back([place for place in batch[going:] if not place.what.turn.done()])
        if going < len(batch):
            free = (standing.free_at(batch[going].what.tokens) - standing.now) / 1000
            self._next_at = now + max(free, MIN_PAUSE_SECONDS) + random.uniform(0, JITTER_SECONDS)
            self._sweep(standing, now)

    async def _ask_twice(self, asked: list[int]) -> _Admission | None:
        """A connection that Postgres closed while nobody used it tells of that only when it is used."""
        try:
            return await self._ask(asked)
        except (SQLAlchemyError, OSError):
            return await self._ask(asked)

    async def _ask(self, asked: list[int]) -> _Admission | None:
        """Let go as many of these as may; writes down what is owed."""
        # Should the transaction fail they are not tried again: it may have been carried out, and to give
        # something back twice would allow too much.
        owed, self._owed = self._owed, {}
        self._owing.clear()
        if not asked and not owed:
            return None
        loop = asyncio.get_running_loop()
        async with transaction(self._engine) as connection:
            await traffic.lock(connection, self._account)
            await traffic.correct(connection, self._account, [(at, *change) for at, change in owed.items()])
            if loop.time() > self._forget_at:
                self._forget_at = loop.time() + FORGET_SECONDS
                await traffic.forget(connection, self._account, 2 * self._pace.lasts)
            if not asked:
                return None
            asked_at = loop.time()
            now, found = await traffic.slots(connection, self._account, self._pace.lasts)
            slots = [Slot(*one) for one in found]
            going = WindowState(self._pace, self.limits, now, slots).admitted(asked)
            if going:
                tokens = sum(asked[:going]) if self.limits.tokens_per_minute is not None else 0
                slots.append(Slot(now // self._pace.slot * self._pace.slot, going, tokens))
                await traffic.add(connection, self._account, slots[-1].at, going, tokens)
        return _Admission(WindowState(self._pace, self.limits, now, slots), going, asked_at)

    def _sweep(self, standing: WindowState, now: float) -> None:
        """Turn away who cannot have a turn in time: the sooner, the sooner another model is asked."""
        if now < self._swept_at + MAX_PAUSE_SECONDS:
            return
        self._swept_at = now
        # Rounded down to a fraction of the limit: looking at all slots for each would take long.
        step = max(1, (standing.limits.requests_per_minute or 0) // 50)
        earliest: dict[int, float] = {}
        again = self._again_in()
        for before, place in enumerate(list(self._queue)):
            rounded = before // step * step
            if rounded not in earliest:
                earliest[rounded] = (standing.turn_at(rounded) - standing.now) / 1000
            if now + earliest[rounded] > place.what.until:
                self._turn_away(place, self._too_late(place.what, again))

    def _turn_away(self, place: Waiter[Caller], error: FacilitairError) -> None:
        self._queue.leave(place)
        if not place.what.turn.done():
            place.what.turn.set_exception(error)

    def _again_in(self) -> float:
        """Seconds until one who joined now might have a turn."""
        now, seconds = asyncio.get_running_loop().time(), MIN_PAUSE_SECONDS
        if self._known:
            standing, then = self._known
            tokens = sum(place.what.tokens for place in self._queue) + 1
            seconds = (standing.likely_at(len(self._queue), tokens) - standing.now) / 1000 - (now - then)
        return min(max(seconds, self._next_at - now, MIN_PAUSE_SECONDS), MAX_PROPOSED_WAIT_SECONDS)

    def _too_late(self, caller: Caller, again: float) -> ProviderError:
        limits = " and ".join(
            f"{limit:,} {what} a minute"
            for limit, what in zip(self.limits, ("requests", "tokens"), strict=True)
            if limit is not None
        )
        message = (
            f"{caller.provider} allows this account {limits} ({SETTING}), they are used up, and "
            f"{caller.model} could not have its turn in time; one is expected in {again:.1f} s. Raise "
            "the limit, or ask less at a time"
        )
        return ProviderError(
            "provider_rate_limited", message, retryable=True, retry_after_seconds=round(again, 3)
        )


def too_large(caller: Caller, limit: int) -> ProviderError:
    """A call that would wait for ever."""
    message = (
        f"found a call of {caller.model} that may take {caller.tokens:,} tokens; expected at most the "
        f"{limit:,} that {caller.provider} allows this account in a minute ({SETTING}). Shorten "
        "the prompt, lower max_output_tokens, or raise the limit"
    )
    return ProviderError("provider_rate_limited", message, retryable=False)


def unlimited() -> Unavailable:
    message = (
        "Postgres does not answer, and without it the limits that all workers share with a provider cannot "
        "be kept; the step is tried again when it does"
    )
    return Unavailable("database_unavailable", message)
