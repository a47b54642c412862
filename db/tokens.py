"""The token stream: what models say, as they say it, outside Temporal's history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Token:
    execution: UUID
    seq: int
    text: str
    at: datetime
    sent_to: list[str]
    tenant: str


async def append(connection: AsyncConnection, tokens: Sequence[Token]) -> None:
    """COPY, because a busy worker writes thousands of rows a second for all its executions at once."""
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    async with (
        raw.cursor() as cursor,
        cursor.copy(
            "COPY token_stream (tenant_id, execution_id, seq, token, timestamp, sent_to) FROM STDIN"
        ) as copy,
    ):
        for token in tokens:
            await copy.write_row(
                (
                    token.tenant,
                    token.execution,
                    token.seq,
                    token.text.replace("\0", ""),
                    token.at,
                    token.sent_to,
                )
            )
