"""Limits of providers on the platform's own keys, as the operator wrote them down."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_ENTRY: Final = re.compile(r"([a-z0-9][a-z0-9._-]*)=(\d{0,12})/(\d{0,12})")


class ProviderLimits(NamedTuple):
    """None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def and_those(self, other: "ProviderLimits") -> "ProviderLimits":
        """The narrower of both."""
        return ProviderLimits(
            *(min((n for n in pair if n), default=None) for pair in zip(self, other, strict=True))
        )


NO_LIMITS: Final = ProviderLimits()


def limits_in(text: str) -> Mapping[str, ProviderLimits]:
    """Limits by provider, from `openai=500/200000,anthropic=50/`; raises ValueError."""
    found: dict[str, ProviderLimits] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        read = _ENTRY.fullmatch(entry)
        numbers = [int(number) if number else None for number in read.groups()[1:]] if read else []
        if read is None or 0 in numbers or read[1] in found:
            raise ValueError(
                f"FACILITAIR_PROVIDER_LIMITS: found {entry[:80]!r}; expected each provider once as "
                "name=requests/tokens a minute, numbers from 1 or nothing for no limit, for example "
                "openai=500/200000,anthropic=50/. Correct it and start again."
            )
        found[read[1]] = ProviderLimits(*numbers)
    return found
