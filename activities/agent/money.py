"""Money around a call: booked and reserved before it is made, and closed with its actual cost."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.runs.context import definition_of, run_of
from activities.upkeep.reconcile import Reconciler
from db.engine import statement, transaction
from db.money import ledger
from db.money.ledger import Booking, PriceMissing, Tokens
from db.money.spending import BudgetBusy, BudgetExceeded, to_usd
from db.runs.executions import Assignment, AttemptOutcome
from gateway.client import Gateway
from gateway.prices import FREE, Price, at_hand, general_price, price_missing
from gateway.request import Completion, ModelRequest
from schema.cel.expressions import Json
from schema.errors import ProviderError
from schema.language.steps import AgentStep
from schema.temporal.steps import StepRequest

DEFAULT_MAX_OUTPUT_TOKENS: Final = 4_096
"""Output limit of an agent within a limit whose definition sets none: a bound needs an end."""
FIRST_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 2.0
USAGE_TIMEOUT_SECONDS: Final = 3.0
"""Longest time for a provider to report a cut answer's usage, before the schedule asks it."""


@dataclass(frozen=True)
class Purse:
    """The budget that the calls of one step are paid from."""

    engine: AsyncEngine
    gateway: Gateway
    reconciler: Reconciler
    step: AgentStep
    purpose: str = "step"
    """The purpose as the ledger names it."""

    async def open(
        self,
        execution: UUID,
        request: StepRequest,
        worker: Assignment,
        asked: ModelRequest,
        busy_until: float,
    ) -> ModelRequest:
        """Book a call and reserve its worst case where a limit holds for it. The request comes back with its
        name, its price, and the model that can be paid.

        While only the worst cases of other calls are in the way it waits for them, until the loop's time
        `busy_until`. Raises BudgetExceeded, BudgetBusy, or ProviderError("price_missing").
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._open_or_degrade(execution, request, worker, asked)
            except BudgetBusy as error:
                if asyncio.get_running_loop().time() + pause > busy_until:
                    raise
                # Perhaps it is only the calls of workers that died.
                await self.reconciler.free(request.tenant, error.standing)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _open_or_degrade(
        self, execution: UUID, request: StepRequest, worker: Assignment, asked: ModelRequest
    ) -> ModelRequest:
        try:
            return await self._open(execution, request, worker, asked)
        except BudgetExceeded as error:
            cheaper = await self._cheaper_model(error)
            if cheaper is None or cheaper == asked.model:
                raise
        return await self._open(execution, request, worker, replace(asked, model=cheaper))

    async def _open(
        self, execution: UUID, request: StepRequest, worker: Assignment, asked: ModelRequest
    ) -> ModelRequest:
        destination = self.gateway.destination(asked.model, asked.providers, asked.tenant)
        most = asked.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS
        worst = self.gateway.worst_case(replace(asked, max_output_tokens=most, price=FREE))
        priced = (
            general_price(destination.model)
            if at_hand(destination.model)
            else await asyncio.to_thread(general_price, destination.model)
        )
        budget = self.step.budget
        call = Booking(
            id=uuid4(),
            tenant=request.tenant,
            account=destination.account,
            provider=destination.provider,
            model=asked.model,
            priced_model=destination.model,
            simulated=destination.simulated,
            most_input_tokens=worst.tokens - most,
            most_output_tokens=most,
            seconds=asked.timeouts.total,
            purpose=self.purpose,
            run=UUID(request.collaboration),
            execution=execution,
            path=request.path,
            agent_name=worker.agent,
            step=f"{request.collaboration}/{request.step}",
            step_usd=to_usd(budget.usd) if budget else None,
            step_tokens=budget.tokens if budget else None,
            price_source=priced.source if priced else None,
            input_usd=priced.price.input_usd if priced else None,
            output_usd=priced.price.output_usd if priced else None,
            cached_input_usd=priced.price.cached_input_usd if priced else None,
        )
        try:
            async with statement(self.engine) as connection:
                opened = await ledger.open(connection, call)
        except PriceMissing:
            raise price_missing(destination.model) from None
        price = Price(opened.input_usd, opened.output_usd, opened.cached_input_usd)
        limit = most if opened.bounded else asked.max_output_tokens
        return replace(asked, call_id=str(call.id), price=price, max_output_tokens=limit)

    async def _cheaper_model(self, error: BudgetExceeded) -> str | None:
        """The model that the owner of an exceeded budget would rather go on with."""
        if error.collaboration is None:
            return None
        async with transaction(self.engine) as connection:
            found = await definition_of(connection, await run_of(connection, str(error.collaboration)))
        budget = found.definition.budget
        return budget.degrade_to if budget and budget.on_exceed == "degrade" else None

    async def ask_after(self, bill: "Bill", error: ProviderError) -> None:
        """Ask the provider at once what a call cost that broke off, if it can be asked."""
        asked = bill.asked
        destination = self.gateway.destination(asked.model, asked.providers, asked.tenant)
        if bill.count(error):
            bill.provider, bill.simulated = destination.provider, destination.simulated
        if bill.counted or bill.completion or not error.billed or not destination.can_be_asked:
            return
        try:
            async with asyncio.timeout(USAGE_TIMEOUT_SECONDS):
                usage = await self.gateway.billed(destination, asked.call_id, error.response_id)
        except (ProviderError, TimeoutError):
            return
        if usage:
            bill.counted = Tokens(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
            bill.provider, bill.simulated = destination.provider, destination.simulated


def outcome_of(output: Json, completion: Completion) -> AttemptOutcome:
    """Return the outcome of an attempt whose call is complete."""
    return AttemptOutcome(
        output=output,
        model=completion.model,
        provider=completion.provider,
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        cost_usd=completion.cost_usd,
        first_token_ms=completion.first_token_ms,
        simulated=completion.simulated,
        finish_reason=completion.finish_reason,
    )


@dataclass
class Bill:
    """One call, from its booking until its cost is known."""

    asked: ModelRequest
    """The request as it was booked."""
    sent: bool = False
    completion: Completion | None = None
    counted: Tokens | None = None
    """Usage that the provider reported for a failed call."""
    basis: Literal["usage", "asked"] = "asked"
    """Whether it was reported with the failure or asked for afterwards."""
    provider: str = ""
    simulated: bool = False

    @property
    def call(self) -> UUID:
        return UUID(self.asked.call_id)

    def paid(self) -> AttemptOutcome | None:
        """Return the cost of the attempt for its row, as far as it is known."""
        if done := self.completion:
            return outcome_of(None, done)
        price = self.asked.price
        if self.counted is None or price is None:
            return None
        counted = self.counted
        usd = price.cost_usd(counted.input_tokens, counted.output_tokens, counted.cached_input_tokens)
        return AttemptOutcome(
            None,
            self.asked.model,
            self.provider,
            counted.input_tokens,
            counted.output_tokens,
            usd,
            simulated=self.simulated,
        )

    def count(self, error: BaseException | None) -> bool:
        """Note what the provider had counted before the call failed; returns whether it had."""
        if not isinstance(error, ProviderError) or error.tokens is None:
            return False
        self.counted, self.basis = Tokens(*error.tokens), "usage"
        return True

    async def close(self, connection: AsyncConnection, error: BaseException | None = None) -> None:
        """Book the call's cost, in the transaction that closes its attempt, and last in it."""
        self.count(error)
        if self.completion:
            await ledger.settle(connection, self.call, self.completion)
        elif (paid := self.paid()) and self.counted:
            code, name = getattr(error, "code", None), getattr(error, "response_id", "")
            await ledger.settle_later(
                connection,
                self.call,
                self.basis,
                self.counted,
                paid.cost_usd,
                error_code=code,
                response_id=name or None,
            )
        elif not self.sent:
            await ledger.refund(connection, self.call, "not_sent")
        else:
            assert error is not None
            await ledger.fail(connection, self.call, error)
