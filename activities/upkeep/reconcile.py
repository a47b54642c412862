"""Resolve lost calls: ask their providers, and assume the most where they cannot tell."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.heartbeats import heartbeats
from db.definitions import catalogue
from db.engine import transaction
from db.isolation import befalls_all
from db.money import ledger, lost_calls
from db.money.ledger import Tokens
from db.money.lost_calls import LostCall
from db.money.spending import LimitState
from gateway.client import Gateway
from gateway.destinations import Destination
from gateway.prices import Price
from schema.errors import ProviderError
from schema.temporal.upkeep import ReconcilePass

GRACE_SECONDS: Final = 300.0
"""Time during which a provider that does not know a call may still come to know it."""
MAX_CONCURRENT_LOOKUPS: Final = 16
PAGE: Final = 200
IN_THE_WAY: Final = 100

End = Literal["settled", "assumed", "refunded", "left"]

_log = logging.getLogger(__name__)


class Reconciler:
    """Finds out for one process. Two that do the same do no harm: the ledger takes one of their answers."""

    def __init__(
        self, engine: AsyncEngine, gateway: Gateway, *, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._grace_seconds = grace_seconds
        self._freeing: dict[tuple[str, str, str, str], asyncio.Task[None]] = {}

    async def all_lost(self) -> ReconcilePass:
        """Look at every lost call once, the oldest first."""
        ends: Counter[End] = Counter()
        behind: LostCall | None = None
        while True:
            async with transaction(self._engine) as connection:
                page = await lost_calls.oldest(connection, PAGE, behind)
            ends += await self._close_all(page)
            if len(page) < PAGE:
                return ReconcilePass(ends["settled"], ends["assumed"], ends["refunded"], ends["left"])
            behind = page[-1]

    async def free(self, tenant: str, standing: LimitState) -> None:
        """Ask for the lost calls that hold something of a limit. Who needs it meanwhile waits with us."""
        key = (tenant, standing.scope, standing.subject, standing.period)
        if key not in self._freeing:
            task = asyncio.create_task(self._free(tenant, standing))
            self._freeing[key] = task
            task.add_done_callback(lambda _: self._freeing.pop(key))
        await asyncio.shield(self._freeing[key])

    async def _free(self, tenant: str, standing: LimitState) -> None:
        async with transaction(self._engine) as connection:
            found = await lost_calls.in_the_way(connection, tenant, standing, IN_THE_WAY)
        await self._close_all(found)

    async def _close_all(self, calls: Sequence[LostCall]) -> Counter[End]:
        slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)

        async def one(call: LostCall) -> End:
            async with slots:
                try:
                    return await self._close(call)
                except Exception as error:
                    if befalls_all(error):
                        raise
                    _log.error("Lost call could not be closed", exc_info=error, extra={"call": str(call.id)})
                    return "left"

        return Counter(await asyncio.gather(*map(one, calls)))

    async def _close(self, call: LostCall) -> End:
        destination = await self._destination(call)
        if destination:
            try:
                usage = await self._gateway.billed(destination, str(call.id), call.response_id or "")
            except ProviderError:
                return "left"
            if usage:
                counted = Tokens(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
                return await self._settle(call, counted)
            if call.overdue_seconds < self._grace_seconds:
                return "left"
        elif not call.given_up and call.overdue_seconds < 0:
            # Its worker may be alive, and knows better.
            return "left"
        async with transaction(self._engine) as connection:
            await lost_calls.take(connection, call)
            said = await lost_calls.bytes_said(connection, call)
            if destination and not said and not call.response_id:
                return "refunded" if await ledger.refund_lost(connection, call.id) else "left"
            return await self._assume(connection, call, said)

    async def _destination(self, call: LostCall) -> Destination | None:
        """Return the provider that can be asked about the call; None if there is none."""
        async with transaction(self._engine) as connection:
            own = (await catalogue.of_tenant(connection, call.tenant)).providers
        try:
            found = self._gateway.destination(call.model, own, call.tenant)
        except ProviderError:
            return None
        named = call.response_id or found.simulated
        return found if named and found.can_be_asked and found.account == call.account else None

    async def _settle(self, call: LostCall, counted: Tokens) -> End:
        price = Price(call.input_price_usd, call.output_price_usd, call.cached_input_price_usd)
        usd = price.cost_usd(counted.input_tokens, counted.output_tokens, counted.cached_input_tokens)
        async with transaction(self._engine) as connection:
            await lost_calls.take(connection, call)
            if not await ledger.settle_later(connection, call.id, "asked", counted, usd):
                return "left"
            await lost_calls.correct_execution(connection, call, counted, usd)
        return "settled"

    async def _assume(self, connection: AsyncConnection, call: LostCall, said: int) -> End:
        """Book the most that the call can have cost."""
        into, out = call.most_input_tokens, said
        price = Price(call.input_price_usd, call.output_price_usd, call.cached_input_price_usd)
        usd = price.cost_usd(into, out)
        if call.reserved_usd is not None and call.reserved_tokens is not None:
            out, usd = call.reserved_tokens - into, call.reserved_usd
        counted = Tokens(into, out)
        if not await ledger.settle_later(connection, call.id, "assumed", counted, usd):
            return "left"
        await lost_calls.correct_execution(connection, call, counted, usd)
        return "assumed"


class ReconcileActivity:
    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    @activity.defn(name="reconcile_calls")
    async def reconcile_calls(self) -> ReconcilePass:
        """Doing it again finds what is still open."""
        async with heartbeats():
            return await self._reconciler.all_lost()
