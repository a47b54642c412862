"""Sessions of the console. Only a hash of a session's id is stored."""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.people import console_sessions

_NOTED_EVERY: Final = timedelta(minutes=1)
"""A page asks for dozens of files: its session's last use is written down this often only."""


async def open_session(connection: AsyncConnection, tenant: str, id_hmac: str, lasts: timedelta) -> None:
    """Store a session; those that have expired are removed."""
    await connection.execute(delete(console_sessions).where(console_sessions.c.expires_at < func.now()))
    await connection.execute(
        insert(console_sessions).values(id_hmac=id_hmac, tenant_id=tenant, expires_at=func.now() + lasts)
    )


async def use(connection: AsyncConnection, id_hmac: str) -> bool:
    """Return whether there is such a session, and note that it was used."""
    own = console_sessions.c.id_hmac == id_hmac
    last_used = select(console_sessions.c.last_used_at < func.now() - _NOTED_EVERY).where(
        own, console_sessions.c.expires_at > func.now()
    )
    is_stale = (await connection.execute(last_used)).scalar_one_or_none()
    if is_stale:
        await connection.execute(update(console_sessions).where(own).values(last_used_at=func.now()))
    return is_stale is not None


async def end(connection: AsyncConnection, id_hmac: str) -> None:
    """Remove a session, if there is one."""
    await connection.execute(delete(console_sessions).where(console_sessions.c.id_hmac == id_hmac))
