"""How long a provider wants us to wait, in whichever of the ways it says so."""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Final

NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,9})?")
# OpenAI's: 6m0s, 120ms, 1h2m3.5s.
PARTS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s|d)")
UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
# Nobody waits 30 years: a number beyond is the moment itself, in seconds since 1970, or milliseconds.
LEAST_MOMENT: Final = 1e9
LEAST_MOMENT_MS: Final = 1e12


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """None where nothing was said that can be understood. Names of headers are compared as they stand:
    give a mapping that does not mind their case."""
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    if milliseconds and NUMBER.fullmatch(milliseconds.strip()):
        return float(milliseconds) / 1000
    if seconds:
        return _seconds(seconds.strip())
    return _until_reset(headers)


def _seconds(value: str) -> float | None:
    if NUMBER.fullmatch(value):
        return float(value)
    parsed = email.utils.parsedate_tz(value)
    return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Of the limits that are used up; of all of them where none says that it is."""
    resets: list[tuple[bool, float]] = []
    for suffix in ("", "-requests", "-tokens"):
        value = headers.get(f"x-ratelimit-reset{suffix}")
        seconds = None if value is None else _reset_seconds(value.strip())
        if seconds is not None:
            used_up = (headers.get(f"x-ratelimit-remaining{suffix}") or "").strip() == "0"
            resets.append((used_up, seconds))
    if not resets:
        return None
    return max(seconds for used_up, seconds in resets if used_up == any(used for used, _ in resets))


def _reset_seconds(value: str) -> float | None:
    if NUMBER.fullmatch(value):
        number = float(value)
        if number >= LEAST_MOMENT_MS:
            return max(0.0, number / 1000 - time.time())
        return max(0.0, number - time.time()) if number >= LEAST_MOMENT else number
    parts = PARTS.findall(value)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != value:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)
