"""Prices for a tenant: its own first, then those for everybody."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from api.money.models import EffectivePrice
from db.definitions import catalogue
from db.money import prices
from db.money.prices import TenantPrice
from gateway.destinations import Destinations
from gateway.prices import PER_TOKENS, Price, SourcedPrice, general_price
from schema.errors import ProviderError
from schema.language.catalogue import TenantProvider

if TYPE_CHECKING:
    from api.state import ApiState


@dataclass(frozen=True)
class PriceList:
    """Its answers may read a file: for threads."""

    tenant: str
    own: Mapping[str, TenantPrice]
    providers: Mapping[str, TenantProvider]
    destinations: Destinations

    def answering(self, model: str) -> str:
        """The model that answers for this one, and is paid: a withdrawn one's successor."""
        try:
            return self.destinations.find(model, self.providers, self.tenant).model
        except ProviderError:  # the keys may be where the workers are, and not here
            return model

    def of(self, model: str) -> SourcedPrice | None:
        asked = self.answering(model)
        if mine := self.own.get(asked):
            price = Price(mine.input_usd, mine.output_usd, mine.cached_input_usd)
            return SourcedPrice(price, prices.source(self.tenant, mine.version))
        return general_price(asked)

    def per_token(self, model: str) -> tuple[Decimal, Decimal] | None:
        """Dollars for an input token and for an output token."""
        priced = self.of(model)
        if priced is None:
            return None
        return priced.price.input_usd / PER_TOKENS, priced.price.output_usd / PER_TOKENS

    def fact(self, model: str) -> EffectivePrice:
        answers, priced = self.answering(model), self.of(model)
        if priced is None:
            return EffectivePrice(model=model, answers=answers)
        price = priced.price
        return EffectivePrice(
            model=model,
            answers=answers,
            source=priced.source,
            input_usd=float(price.input_usd),
            output_usd=float(price.output_usd),
            cached_input_usd=None if price.cached_input_usd is None else float(price.cached_input_usd),
        )


async def price_list(state: "ApiState", connection: AsyncConnection, tenant: str) -> PriceList:
    known = await catalogue.of_tenant(connection, tenant, fresh=True)
    own = await prices.newest(connection, tenant)
    return PriceList(tenant, own, known.providers, Destinations(state.settings))
