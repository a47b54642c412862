"""Prices as the router weighs them: a tenant's own, and what the other models cost everybody."""

import asyncio
from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from db.money import prices
from gateway.prices import at_hand, per_million
from router.statistics.choose import PricePair


async def own(connection: AsyncConnection, tenant: str) -> dict[str, PricePair]:
    """Return the tenant's own prices by model."""
    newest = await prices.newest(connection, tenant)
    return {name: (float(one.input_usd), float(one.output_usd)) for name, one in newest.items()}


async def general(models: Iterable[str]) -> dict[str, PricePair]:
    """Return list prices by model. Loading litellm's table takes a moment the first time."""
    names = list(models)
    if all(at_hand(name) for name in names):
        return _general(names)
    return await asyncio.to_thread(_general, names)


def _general(models: Sequence[str]) -> dict[str, PricePair]:
    return {name: price for name in models if (price := per_million(name)) is not None}
