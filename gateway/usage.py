"""Read a provider's token counts in any of the forms it uses."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.request import Usage

MAX_TOKENS: Final = 20_000_000
"""A larger figure is no count: no model reads or writes so much, and no row could hold its cost."""

_INPUT: Final = (
    "prompt_tokens",
    "promptTokenCount",
    "prompt_eval_count",
    "input_token_count",
    "tokens_evaluated",
)
"""With what was cached."""
_FRESH_INPUT: Final = ("input_tokens", "inputTokens", "prompt_n")
"""Without what was cached, where that is told beside it (Anthropic, Bedrock, llama.cpp)."""
_CACHED_BESIDE: Final = ("cache_read_input_tokens", "cacheReadInputTokens", "cache_n")
_WRITTEN_BESIDE: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_CACHED_WITHIN: Final = (
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "cachedContentTokenCount",
    "num_cached_tokens",
)
_OUTPUT: Final = (
    "completion_tokens",
    "output_tokens",
    "candidatesTokenCount",
    "outputTokens",
    "eval_count",
    "generated_token_count",
    "tokens_predicted",
    "predicted_n",
)
_REASONING: Final = ("reasoning_tokens", "thoughtsTokenCount")
_TOTAL: Final = ("total_tokens", "totalTokenCount", "totalTokens")
_INPUT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS: Final = ("completion_tokens_details", "output_tokens_details")


@dataclass(frozen=True, slots=True)
class UsageCount:
    """Counts reported so far; None where unknown. Zeros count as unknown: no prompt is empty."""

    input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    total: int | None = None
    cached: int | None = None

    def __or__(self, other: "UsageCount") -> "UsageCount":
        """The larger of each: figures grow while an answer goes on, and some servers end with zeros."""
        return UsageCount(
            _larger(self.input, other.input),
            _larger(self.output, other.output),
            _larger(self.reasoning, other.reasoning),
            _larger(self.total, other.total),
            _larger(self.cached, other.cached),
        )

    @property
    def complete(self) -> bool:
        """Tell whether input and output are both known."""
        return bool(self.input) and self.output is not None

    def usage(self, input_guess: int, output_guess: int) -> Usage:
        """Return what is to be booked; the guesses stand in for what was never told."""
        into, out, total, assumed = self.input or None, self.output or None, self.total or 0, False
        if into is None and out and total > out:
            into = total - out
        if into is None:
            into, assumed = min(input_guess, max(total - output_guess, 1) if total else input_guess), True
        if out is None:
            out = max(total - into, 0) or output_guess
            assumed |= total <= into and output_guess > 0
        booked, contradictory = self._output(into, out)
        return Usage(into, booked, min(self.cached or 0, into), assumed, contradictory)

    def _output(self, into: int, out: int) -> tuple[int, bool]:
        """The output that is billed, reasoning with it, and whether the figures contradict each other."""
        reasoning, rest = self.reasoning or 0, (self.total - into) if self.total else None
        # More reasoning than output cannot be a part of it.
        beside = out + reasoning if reasoning > out else out
        if rest is None or rest == beside:
            return beside, False
        if rest == out + reasoning:
            return rest, False
        return max(rest, beside), True


NO_FIGURES: Final = UsageCount()
_PLACES: Final = frozenset(("usage", "usageMetadata", "x_groq", "timings"))


def figures_in(event: Mapping[str, Any]) -> UsageCount | None:
    """Return what an event, or a whole answer, tells of its tokens; None where it tells nothing."""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    # Most events tell nothing, and there is one for every token.
    if _PLACES.isdisjoint(event) and not _inside(first, "usage"):
        return None
    places = (
        event.get("usage"),
        event.get("usageMetadata"),
        _inside(event.get("x_groq"), "usage"),
        # Moonshot's.
        _inside(first, "usage"),
    )
    found = [_figures(told) for place in places if place for told in _mappings(place)]
    if not found and isinstance(timings := event.get("timings"), Mapping):
        # llama.cpp's, where nobody asked it for more.
        found = [_figures(timings)]
    return functools.reduce(UsageCount.__or__, found) if found else None


def _mappings(place: object) -> list[Mapping[str, Any]]:
    return [one for one in (place if isinstance(place, list) else [place]) if isinstance(one, Mapping)]


def _figures(told: Mapping[str, Any]) -> UsageCount:
    # Cohere's: what is billed, and all tokens beside it.
    for inner in ("billed_units", "tokens"):
        if isinstance(told.get(inner), Mapping):
            told = told[inner]
            break
    into, cached = _first(told, _INPUT), _cached(told)
    if into is None and (fresh := _first(told, _FRESH_INPUT)) is not None:
        into = fresh + (_first(told, _CACHED_BESIDE) or 0) + (_first(told, _WRITTEN_BESIDE) or 0)
    out, reasoning = _first(told, _OUTPUT), _first(told, _REASONING)
    if reasoning is None:
        reasoning = _detail(told, _OUTPUT_DETAILS, _REASONING)
    return UsageCount(into, out, reasoning, _first(told, _TOTAL), cached)


def _cached(told: Mapping[str, Any]) -> int | None:
    found = (
        _detail(told, _INPUT_DETAILS, _CACHED_WITHIN),
        _first(told, _CACHED_WITHIN),
        _first(told, _CACHED_BESIDE),
    )
    return next((count for count in found if count), None)


def _detail(told: Mapping[str, Any], places: tuple[str, ...], names: tuple[str, ...]) -> int | None:
    found = (_first(one, names) for place in places for one in _mappings(told.get(place)))
    return next((count for count in found if count is not None), None)


def _first(told: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(told.get(name))) is not None), None)


def _count(value: object) -> int | None:
    """A count of tokens: some servers write 12.0, and some "12"."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return math.ceil(value) if 0 <= value <= MAX_TOKENS else None


def _larger(one: int | None, other: int | None) -> int | None:
    return max((count for count in (one, other) if count is not None), default=None)


def _inside(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None
