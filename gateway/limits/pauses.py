"""Pauses of models: their provider asked for one, or said that there were too many calls."""

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from db.money.traffic import ProviderPause
from schema.errors import MAX_PROPOSED_WAIT_SECONDS, ProviderError

FIRST_SECONDS: Final = 1.0
MAX_SECONDS: Final = 60.0
"""Longest pause if the provider names none: doubled each time, until a call is answered."""
SPREAD_SECONDS: Final = 1.0
"""Spread of the callers' return after a pause, so that they do not all come at once."""

Key = tuple[str, str]
"""An account and a model of it: most providers limit each model apart."""


@dataclass(frozen=True, slots=True)
class _Pause:
    since: float
    until: float
    reason: str


class Pauses:
    """Pauses of models as this process knows them."""

    def __init__(self) -> None:
        self._pauses: dict[Key, _Pause] = {}
        self._levels: dict[Key, int] = {}

    @property
    def any(self) -> bool:
        self._forget()
        return bool(self._pauses)

    def refusal(self, account: str, model: str) -> ProviderError | None:
        """Return why the model must not be asked now; None if it may."""
        pause = self._pauses.get((account, model))
        left = pause.until - asyncio.get_running_loop().time() if pause else 0.0
        return _paused(model, left, pause.reason) if pause and left > 0 else None

    async def wait(self, account: str, model: str, until: float) -> None:
        """Until the model is not paused; raises ProviderError where that is too late."""
        loop = asyncio.get_running_loop()
        while refusal := self.refusal(account, model):
            pause = self._pauses[account, model]
            if pause.until > until:
                raise refusal
            ends = pause.until + random.uniform(0, SPREAD_SECONDS)
            await asyncio.sleep(min(ends, until) - loop.time())

    def begin(self, account: str, model: str, asked: float | None, began: float, reason: str) -> float | None:
        """A call that began then was told to wait: for how long all do now; None where they do already.

        Calls that were under way when the pause began say nothing new by being refused, too.
        """
        key, now = (account, model), asyncio.get_running_loop().time()
        pause = self._pauses.get(key)
        if asked is None:
            if pause and began < pause.since:
                return None
            level = self._levels[key] = min(self._levels.get(key, -1) + 1, 10)
            seconds = min(FIRST_SECONDS * (1 << level), MAX_SECONDS)
        else:
            seconds = min(asked, MAX_PROPOSED_WAIT_SECONDS)
        if seconds <= 0 or (pause and pause.until >= now + seconds):
            return None
        self._pauses[key] = _Pause(now, now + seconds, reason)
        return seconds

    def answered(self, account: str, model: str) -> None:
        self._levels.pop((account, model), None)

    def learn(self, found: Collection[ProviderPause]) -> list[Key]:
        """Take over the pauses that other workers recorded; return the paused models."""
        now = asyncio.get_running_loop().time()
        for one in found:
            known = self._pauses.get((one.account, one.model))
            if known is None or known.until < now + one.seconds:
                since = known.since if known and known.until > now else now
                self._pauses[one.account, one.model] = _Pause(since, now + one.seconds, one.reason)
        self._forget()
        return list(self._pauses)

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        # Kept for a little: calls that were under way may still be refused.
        for key in [key for key, pause in self._pauses.items() if pause.until + 1 < now]:
            del self._pauses[key]


def _paused(model: str, seconds: float, reason: str) -> ProviderError:
    message = (
        f"the provider of {model} asked for a pause of its calls, {seconds:.1f} s of which are left "
        f"({reason}); name another model in the agent's `fallback`, or let the step try again"
    )
    return ProviderError(
        "provider_rate_limited", message, retryable=True, retry_after_seconds=round(seconds, 3)
    )
