"""The one door for JSON that others wrote: answers of models, providers and web servers, events, files.

Uploads have a stricter door of their own, `schema.language.document`, which names every fault with its place.
"""

import json
import math
from typing import Any, Final, NoReturn

from schema.values.foreign import MAX_DEPTH, MAX_DIGITS, is_deep, too_deep


class NotJson(ValueError):
    """The text is not JSON."""


class UnusableJson(NotJson):
    """It reads like JSON, and holds what JSON or a database cannot: NaN, a number out of range, or more
    levels than anybody can walk."""


def read_json(data: str | bytes | bytearray) -> Any:
    """The value that a JSON text holds. Raises NotJson, which is a ValueError, and nothing else."""
    try:
        text = data if isinstance(data, str) else bytes(data).decode("utf-8-sig")
        value = _DECODER.decode(text)
    except UnusableJson:
        raise
    except RecursionError:
        raise UnusableJson(str(too_deep())) from None
    except ValueError as error:
        # Python's own words quote nothing but positions; those of other errors might quote the text.
        place = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise NotJson(place or "the text is not UTF-8, or holds a number of too many digits") from None
    # Whatever has few brackets cannot be deep, and most texts have few.
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        raise UnusableJson(str(too_deep()))
    return value


def first_json(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at `start` of a text, and where it ends. Raises NotJson."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except UnusableJson:
        raise
    except RecursionError:
        raise UnusableJson(str(too_deep())) from None
    except ValueError:
        raise NotJson(f"no value begins at character {start}") from None
    if is_deep(value):
        raise UnusableJson(str(too_deep()))
    return value, end


def _refuse(constant: str) -> NoReturn:
    raise UnusableJson(f"found {constant}; expected a finite number: JSON has no {constant}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnusableJson(f"found the number {text[:40]}; expected a finite number")
    return value


def _integer(text: str) -> int:
    if len(text.removeprefix("-")) > MAX_DIGITS:
        raise UnusableJson(f"found an integer of more than {MAX_DIGITS} digits; expected it as text")
    return int(text)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
