"""The token stream: what models say, as they say it, outside Temporal's history."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.values.foreign import clean_text

MAX_TOKENS: Final = 10_000
"""Tokens that a reader takes of one execution at a time: the bound of every channel between agents."""


@dataclass(frozen=True, slots=True)
class Token:
    run: str
    execution: UUID
    seq: int
    text: str
    at: datetime
    sent_to: list[str]
    tenant: str


_COPY: Final = "COPY token_stream (tenant_id, execution_id, seq, token, timestamp, sent_to) FROM STDIN"


async def append(connection: psycopg.AsyncConnection[Any], tokens: Sequence[Token]) -> None:
    """COPY, because a busy worker writes thousands of rows a second for all its executions at once."""
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for one in tokens:
            await copy.write_row(
                (one.tenant, one.execution, one.seq, clean_text(one.text), one.at, one.sent_to)
            )


@dataclass(frozen=True, slots=True)
class SpokenText:
    """A stretch of what an execution said."""

    text: str
    count: int
    """Number of tokens."""


_SAID = text("""
    SELECT coalesce(string_agg(token, '' ORDER BY seq), ''), count(*)
    FROM token_stream WHERE execution_id = :execution AND seq >= :first AND seq < :end
""")


async def said(connection: AsyncConnection, execution: UUID, first: int = 0) -> SpokenText:
    """Return an execution's text from its `first` token on, as far as one read goes."""
    row = (
        await connection.execute(_SAID, {"execution": execution, "first": first, "end": first + MAX_TOKENS})
    ).one()
    return SpokenText(row[0], row[1])


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """One token, and when it was made."""

    text: str
    at: datetime


_SPOKEN: Final = text("""
    SELECT token, timestamp FROM token_stream
    WHERE execution_id = :execution AND seq >= :first
        AND (CAST(:until AS timestamptz) IS NULL OR timestamp <= :until)
    ORDER BY seq LIMIT :most
""")
_ARCHIVED: Final = text("""
    SELECT tokens, first_at FROM token_archives WHERE execution_id = :execution AND count > :first
""")


async def spoken(
    connection: AsyncConnection,
    execution: UUID,
    first: int = 0,
    *,
    most: int = MAX_TOKENS,
    until: datetime | None = None,
) -> list[SpokenToken]:
    """Tokens of an execution from its `first` on, wherever they are kept; none when there are no more."""
    asked = {"execution": execution, "first": first, "until": until, "most": most}
    rows = (await connection.execute(_SPOKEN, asked)).all()
    if rows:
        return [SpokenToken(*row) for row in rows]
    # In this order: what is being archived meanwhile is found in one or the other.
    row = (await connection.execute(_ARCHIVED, asked)).one_or_none()
    return list(unpack(row.tokens, row.first_at, first, most)) if row else []


PACKED: Final = 1_000
"""Tokens per zlib stream of an archive, so that a reader of some of them unpacks little."""


def pack(said: Sequence[SpokenToken]) -> bytes:
    """Pack tokens for the archive: zlib streams of JSON, [[seconds since the first token, token], …]."""
    parts = []
    for at in range(0, len(said), PACKED):
        part = [[(one.at - said[0].at).total_seconds(), one.text] for one in said[at : at + PACKED]]
        parts.append(zlib.compress(json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode(), 9))
    return b"".join(parts)


def unpack(
    packed: bytes, first_at: datetime, first: int = 0, most: int | None = None
) -> Iterator[SpokenToken]:
    """The tokens of an archive from the `first` on."""
    at, end = 0, None if most is None else first + most
    while packed and (end is None or at < end):
        reading = zlib.decompressobj()
        part = reading.decompress(packed)
        packed = reading.unused_data
        if at + PACKED > first:
            rows = json.loads(part)[max(first - at, 0) : None if end is None else end - at]
            yield from (SpokenToken(token, first_at + timedelta(seconds=seconds)) for seconds, token in rows)
        at += PACKED
