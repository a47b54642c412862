"""Addresses that start a collaboration when they are called. Their tokens are kept as hashes only."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from db.money import usage
from db.runs.admission import bucket_of
from schema.errors import NotFound, Refused
from schema.tables.definitions import webhooks


@dataclass(frozen=True)
class Webhook:
    id: UUID
    tenant: str
    name: str
    """The definition that it starts: name, name@3 or name@alias."""
    input: Any
    """A template over the request's body as `input`."""
    created_by: str | None
    created_at: datetime
    last_called_at: datetime | None


_COLUMNS: Final = (
    webhooks.c.id,
    webhooks.c.tenant_id,
    webhooks.c.name,
    webhooks.c.input,
    webhooks.c.created_by,
    webhooks.c.created_at,
    webhooks.c.last_called_at,
)


def _hash(token: str) -> str:
    # Looking up a hash takes a time that tells nothing of the tokens: they are random and long.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


async def create(
    connection: AsyncConnection, tenant: str, id: UUID, name: str, input: Any, token: str, actor: str
) -> Webhook:
    row = (
        await connection.execute(
            insert(webhooks)
            .values(
                id=id, tenant_id=tenant, name=name, input=input, token_sha256=_hash(token), created_by=actor
            )
            .returning(*_COLUMNS)
        )
    ).one()
    await audit.append(connection, tenant, actor, "webhook.create", str(id), name=name)
    return Webhook(*row)


async def check_room(connection: AsyncConnection, tenant: str, most: int) -> None:
    """Raise Refused("too_many_webhooks") where there is no room for one more. Others who ask wait."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{tenant}/*webhooks"}
    )
    if await count(connection, tenant) >= most:
        raise Refused(
            "too_many_webhooks",
            f"found {most:,} webhooks; expected fewer before another is made (FACILITAIR_MAX_WEBHOOKS). "
            "Remove those that nobody calls: `facilitair webhook list`.",
        )


async def count(connection: AsyncConnection, tenant: str) -> int:
    query = select(func.count()).select_from(webhooks).where(webhooks.c.tenant_id == tenant)
    return int((await connection.execute(query)).scalar_one())


async def called(connection: AsyncConnection, token: str) -> Webhook:
    """Return the webhook with that token, of any tenant, and mark it as called now. Raises NotFound."""
    row = (
        await connection.execute(
            update(webhooks)
            .where(webhooks.c.token_sha256 == _hash(token))
            .values(last_called_at=func.now())
            .returning(*_COLUMNS)
        )
    ).one_or_none()
    if row is None:
        raise NotFound(
            "webhook_unknown",
            "found no webhook at this address; expected the one that making it returned. "
            "`facilitair webhook add` makes another.",
        )
    return Webhook(*row)


async def page(
    connection: AsyncConnection, tenant: str, *, after: UUID | None = None, limit: int = 100
) -> list[Webhook]:
    """In the order of ids, those behind `after`."""
    query = select(*_COLUMNS).where(webhooks.c.tenant_id == tenant)
    if after is not None:
        query = query.where(webhooks.c.id > after)
    rows = await connection.execute(query.order_by(webhooks.c.id).limit(limit))
    return [Webhook(*row) for row in rows]


async def remove(connection: AsyncConnection, tenant: str, id: UUID, actor: str) -> None:
    """Raises NotFound."""
    removed = await connection.execute(
        delete(webhooks).where(webhooks.c.tenant_id == tenant, webhooks.c.id == id)
    )
    if not removed.rowcount:
        raise NotFound(
            "webhook_unknown",
            f"found no webhook {str(id)!r}; expected an id that `facilitair webhook list` shows.",
        )
    await usage.remove_bucket(connection, tenant, bucket_of(id))
    await audit.append(connection, tenant, actor, "webhook.remove", str(id))
