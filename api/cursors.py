"""Cursors of paged lists: opaque to callers, a place in a stable order to us."""

import base64
import binascii
import re
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from api.problems import BadRequest


def encode(*parts: object) -> str:
    return base64.urlsafe_b64encode("|".join(map(str, parts)).encode()).decode().rstrip("=")


def _decode(cursor: str, count: int) -> list[str]:
    try:
        parts = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("|", count - 1)
    except (binascii.Error, ValueError):
        raise _wrong(cursor) from None
    if len(parts) != count:
        raise _wrong(cursor)
    return parts


def moment_and_id(cursor: str) -> tuple[datetime, UUID]:
    moment, id = _decode(cursor, 2)
    try:
        return datetime.fromisoformat(moment), UUID(id)
    except ValueError:
        raise _wrong(cursor) from None


def two_numbers(cursor: str) -> tuple[int, int]:
    first, second = _decode(cursor, 2)
    # At most 18 digits: they must fit the database's 64 bits.
    if not (first.isdecimal() and second.isdecimal() and max(len(first), len(second)) <= 18):
        raise _wrong(cursor)
    return int(first), int(second)


def usd_and_name(cursor: str) -> tuple[Decimal, str]:
    usd, name = _decode(cursor, 2)
    if not re.fullmatch(r"\d{1,12}\.\d{6}", usd) or "\0" in name:
        raise _wrong(cursor)
    return Decimal(usd), name


def limit_key(cursor: str) -> tuple[str, str, str]:
    """The order in the cursor is another: only a subject may have the separator in it."""
    scope, period, subject = _decode(cursor, 3)
    if "\0" in subject or not (scope.isalpha() and period.isalpha()):
        raise _wrong(cursor)
    return scope, subject, period


def _wrong(cursor: str) -> BadRequest:
    return BadRequest(
        "cursor_wrong",
        f"found the cursor {cursor[:80]!r}; expected the `next` of an earlier page, unchanged.",
    )
