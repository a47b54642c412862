"""Calls of models outside of runs: booked, bounded by a budget of their own, and under the same limits."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from activities.agent.money import Bill
from activities.agent.resources import Resources
from db.engine import persist, statement, transaction
from db.money import ledger
from db.money.ledger import Booking, PriceMissing
from db.money.spending import BudgetBusy, BudgetExceeded
from gateway.prices import FREE, Price, general_price, price_missing
from gateway.request import Completion, Message, ModelRequest, Timeouts
from schema.errors import Refused
from schema.language.catalogue import Catalogue

PURPOSE: Final = "optimize"
CALL_TIMEOUT_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Asker:
    """Asks for one optimisation, until its budget is used up."""

    means: Resources
    tenant: str
    catalogue: Catalogue
    actor: str
    id: str
    """Key of the budget that all attempts share."""
    budget_usd: Decimal

    async def ask(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_output_tokens: int,
    ) -> str:
        """The answer. Raises ProviderError, and Refused when the budget cannot bear the call."""
        asked = ModelRequest(
            model,
            messages,
            response_schema=schema,
            max_output_tokens=max_output_tokens,
            timeouts=Timeouts(total=CALL_TIMEOUT_SECONDS),
            tenant=self.tenant,
            providers=self.catalogue.providers,
        )
        bill = Bill(await self._opened(asked))
        try:
            bill.completion = await self._answer(bill)
        except BaseException as error:
            await self._close(bill, error)
            raise
        await self._close(bill)
        return bill.completion.text

    async def _close(self, bill: Bill, error: BaseException | None = None) -> None:
        async def once() -> None:
            async with transaction(self.means.engine) as connection:
                await bill.close(connection, error)

        await persist(once, CALL_TIMEOUT_SECONDS)

    async def _answer(self, bill: Bill) -> Completion:
        asked, means = bill.asked, self.means
        to = means.gateway.destination(asked.model, asked.providers, asked.tenant)
        tokens = means.gateway.worst_case(asked).tokens if to.tokens_per_minute is not None else 0
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_SECONDS
        # Runs, which people wait for, go before.
        async with means.traffic.passage(
            to, tokens=tokens, until=until, tenant=self.tenant, priority=5
        ) as passage:
            bill.sent = True
            async with aclosing(means.gateway.stream(asked)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        passage.used(piece.usage)
                        return piece
        raise AssertionError("the gateway's stream ends with a Completion")

    async def _opened(self, asked: ModelRequest) -> ModelRequest:
        """Booked and reserved; waits while only calls under way take up the rest of a budget."""
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_SECONDS
        while True:
            try:
                return await self._open(asked)
            except BudgetBusy:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            except BudgetExceeded as error:
                if error.standing.scope != "step":
                    raise
                raise Refused(
                    "optimization_budget_exceeded",
                    f"found that ${error.standing.spent.usd:.6f} of the budget of ${self.budget_usd} are "
                    "spent; expected room for the most that the next call can cost. Raise --budget.",
                ) from None

    async def _open(self, asked: ModelRequest) -> ModelRequest:
        gateway = self.means.gateway
        destination = gateway.destination(asked.model, asked.providers, asked.tenant)
        most = asked.max_output_tokens
        assert most is not None
        worst = gateway.worst_case(replace(asked, price=FREE))
        priced = await asyncio.to_thread(general_price, destination.model)
        call = Booking(
            id=uuid4(),
            tenant=self.tenant,
            account=destination.account,
            provider=destination.provider,
            model=asked.model,
            priced_model=destination.model,
            simulated=destination.simulated,
            most_input_tokens=worst.tokens - most,
            most_output_tokens=most,
            seconds=asked.timeouts.total,
            purpose=PURPOSE,
            requested_by=self.actor,
            step=f"{PURPOSE}/{self.id}",
            step_usd=self.budget_usd,
            price_source=priced.source if priced else None,
            input_usd=priced.price.input_usd if priced else None,
            output_usd=priced.price.output_usd if priced else None,
            cached_input_usd=priced.price.cached_input_usd if priced else None,
        )
        try:
            async with statement(self.means.engine) as connection:
                opened = await ledger.open(connection, call)
        except PriceMissing:
            raise price_missing(destination.model) from None
        price = Price(opened.input_usd, opened.output_usd, opened.cached_input_usd)
        return replace(asked, call_id=str(call.id), price=price)
