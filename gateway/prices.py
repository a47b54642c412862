"""Prices of models: a tenant's own first, then ours, small and dated, then litellm's."""

import importlib.metadata
import importlib.util
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from schema.errors import ProviderError

MICRO_DOLLAR: Final = Decimal("0.000001")
PER_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens in and out."""

    input_usd: Decimal
    output_usd: Decimal
    cached_input_usd: Decimal | None = None
    """Price of input that the provider had cached. None: as other input."""

    def cost_usd(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Decimal:
        """The cost of a call, rounded once to the micro-dollar; cached tokens are part of input_tokens."""
        cached_usd = self.input_usd if self.cached_input_usd is None else self.cached_input_usd
        fresh = input_tokens - cached_input_tokens
        exact = fresh * self.input_usd + cached_input_tokens * cached_usd + output_tokens * self.output_usd
        return (exact / PER_TOKENS).quantize(MICRO_DOLLAR, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class SourcedPrice:
    """A price, and whose it is."""

    price: Price
    source: str
    """`facilitair:2026-11-21`, `litellm:1.106.2` or `tenant:default@3`."""


def _price(input_usd: str, output_usd: str) -> Price:
    return Price(Decimal(input_usd), Decimal(output_usd))


FREE: Final = _price("0", "0")

# Recorded costs name this version; change it with every change of the table.
PRICES_VERSION: Final = "2026-11-21"
PRICES: Final[Mapping[str, Price]] = {
    "openai/gpt-4": _price("30", "60"),
    "openai/gpt-4.1": _price("2", "8"),
    "openai/gpt-4.1-mini": _price("0.4", "1.6"),
    "openai/gpt-4o": _price("2.5", "10"),
    "openai/gpt-4o-mini": _price("0.15", "0.6"),
    "deepseek/deepseek-chat": _price("0.28", "0.42"),
    "deepseek/deepseek-v4-flash": _price("0.3", "1.2"),
    "anthropic/claude-3.5-sonnet": _price("3", "15"),
    "anthropic/claude-sonnet-4-6": _price("3", "15"),
    "anthropic/claude-haiku-4-5": _price("1", "5"),
    "qwen/qwen-2.5-coder": _price("0.2", "0.2"),
    "qwen/qwen-2.5-coder-32b-instruct": _price("0.66", "1"),
}


def listed_price(model: str) -> Price | None:
    """The price of a platform id in our own table; what runs on one's own machine is free by rule."""
    if model.startswith("ollama/"):
        return FREE
    return PRICES.get(model)


def per_token(model: str) -> tuple[Decimal, Decimal] | None:
    """Dollars per input token and per output token, by our own table."""
    price = listed_price(model)
    return None if price is None else (price.input_usd / PER_TOKENS, price.output_usd / PER_TOKENS)


_READ: Final = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")


def price_in_map(costs: Mapping[str, Mapping[str, object]], model: str) -> Price | None:
    """The price of a platform id in litellm's map, which names some models without their provider."""
    for name in (model, f"openrouter/{model}", model.partition("/")[2]):
        row = costs.get(name)
        if row is None:
            continue
        into, out = _in_millions(row, "input_cost_per_token"), _in_millions(row, "output_cost_per_token")
        if into is not None and out is not None:
            return Price(into, out, _in_millions(row, "cache_read_input_token_cost"))
    return None


def _in_millions(row: Mapping[str, object], name: str) -> Decimal | None:
    value = row.get(name)
    # By way of text: 1.5e-07 as a binary fraction is not 0.15 dollars a million.
    return Decimal(str(value)) * PER_TOKENS if isinstance(value, int | float) else None


@lru_cache(maxsize=4_096)
def general_price(model: str) -> SourcedPrice | None:
    """Return a model's list price.

    The first model that is missing from our own table loads litellm's, which takes a fifth of a second: call
    it in a thread unless `at_hand`.
    """
    if price := listed_price(model):
        return SourcedPrice(price, f"facilitair:{PRICES_VERSION}")
    price = price_in_map(_litellms(), model)
    return SourcedPrice(price, f"litellm:{importlib.metadata.version('litellm')}") if price else None


def per_million(model: str) -> tuple[float, float] | None:
    """US dollars for a million tokens in and out, as `general_price` has it: to compare by, not to book."""
    priced = general_price(model)
    return (float(priced.price.input_usd), float(priced.price.output_usd)) if priced else None


def at_hand(model: str) -> bool:
    """Tell whether `general_price` answers at once."""
    return listed_price(model) is not None or _litellms.cache_info().currsize > 0


@cache
def _litellms() -> Mapping[str, Mapping[str, object]]:
    """litellm's table, read past litellm, whose import takes seconds and 165 MB."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None and spec.submodule_search_locations
    [directory] = spec.submodule_search_locations
    whole = json.loads(Path(directory, "model_prices_and_context_window_backup.json").read_bytes())
    return {name: {key: row[key] for key in _READ if key in row} for name, row in whole.items()}


def price_missing(model: str) -> ProviderError:
    """A missing price is an error, not zero."""
    return ProviderError(
        "price_missing",
        f"found no price for {model}; expected one in dollars for a million tokens. Set it with "
        f"`facilitair prices set {shlex.quote(model)} --in 0.15 --out 0.6`, with the provider's own figures.",
        retryable=False,
    )
