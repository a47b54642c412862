"""Clean text and values that others wrote: models, providers, tools, web servers, clients.

docs/foreign.md has the rules, which hold for writers and readers alike.
"""

import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Levels of nesting. Everything behind this door may walk a value by recursion."""
MAX_DIGITS: Final = 30
"""Longest integer."""
MAX_CODE_CHARS: Final = 200
"""Longest error code of a user's activity."""
_TOO_LARGE: Final = 10**MAX_DIGITS

_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return the text as Postgres, JSON and UTF-8 can hold it.

    The two halves of a surrogate pair become the one character that they mean, a half that stands alone
    becomes U+FFFD, and U+0000 is left out.
    """
    if not _UNCLEAN.search(text):
        return text
    return text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class UnusableValue(ValueError):
    """A value that JSON, Postgres or a reader cannot hold."""


def clean_value(value: Any) -> Any:
    """Return a JSON value with clean texts.

    Raises UnusableValue for NaN and Infinity, integers of more than 30 digits, more than 100 levels of
    nesting, and what is no JSON.
    """
    return _clean(value, 0)


def _clean(value: Any, level: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (dict, list)):
        if level == MAX_DEPTH:
            raise too_deep()
        if isinstance(value, list):
            return [_clean(item, level + 1) for item in value]
        return {_clean(key, level): _clean(item, level + 1) for key, item in value.items()}
    return _checked(value)


def _checked(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= _TOO_LARGE:
            raise UnusableValue(f"found an integer of more than {MAX_DIGITS} digits; write it as text")
        return value
    if not isinstance(value, float):
        raise UnusableValue(f"found a value of the type {type(value).__name__}; expected JSON")
    if not math.isfinite(value):
        raise UnusableValue(f"found {value} in a value; expected finite numbers, as JSON has")
    return value


def readable(value: Any) -> Any:
    """Return a stored value as every reader bears it: where an older release let more than 100 levels in,
    what lies deeper is `"…"`."""
    return _cut(value, 0) if is_deep(value) else value


def _cut(value: Any, level: int) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    if level == MAX_DEPTH:
        return "…"
    if isinstance(value, list):
        return [_cut(item, level + 1) for item in value]
    return {key: _cut(item, level + 1) for key, item in value.items()}


def is_deep(value: Any) -> bool:
    """Return whether a value has more levels than may be; without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [part for part in level if isinstance(part, (dict, list))]
        if not level:
            return False
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return True


def too_deep() -> UnusableValue:
    return UnusableValue(f"found more than {MAX_DEPTH} levels of nesting; expected at most {MAX_DEPTH}")
