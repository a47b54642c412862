"""Secrets of the platform itself: made once, the same for every process on every host."""

import secrets
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.people import platform_secrets

NAMING: Final = "naming"
"""Secret from which ids are derived that nobody outside may compute."""
_BYTES: Final = 32


async def find(connection: AsyncConnection, name: str) -> bytes:
    """Return the secret of this name; it is made when it is first asked for."""
    wanted = select(platform_secrets.c.value).where(platform_secrets.c.name == name)
    known = await connection.scalar(wanted)
    if known is None:
        made = upsert(platform_secrets).values(name=name, value=secrets.token_bytes(_BYTES))
        # Another process may make it at the same moment: the first one counts.
        await connection.execute(made.on_conflict_do_nothing())
        known = await connection.scalar(wanted)
    assert known is not None
    return bytes(known)
