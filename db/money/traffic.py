"""A provider's limits as all workers share them: admissions of the last minute, and pauses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.raw import connect

CHANNEL: Final = "facilitair_traffic"
_RETRY_SECONDS: Final = 1.0

_LOCK: Final = text("SELECT 1 FROM provider_accounts WHERE account = :account FOR UPDATE")
_OPEN: Final = text("INSERT INTO provider_accounts (account) VALUES (:account) ON CONFLICT DO NOTHING")
# The clock is read here and not before: this statement begins when the lock is held.
_SLOTS: Final = text("""
    SELECT (extract(epoch FROM clock.now) * 1000)::bigint,
        (extract(epoch FROM b.at) * 1000)::bigint, b.requests, b.tokens
    FROM (SELECT clock_timestamp() AS now) AS clock
    LEFT JOIN rate_buckets b ON b.account = :account AND b.at > clock.now - :most * interval '1 ms'
    ORDER BY b.at
""")
_ADD: Final = text("""
    INSERT INTO rate_buckets (account, at, requests, tokens)
    VALUES (:account, 'epoch'::timestamptz + :at * interval '1 ms', :requests, :tokens)
    ON CONFLICT (account, at) DO UPDATE
    SET requests = rate_buckets.requests + excluded.requests, tokens = rate_buckets.tokens + excluded.tokens
""")
_CORRECT: Final = text("""
    UPDATE rate_buckets
    SET requests = greatest(requests + :requests, 0), tokens = greatest(tokens + :tokens, 0)
    WHERE account = :account AND at = 'epoch'::timestamptz + :at * interval '1 ms'
""")
_FORGET: Final = text("""
    DELETE FROM rate_buckets WHERE account = :account AND at < clock_timestamp() - :most * interval '1 ms'
""")
_PAUSE: Final = text("""
    INSERT INTO pauses (account, model, paused_until, reason)
    VALUES (:account, :model, clock_timestamp() + :seconds * interval '1 s', :reason)
    ON CONFLICT (account, model) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason
    WHERE pauses.paused_until < excluded.paused_until
""")
_PAUSED: Final = text("""
    SELECT account, model, extract(epoch FROM paused_until - clock_timestamp())::float8, reason
    FROM pauses WHERE paused_until > clock_timestamp()
""")
_TELL: Final = text(f"SELECT pg_notify('{CHANNEL}', '')")


@dataclass(frozen=True)
class ProviderPause:
    account: str
    model: str
    seconds: float
    """Seconds from now."""
    reason: str


async def lock(connection: AsyncConnection, account: str) -> None:
    """Let nobody else admit calls of the account until this transaction ends."""
    if (await connection.execute(_LOCK, {"account": account})).first() is None:
        await connection.execute(_OPEN, {"account": account})
        await connection.execute(_LOCK, {"account": account})


async def slots(
    connection: AsyncConnection, account: str, most: int
) -> tuple[int, list[tuple[int, int, int]]]:
    """(now, [(at, requests, tokens)]) of the last `most` milliseconds. For who holds the lock: a statement
    after the one that took it, as only that sees what others committed while it waited."""
    rows = (await connection.execute(_SLOTS, {"account": account, "most": most})).all()
    found = [(row[1], row[2], row[3]) for row in rows if row[1] is not None]
    # A clock that was set back must not open a second minute beside the one that is used.
    return max(rows[0][0], found[-1][0] if found else 0), found


async def add(connection: AsyncConnection, account: str, at: int, requests: int, tokens: int) -> None:
    values = {"account": account, "at": at, "requests": requests, "tokens": tokens}
    await connection.execute(_ADD, values)


async def correct(connection: AsyncConnection, account: str, changes: Iterable[tuple[int, int, int]]) -> None:
    """Add (at, requests, tokens), mostly less than nothing, to slots that still stand."""
    values = [
        {"account": account, "at": at, "requests": requests, "tokens": tokens}
        for at, requests, tokens in sorted(changes)
    ]
    if values:
        await connection.execute(_CORRECT, values)


async def forget(connection: AsyncConnection, account: str, most: int) -> None:
    """Delete what is older than `most` milliseconds."""
    await connection.execute(_FORGET, {"account": account, "most": most})


async def pause(connection: AsyncConnection, account: str, model: str, seconds: float, reason: str) -> None:
    """Pause the account's model for some seconds; a longer pause stays."""
    asked = {"account": account, "model": model, "seconds": seconds, "reason": reason[:400]}
    await connection.execute(_PAUSE, asked)
    await tell(connection)


async def paused(connection: AsyncConnection) -> list[ProviderPause]:
    return [ProviderPause(*row) for row in await connection.execute(_PAUSED)]


async def tell(connection: AsyncConnection) -> None:
    """All processes look at pauses and circuits when this transaction has committed."""
    await connection.execute(_TELL)


async def changes(database_url: str, patience: Callable[[], float | None]) -> AsyncIterator[None]:
    """Yield whenever pauses and circuits should be read: at once, on a change, after Postgres was away, and
    at least every `patience()` seconds."""
    while True:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await connect(database_url) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                while True:
                    yield
                    notices = connection.notifies(timeout=patience(), stop_after=1)
                    async for _ in notices:
                        pass
        await asyncio.sleep(_RETRY_SECONDS)
