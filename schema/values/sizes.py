"""Measure a JSON value without holding the process: it may be shared a thousand times."""

from collections.abc import Iterator
from typing import Any, Final

from schema.errors import StepError
from schema.values.foreign import MAX_DEPTH, too_deep

MAX_VALUES: Final = 200_000
"""JSON values in what a step makes, takes or promises: what everything done with them costs."""
MAX_EXACT: Final = 2**53
"""Up to here every integer is a double, too."""
MAX_CHARS: Final = 16 * 1024 * 1024


def levels(value: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield the values at each depth with the characters of their texts and of the keys they stand under.

    The last of them is not complete where there are more than MAX_VALUES.
    """
    level, keys = [value], 0
    while level or keys:
        deeper: list[Any] = []
        chars, keys = keys, 0
        for item in level:
            kind = type(item)
            if kind is str:
                chars += len(item)
            elif kind is list:
                deeper += item
            elif kind is dict:
                deeper += item.values()
                keys += sum(map(len, item))
            if len(deeper) > MAX_VALUES:
                yield level, chars
                yield deeper, keys
                return
        yield level, chars
        level = deeper


def check_size(value: Any) -> None:
    """Raise StepError for more than Postgres, readers and workers should hold: output_too_large, and
    output_invalid for more levels than they can walk."""
    if isinstance(value, (bool, int, float)) or value is None:
        return
    values = chars = 0
    for depth, (level, more) in enumerate(levels(value)):
        if depth >= MAX_DEPTH and any(isinstance(item, (dict, list)) for item in level):
            raise StepError("output_invalid", f"{too_deep()}.")
        values, chars = values + len(level), chars + more
        if values > MAX_VALUES:
            raise _too_large(f"more than {MAX_VALUES:,} JSON values", f"at most {MAX_VALUES:,}")
        if chars > MAX_CHARS:
            raise _too_large(f"more than {MAX_CHARS:,} characters", f"at most {MAX_CHARS:,}")


def _too_large(found: str, expected: str) -> StepError:
    return StepError(
        "output_too_large",
        f"found a value of {found}; expected {expected}. Let the step take or return a reference to where "
        "the data is.",
    )
