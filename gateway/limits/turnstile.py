"""Turns under limits that all workers share with providers."""

import asyncio
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.limits.rate_limiter import Caller, Gate, Permit, too_large
from gateway.limits.window import WindowPace
from gateway.provider_limits import ProviderLimits
from schema.errors import ProviderError


class Turnstile:
    """One per process."""

    def __init__(self, engine: AsyncEngine, pace: WindowPace) -> None:
        self._engine, self._pace = engine, pace
        self._gates: dict[tuple[str, ProviderLimits], Gate] = {}
        """Two who have other limits on the same account count each other's calls, and wait apart."""

    async def turn(
        self, account: str, limits: ProviderLimits, caller: Caller, *, tenant: str, priority: int
    ) -> Permit:
        """Waits; raises ProviderError where it would come too late, and Unavailable without Postgres."""
        most = limits.tokens_per_minute
        if most is not None and caller.tokens > most:
            raise too_large(caller, most)
        gate = self._gates.get((account, limits))
        if gate is None:
            gate = self._gates[account, limits] = Gate(self._engine, account, limits, self._pace)
        while True:
            turn = await gate.wait(caller, tenant, priority)
            if asyncio.get_running_loop().time() - turn.given_at <= self._pace.fresh_seconds:
                return turn
            # The process stood still, and its call would come to another of the provider's minutes.
            turn.give_back()
            caller.turn = asyncio.get_running_loop().create_future()

    def refuse(self, account: str, model: str, refusal: Callable[[str, str], ProviderError | None]) -> None:
        """Everyone who waits for the model gets an error instead of a turn."""
        for (name, _), gate in self._gates.items():
            if name == account:
                gate.refuse(model, refusal)

    async def close(self) -> None:
        for gate in self._gates.values():
            await gate.close()
