"""Read how long a provider wants us to wait, in any of the forms it uses."""

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from schema.errors import MAX_PROPOSED_WAIT_SECONDS

NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,9})?")
# OpenAI's: 6m0s, 120ms, 1h2m3.5s.
PARTS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s|d)")
UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
# Nobody waits 30 years: a number beyond is the moment itself, in seconds since 1970, or milliseconds.
MIN_MOMENT: Final = 1e9
MIN_MOMENT_MS: Final = 1e12


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return what is asked for, at most MAX_PROPOSED_WAIT_SECONDS; None where nothing was said that can be
    understood. Names of headers are compared as they stand: give a mapping that does not mind their case."""
    asked = _asked(headers)
    return None if asked is None else min(asked, MAX_PROPOSED_WAIT_SECONDS)


def _asked(headers: Mapping[str, str]) -> float | None:
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    if milliseconds and NUMBER.fullmatch(milliseconds.strip()):
        number = float(milliseconds)
        return _until(number / 1000) if number >= MIN_MOMENT_MS else number / 1000
    return _seconds(seconds.strip()) if seconds else _until_reset(headers)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the exhausted limits reset; until all of them do if none says that it is
    exhausted."""
    resets: list[tuple[bool, float]] = []
    for suffix in ("", "-requests", "-tokens"):
        value = headers.get(f"x-ratelimit-reset{suffix}")
        seconds = None if value is None else _seconds(value.strip())
        if seconds is not None:
            used_up = (headers.get(f"x-ratelimit-remaining{suffix}") or "").strip() == "0"
            resets.append((used_up, seconds))
    if not resets:
        return None
    return max(seconds for used_up, seconds in resets if used_up == any(used for used, _ in resets))


def _seconds(value: str) -> float | None:
    """A number of seconds, a moment as a number, parts of a time, or a moment as a date."""
    if NUMBER.fullmatch(value):
        number = float(value)
        if number >= MIN_MOMENT_MS:
            return _until(number / 1000)
        return _until(number) if number >= MIN_MOMENT else number
    parts = PARTS.findall(value)
    if parts and "".join(f"{number}{unit}" for number, unit in parts) == value:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    return _until_date(value)


def _until_date(value: str) -> float | None:
    try:
        if parsed := email.utils.parsedate_tz(value):
            return _until(email.utils.mktime_tz(parsed))
        moment = datetime.fromisoformat(value)
        return _until((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def _until(moment: float) -> float:
    return max(0.0, moment - time.time())
