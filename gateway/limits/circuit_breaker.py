"""Circuits: a model that keeps failing is left alone for a while, by all workers together."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.money import circuits
from db.money.circuits import OpenCircuit
from schema.errors import ProviderError

IN_A_ROW: Final = 5
"""One or two failures are the network's; five without an answer between them are the provider's."""
RECENT_SECONDS: Final = 30.0
RECENT_CALLS: Final = 20
RECENT_SHARE: Final = 0.5
"""A provider that fails every other call is no use, though it never fails five times in a row; fewer calls
than twenty say too little."""
OPEN_SECONDS: Final = 10.0
"""Most overloads are over by then, and a step whose only model this is can still wait for it."""
MAX_OPEN_SECONDS: Final = 120.0
"""Longest time for which a provider's recovery may go unnoticed."""
PROBE_SECONDS: Final = 10.0
"""A probe that has not ended by then does not keep others from trying; one whose worker died neither."""
MIN_SECONDS: Final = 0.1
"""Shortest wait told to a caller who came between two probes."""
MAX_CIRCUITS: Final = 1_000
"""Models whose failures one process counts."""
FAILURES: Final = frozenset(("provider_unavailable", "provider_timeout", "provider_stream_cut"))
PATIENT_SECONDS: Final = 5.0
"""A call that was given up sooner says more about its own timeout than about the provider, and others share
the circuit with it."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Tally:
    """Recent ends of a model's calls in this process."""

    in_a_row: int = 0
    recent: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=500))

    def note(self, now: float, failed: bool) -> bool:
        """Record a call's end; return True if the circuit must open."""
        self.in_a_row = self.in_a_row + 1 if failed else 0
        self.recent.append((now, failed))
        if not failed:
            return False
        while self.recent[0][0] < now - RECENT_SECONDS:
            self.recent.popleft()
        failures = sum(failed for _, failed in self.recent)
        often = len(self.recent) >= RECENT_CALLS and failures >= RECENT_SHARE * len(self.recent)
        return often or self.in_a_row >= IN_A_ROW


@dataclass(slots=True)
class _OpenUntil:
    until: float
    """Loop time from which one call at a time may probe."""
    shared: bool
    """Whether Postgres knows of it, and so tells when it is over."""


class Circuits:
    """Circuit breakers as this process knows them. A closed one costs a dictionary lookup."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._tallies: OrderedDict[Key, _Tally] = OrderedDict()
        self._open: dict[Key, _OpenUntil] = {}

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    def refusal(self, account: str, model: str) -> ProviderError | None:
        """Return why the model must not be asked now; None if it may."""
        opened = self._open.get((account, model))
        left = opened.until - asyncio.get_running_loop().time() if opened else 0.0
        return _refusal(model, left) if left > 0 else None

    async def probes(self, account: str, model: str) -> bool:
        """Tell whether the caller should probe a failing model. Raises ProviderError while another caller
        does."""
        key = (account, model)
        if key not in self._open:
            return False
        now = asyncio.get_running_loop().time()
        if refusal := self.refusal(*key):
            raise refusal
        # Nobody else of this process asks meanwhile.
        self._open[key].until = now + PROBE_SECONDS
        async with transaction(self._engine) as connection:
            mine, left = await circuits.probe(connection, account, model, PROBE_SECONDS)
        if left is None:
            self._open.pop(key, None)
            return False
        self._open[key] = _OpenUntil(now + max(left, 0.0), shared=True)
        if not mine:
            raise _refusal(model, max(left, MIN_SECONDS))
        return True

    def answered(self, account: str, model: str) -> None:
        self._tally((account, model)).note(asyncio.get_running_loop().time(), False)

    async def failed(self, account: str, model: str) -> None:
        """The model failed a call; opens its circuit when that is too much."""
        key, now = (account, model), asyncio.get_running_loop().time()
        if not self._tally(key).note(now, True) or key in self._open:
            return
        self._tallies.pop(key)
        self._open[key] = opened = _OpenUntil(now + OPEN_SECONDS, shared=False)
        async with transaction(self._engine) as connection:
            await circuits.trip(connection, account, model, OPEN_SECONDS)
        opened.shared = True

    async def probed(self, account: str, model: str, answered: bool | None) -> None:
        """Record how a probe ended; None if it was given up."""
        key = (account, model)
        async with transaction(self._engine) as connection:
            match answered:
                case True:
                    await circuits.close(connection, account, model)
                    self._open.pop(key, None)
                case False:
                    await circuits.failed(connection, account, model, OPEN_SECONDS, MAX_OPEN_SECONDS)
                case None:
                    await circuits.undecided(connection, account, model)

    async def refresh(self) -> list[Key]:
        """Learn what others found; the circuits that are open."""
        async with transaction(self._engine) as connection:
            found = await circuits.open_ones(connection)
        return self.learn(found)

    def learn(self, found: Collection[OpenCircuit]) -> list[Key]:
        now = asyncio.get_running_loop().time()
        self._open = {
            key: opened for key, opened in self._open.items() if not opened.shared and opened.until > now
        } | {(one.account, one.model): _OpenUntil(now + one.seconds, shared=True) for one in found}
        for key in self._open:
            self._tallies.pop(key, None)
        return list(self._open)

    def _tally(self, key: Key) -> _Tally:
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = _Tally()
            if len(self._tallies) > MAX_CIRCUITS:
                self._tallies.popitem(last=False)
        return found


def _refusal(model: str, seconds: float) -> ProviderError:
    message = (
        f"{model} failed so often lately that nobody asks it for the next {seconds:.1f} s; name another "
        "model in the agent's `fallback`, or let the step try again"
    )
    return ProviderError(
        "provider_unavailable", message, retryable=True, retry_after_seconds=round(seconds, 3)
    )
