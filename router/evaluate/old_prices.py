"""Public list prices of models of 2023 and 2024 that price tables of today have dropped, for old pools.

From the providers' price pages of the models' time; hosted open models as RouterBench's paper has them
(arXiv 2403.12031). Written down 2026-11-21 from memory of those pages, which are gone; nothing that is served
today is priced by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from router.statistics.choose import PricePair

POOL_PRICES: Final[Mapping[str, PricePair]] = {
    "claude-2": (8, 24), "claude-2.0": (8, 24), "claude-2.1": (8, 24), "claude-v1": (8, 24),
    "claude-v2": (8, 24),
    "claude-instant": (0.8, 2.4), "claude-3-haiku": (0.25, 1.25), "claude-3-sonnet": (3, 15),
    "claude-3-opus": (15, 75), "claude-3-5-sonnet": (3, 15), "claude-3.5-sonnet": (3, 15),
    "claude-3-5-haiku": (0.8, 4), "claude-3.5-haiku": (0.8, 4),
    "command-r": (0.5, 1.5), "command-r-plus": (3, 15),
    "gemini-1.0-pro": (0.5, 1.5), "gemini-pro": (0.5, 1.5), "gemini-1.5-flash": (0.35, 1.05),
    "gemini-1.5-pro": (3.5, 10.5),
    "gpt-3.5-turbo": (0.5, 1.5), "gpt-3.5-turbo-0613": (1.5, 2), "gpt-3.5-turbo-1106": (1, 2),
    "gpt-4": (30, 60), "gpt-4-32k": (60, 120), "gpt-4-turbo": (10, 30), "gpt-4-1106-preview": (10, 30),
    "gpt-4-0125-preview": (10, 30), "gpt-4o": (5, 15), "gpt-4o-2024-08-06": (2.5, 10),
    "gpt-4o-2024-11-20": (2.5, 10),
    "gpt-4o-mini": (0.15, 0.6), "o1-mini": (3, 12), "o1-preview": (15, 60), "o1": (15, 60),
    "mistral-tiny": (0.25, 0.25), "mistral-small": (1, 3), "mistral-small-2409": (0.2, 0.6),
    "mistral-medium": (2.7, 8.1), "mistral-large": (4, 12), "mistral-large-2407": (2, 6),
    "open-mistral-nemo": (0.15, 0.15), "open-mistral-7b": (0.25, 0.25), "open-mixtral-8x7b": (0.7, 0.7),
    "open-mixtral-8x22b": (2, 6), "yi-large": (3, 3), "firefunction-v1": (0.5, 0.5),
    "firefunction-v2": (0.9, 0.9),
    "dbrx-instruct": (2.25, 6.75),
    "mistral-7b-chat": (0.2, 0.2), "mixtral-8x7b-chat": (0.6, 0.6), "llama-2-70b-chat": (0.9, 0.9),
    "code-llama-instruct-34b-chat": (0.776, 0.776), "yi-34b-chat": (0.8, 0.8),
    "wizardlm-13b-v1.2": (0.3, 0.3),
}  # fmt: skip
"""US dollars for a million tokens in and out."""


def price_of(
    model: str,
    prices: Mapping[str, PricePair] = POOL_PRICES,
    listed: Callable[[str], PricePair | None] | None = None,
) -> PricePair | None:
    """By the longest name that a pool's name begins with, at a dash: `gpt-4-0613-FC` is `gpt-4`.

    A mode such as `-FC-Any` and a host such as `mistralai/` are no part of the name. `listed`: asked for
    what the table does not have, as models of later years. None: not known, never 0."""
    plain = re.sub(r"[ -]*\(?FC\)?(-[A-Za-z]+)?$", "", model).lower().rpartition("/")[2]
    names = {name.lower().rpartition("/")[2]: price for name, price in prices.items()}
    for name in (plain, plain.partition("_")[2]):
        while name:
            price = names.get(name) or (listed(name) if listed else None)
            if price is not None:
                return price
            name = name.rpartition("-")[0]
    return None
