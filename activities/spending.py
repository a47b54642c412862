"""Money before a call: its worst case is reserved, or a cheaper model asked, or the call refused."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.context import definition_of, run_of
from db import budgets
from db.budgets import Amount, BudgetBusy, BudgetExceeded
from db.engine import transaction
from gateway.client import Gateway, ModelRequest

DEFAULT_MAX_OUTPUT_TOKENS: Final = 4_096
"""Where an agent within a budget must stop when its definition says nothing: a bound needs an end."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Purse:
    """The budgets that one run's calls are paid from."""

    engine: AsyncEngine
    gateway: Gateway
    run: UUID

    async def reserve(self, execution: UUID, asked: ModelRequest, busy_until: float) -> ModelRequest:
        """Reserve the worst case of a call; the request comes back with the model that can be paid.

        While only the worst cases of other calls are in the way it waits for them, until the loop's time
        `busy_until`. Raises BudgetExceeded, BudgetBusy, or ProviderError("price_missing").
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._reserve_or_degrade(execution, asked)
            except BudgetBusy:
                if asyncio.get_running_loop().time() + pause > busy_until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _reserve_or_degrade(self, execution: UUID, asked: ModelRequest) -> ModelRequest:
        try:
            await self._reserve(execution, asked)
        except BudgetExceeded as error:
            cheaper = await self._cheaper_model(error.collaboration)
            if cheaper is None or cheaper == asked.model:
                raise
            asked = replace(asked, model=cheaper)
            await self._reserve(execution, asked)
        return asked

    async def _reserve(self, execution: UUID, asked: ModelRequest) -> None:
        # In a thread: prices that are not in our own table are litellm's, and its import takes seconds.
        worst = await asyncio.to_thread(self.gateway.worst_case, asked)
        async with transaction(self.engine) as connection:
            await budgets.reserve(connection, self.run, execution, Amount(worst.usd, worst.tokens))

    async def _cheaper_model(self, owner: UUID) -> str | None:
        """The model that the owner of an exceeded budget would rather go on with."""
        async with transaction(self.engine) as connection:
            found = await definition_of(connection, await run_of(connection, str(owner)))
        budget = found.definition.budget
        return budget.degrade_to if budget and budget.on_exceed == "degrade" else None
