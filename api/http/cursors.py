"""Cursors of paged lists: a place in a stable order, written so that a pattern says which there can be."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from fastapi import Query

from api.http.problems import BadRequest

_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# At most 16 digits of microseconds end in the year 2286; at most 18 digits fit the database's 64 bits.
MOMENT_AND_ID: Final = rf"^([0-9]{{1,16}})\.({_UUID})$"
MOMENT_AND_SPAN: Final = r"^([0-9]{1,16})\.([0-9a-f]{1,32})$"
TWO_NUMBERS: Final = r"^([0-9]{1,18})\.([0-9]{1,18})$"
USD_AND_NAME: Final = r"^([0-9]{1,12}\.[0-9]{6})\.([^\x00]*)$"
LIMIT_KEY: Final = r"^(tenant|user|definition)\.(day|month|total)\.([^\x00]*)$"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def query(pattern: str, *, max_length: int = 200) -> Any:
    """The parameter that takes the `next` of the page before. The pattern is told and not checked here:
    reading the cursor refuses it in words of its own."""
    return Query(
        max_length=max_length,
        description="The `next` of the page before.",
        json_schema_extra={"pattern": f"{pattern}|^$"},
    )


def encode(*parts: object) -> str:
    return ".".join(map(str, parts))


def encode_moment(moment: datetime, id: object) -> str:
    return encode((moment - _EPOCH) // _MICROSECOND, id)


def moment_and_id(cursor: str) -> tuple[datetime, UUID]:
    microseconds, id = _parts(cursor, MOMENT_AND_ID)
    return _EPOCH + int(microseconds) * _MICROSECOND, UUID(id)


def moment_and_span(cursor: str) -> tuple[datetime, str]:
    microseconds, span = _parts(cursor, MOMENT_AND_SPAN)
    return _EPOCH + int(microseconds) * _MICROSECOND, span


def two_numbers(cursor: str) -> tuple[int, int]:
    first, second = _parts(cursor, TWO_NUMBERS)
    return int(first), int(second)


def usd_and_name(cursor: str) -> tuple[Decimal, str]:
    usd, name = _parts(cursor, USD_AND_NAME)
    return Decimal(usd), name


def limit_key(cursor: str) -> tuple[str, str, str]:
    """The order in the cursor is another: only a subject may have the separator in it."""
    scope, period, subject = _parts(cursor, LIMIT_KEY)
    return scope, subject, period


def _parts(cursor: str, pattern: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, cursor)
    if found is None:
        raise BadRequest(
            "cursor_wrong",
            f"found the cursor {cursor[:80]!r}; expected the `next` of an earlier page, unchanged.",
        )
    return found.groups()
