"""Definitions as immutable versions."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import desc, func, insert, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit, outbox
from schema.definition import Definition
from schema.errors import NotFound
from schema.events import DefinitionStored
from schema.tables import workflows


@dataclass(frozen=True)
class Version:
    id: UUID
    name: str
    number: int
    sha256: str
    source: str
    """The definition as JSON text, keys in the author's order."""
    created_at: datetime
    created_by: str | None


_COLUMNS = (
    workflows.c.id, workflows.c.name, workflows.c.version, workflows.c.sha256, workflows.c.source,
    workflows.c.created_at, workflows.c.created_by,
)  # fmt: skip


def canonical(definition: Definition) -> tuple[str, str]:
    """(source text in the author's order, sha256 of the order-free form)."""
    value = definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    ordered = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False), hashlib.sha256(ordered.encode()).hexdigest()


async def save(
    connection: AsyncConnection, tenant: str, definition: Definition, actor: str
) -> tuple[Version, bool]:
    """(the stored version, whether it is new). The same content is the same version."""
    source, sha256 = canonical(definition)
    name = definition.name
    # Uploads of one name take turns, so that numbers have no gaps and no duplicates.
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{tenant}/{name}"}
    )
    known = (
        await connection.execute(
            select(*_COLUMNS).where(
                workflows.c.tenant_id == tenant, workflows.c.name == name, workflows.c.sha256 == sha256
            )
        )
    ).one_or_none()
    if known is not None:
        return Version(*known), False
    newest = select(func.coalesce(func.max(workflows.c.version), 0) + 1).where(
        workflows.c.tenant_id == tenant, workflows.c.name == name
    )
    row = (
        await connection.execute(
            insert(workflows)
            .values(
                id=uuid4(), tenant_id=tenant, name=name, version=newest.scalar_subquery(), sha256=sha256,
                definition=json.loads(source), source=source, created_by=actor,
            )
            .returning(*_COLUMNS)
        )
    ).one()  # fmt: skip
    version = Version(*row)
    await outbox.append(
        connection, tenant, str(version.id), DefinitionStored(str(version.id), name, version.number, sha256)
    )
    await audit.append(connection, tenant, actor, "definition.store", f"{name}@{version.number}")
    return version, True


async def find(connection: AsyncConnection, tenant: str, name: str, number: int | None = None) -> Version:
    """The given version, or the newest; raises NotFound."""
    query = select(*_COLUMNS).where(workflows.c.tenant_id == tenant, workflows.c.name == name)
    if number is not None:
        query = query.where(workflows.c.version == number)
    row = (await connection.execute(query.order_by(desc(workflows.c.version)).limit(1))).one_or_none()
    if row is None:
        known = (
            await connection.execute(
                select(workflows.c.name).where(workflows.c.tenant_id == tenant).distinct().limit(20)
            )
        ).scalars()
        wanted = name if number is None else f"{name}@{number}"
        names = ", ".join(sorted(known)) or "none stored yet"
        raise NotFound(
            "definition_unknown",
            f"found no definition {wanted!r}; expected one of: {names}. "
            "Upload it with `facilitair apply FILE`.",
        )
    return Version(*row)


async def newest_per_name(
    connection: AsyncConnection, tenant: str, *, after: str = "", limit: int = 100
) -> list[Version]:
    """The newest version of each name in order of names, those behind `after`."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(workflows.c.tenant_id == tenant, workflows.c.name > after)
        .ext(distinct_on(workflows.c.name))
        .order_by(workflows.c.name, desc(workflows.c.version))
        .limit(limit)
    )
    return [Version(*row) for row in rows]


async def versions(
    connection: AsyncConnection, tenant: str, name: str, *, below: int | None = None, limit: int = 100
) -> list[Version]:
    """The versions of one name, newest first, those below `below`."""
    query = select(*_COLUMNS).where(workflows.c.tenant_id == tenant, workflows.c.name == name)
    if below is not None:
        query = query.where(workflows.c.version < below)
    rows = await connection.execute(query.order_by(desc(workflows.c.version)).limit(limit))
    return [Version(*row) for row in rows]
