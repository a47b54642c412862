"""Answers that are being made: equal steps wait for them instead of asking for the same once more."""

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs import cache
from schema.tables.runs import flights

_JOIN: Final = text("""
    INSERT INTO flights (tenant_id, key, execution_id, until)
    VALUES (:tenant, :key, :execution, clock_timestamp() + :seconds * interval '1 s')
    ON CONFLICT DO NOTHING RETURNING 1
""")
_LEADER: Final = text("""
    SELECT execution_id, until > clock_timestamp() FROM flights
    WHERE tenant_id = :tenant AND key = :key FOR UPDATE
""")
_RUNS: Final = """
    e.status = 'running' AND c.status = 'running'
"""
_ALIVE: Final = text(f"""
    SELECT {_RUNS} FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
    WHERE e.id = :execution
""")
_TAKE_OVER: Final = text("""
    UPDATE flights SET execution_id = :execution, until = clock_timestamp() + :seconds * interval '1 s'
    WHERE tenant_id = :tenant AND key = :key
""")
_UNDER_WAY: Final = text(f"""
    SELECT f.tenant_id, f.key
    FROM unnest(CAST(:tenants AS text[]), CAST(:keys AS text[])) AS asked (tenant_id, key)
    JOIN flights f ON f.tenant_id = asked.tenant_id AND f.key = asked.key
    JOIN agent_executions e ON e.id = f.execution_id
    JOIN collaborations c ON c.id = e.collaboration_id
    WHERE f.until > clock_timestamp() AND {_RUNS}
""")


async def lead(connection: AsyncConnection, tenant: str, key: str, execution: UUID, seconds: float) -> bool:
    """Try to become the execution that makes the answer, for some seconds; return False if another one leads.

    Each statement sees what was committed before it, so that a leader that began meanwhile is not mistaken
    for a dead one.
    """
    mine = {"tenant": tenant, "key": key, "execution": execution, "seconds": seconds}
    if (await connection.execute(_JOIN, mine)).first():
        return True
    leader = (await connection.execute(_LEADER, {"tenant": tenant, "key": key})).first()
    if leader is None:
        return False
    other, in_time = leader[0], leader[1] and leader[0] != execution
    if in_time and await connection.scalar(_ALIVE, {"execution": other}):
        return False
    await connection.execute(_TAKE_OVER, mine)
    return True


async def land(connection: AsyncConnection, tenant: str, key: str, execution: UUID) -> None:
    """Give a completed execution's output to everyone who waits, and to later callers."""
    await cache.store(connection, tenant, key, execution)
    await connection.execute(delete(flights).where(flights.c.tenant_id == tenant, flights.c.key == key))


async def release(connection: AsyncConnection, tenant: str, key: str, execution: UUID) -> None:
    """This execution makes no answer that others may take: one of them is to make it."""
    await connection.execute(
        delete(flights).where(
            flights.c.tenant_id == tenant, flights.c.key == key, flights.c.execution_id == execution
        )
    )


async def hand_on(
    connection: AsyncConnection, tenant: str, key: str, execution: UUID, following: UUID
) -> None:
    """The next attempt of the same step goes on making the answer."""
    await connection.execute(
        update(flights)
        .where(flights.c.tenant_id == tenant, flights.c.key == key, flights.c.execution_id == execution)
        .values(execution_id=following)
    )


async def forget(connection: AsyncConnection, older_than: datetime) -> int:
    """Delete what nobody has taken over since; how many. Each was the end of a worker."""
    return (await connection.execute(delete(flights).where(flights.c.until < older_than))).rowcount


async def under_way(connection: AsyncConnection, asked: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the (tenant, key) pairs whose answers are still being made."""
    tenants, keys = [tenant for tenant, _ in asked], [key for _, key in asked]
    found = await connection.execute(_UNDER_WAY, {"tenants": tenants, "keys": keys})
    return {(row[0], row[1]) for row in found}
