"""The names of API keys: random, so that the audit log tells nothing of a key."""

import asyncio
import hashlib
import secrets
from typing import Final

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.people import api_keys

# Slow on purpose: who reads the table must not be able to try many keys.
_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1}


async def name_of(connection: AsyncConnection, tenant: str, key: str) -> str:
    """Return the name of a key; one that has none yet is given one."""
    # Two processes that start with a new key must give it the same name.
    await connection.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    known = select(api_keys.c.id, api_keys.c.salt, api_keys.c.scrypt).where(api_keys.c.tenant_id == tenant)
    for row in await connection.execute(known):
        if secrets.compare_digest(await _scrypt(key, row.salt), row.scrypt):
            return str(row.id)
    name, salt = secrets.token_hex(4), secrets.token_bytes(16)
    await connection.execute(
        insert(api_keys).values(id=name, tenant_id=tenant, salt=salt, scrypt=await _scrypt(key, salt))
    )
    return name


async def _scrypt(key: str, salt: bytes) -> bytes:
    return await asyncio.to_thread(hashlib.scrypt, key.encode(), salt=salt, **_SCRYPT)
