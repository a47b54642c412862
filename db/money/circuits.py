"""Models that failed so often that nobody asks them for a while: one row each, while that lasts.

One that nobody has asked for an hour is asked like any other.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.money import traffic

_LEFT: Final = "extract(epoch FROM open_until - clock_timestamp())::float8"
_MINE: Final = "account = :account AND model = :model"
_TRIP: Final = text("""
    INSERT INTO circuits (account, model, failures, open_until, changed_at)
    VALUES (:account, :model, 1, clock_timestamp() + :seconds * interval '1 s', clock_timestamp())
    ON CONFLICT (account, model) DO UPDATE
    SET failures = 1, open_until = excluded.open_until, changed_at = excluded.changed_at
    WHERE circuits.open_until < clock_timestamp() - interval '1 hour'
""")
_PROBE: Final = text(f"""
    UPDATE circuits SET open_until = clock_timestamp() + :seconds * interval '1 s'
    WHERE {_MINE} AND open_until <= clock_timestamp()
    RETURNING 1
""")
_FAILED: Final = text(f"""
    UPDATE circuits SET failures = failures + 1, changed_at = clock_timestamp(),
        open_until = clock_timestamp()
            + least(:seconds * power(2, least(failures, 20)), :longest) * interval '1 s'
    WHERE {_MINE}
""")
_UNDECIDED: Final = text(f"UPDATE circuits SET open_until = clock_timestamp() WHERE {_MINE}")
_CLOSE: Final = text(f"DELETE FROM circuits WHERE {_MINE}")
_OPEN: Final = text(
    f"SELECT account, model, {_LEFT} FROM circuits WHERE open_until > clock_timestamp() - interval '1 hour'"
)
_ONE: Final = text(f"SELECT {_LEFT} FROM circuits WHERE {_MINE}")


@dataclass(frozen=True)
class OpenCircuit:
    account: str
    model: str
    seconds: float
    """Seconds until a probe is due; negative if it is overdue."""


async def trip(connection: AsyncConnection, account: str, model: str, seconds: float) -> None:
    """Open it; where others were faster, theirs holds."""
    await connection.execute(_TRIP, {"account": account, "model": model, "seconds": seconds})
    await traffic.tell(connection)


async def probe(
    connection: AsyncConnection, account: str, model: str, seconds: float
) -> tuple[bool, float | None]:
    """(whether the caller is the one to try for so long if the model answers again, else how long it stays
    open; None when it is closed by now)."""
    asked = {"account": account, "model": model, "seconds": seconds}
    if (await connection.execute(_PROBE, asked)).first():
        await traffic.tell(connection)
        return True, seconds
    left: float | None = await connection.scalar(_ONE, {"account": account, "model": model})
    return False, left


async def failed(
    connection: AsyncConnection, account: str, model: str, seconds: float, longest: float
) -> None:
    """A probe failed: open for twice as long as the last time."""
    asked = {"account": account, "model": model, "seconds": seconds, "longest": longest}
    await connection.execute(_FAILED, asked)
    await traffic.tell(connection)


async def undecided(connection: AsyncConnection, account: str, model: str) -> None:
    """Record that a probe gave no answer: the next one may go."""
    await connection.execute(_UNDECIDED, {"account": account, "model": model})
    await traffic.tell(connection)


async def close(connection: AsyncConnection, account: str, model: str) -> None:
    """It answers again."""
    await connection.execute(_CLOSE, {"account": account, "model": model})
    await traffic.tell(connection)


async def open_ones(connection: AsyncConnection) -> list[OpenCircuit]:
    return [OpenCircuit(*row) for row in await connection.execute(_OPEN)]
