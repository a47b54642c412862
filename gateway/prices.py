"""What models cost. Ours first, small and dated; for other models the map that litellm ships."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

MICRO_DOLLAR: Final = Decimal("0.000001")
PER_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens in and out."""

    input_usd: Decimal
    output_usd: Decimal

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal:
        """The cost of a call, to the micro-dollar."""
        exact = (input_tokens * self.input_usd + output_tokens * self.output_usd) / PER_TOKENS
        return exact.quantize(MICRO_DOLLAR, rounding=ROUND_HALF_UP)


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


def price_in_map(costs: Mapping[str, Mapping[str, object]], model: str) -> Price | None:
    """The price of a platform id in litellm's map, which names some models without their provider."""
    for name in (model, f"openrouter/{model}", model.partition("/")[2]):
        row = costs.get(name)
        if row is None:
            continue
        into, out = row.get("input_cost_per_token"), row.get("output_cost_per_token")
        if isinstance(into, int | float) and isinstance(out, int | float):
            # By way of text: 1.5e-07 as a binary fraction is not 0.15 dollars a million.
            return Price(Decimal(str(into)) * PER_TOKENS, Decimal(str(out)) * PER_TOKENS)
    return None
