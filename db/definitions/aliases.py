"""Move the names of versions: aliases, roll back, deprecation."""

from typing import Final

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit, outbox
from db.definitions.definitions import (
    COLUMNS,
    CURRENT,
    Version,
    aliases_of,
    deprecated,
    drop_alias,
    find,
    newest_usable,
    take_turn,
)
from schema.errors import NotFound, Refused
from schema.events import AliasMoved, VersionDeprecated
from schema.tables.definitions import aliases, workflows

MAX_ALIASES: Final = 100
"""Most aliases of one definition."""


async def move(
    connection: AsyncConnection, tenant: str, name: str, alias: str, number: int, actor: str
) -> Version:
    """Let the alias mean that version. Raises NotFound, and Refused where `current` would be deprecated."""
    await take_turn(connection, tenant, name)
    version = await find(connection, tenant, name, number)
    if alias == CURRENT and version.deprecated is not None:
        raise deprecated(version)
    given = await aliases_of(connection, tenant, name)
    if alias not in given and alias != CURRENT and len(given) >= MAX_ALIASES:
        raise Refused(
            "too_many_aliases",
            f"found {MAX_ALIASES} aliases of {name!r}; expected fewer before another is set. Remove one "
            f"first: `facilitair versions {name}` shows them.",
        )
    changed = await connection.execute(
        upsert(aliases)
        .values(tenant_id=tenant, name=name, alias=alias, version=number, set_by=actor)
        .on_conflict_do_update(
            index_elements=["tenant_id", "name", "alias"],
            set_={"version": number, "set_by": actor, "set_at": func.now()},
            where=aliases.c.version != number,
        )
        .returning(aliases.c.version)
    )
    if changed.first():
        await audit.append(connection, tenant, actor, "alias.set", f"{name}@{alias}", version=number)
        await outbox.append(connection, tenant, str(version.id), AliasMoved(name, alias, number))
    return version


async def remove(connection: AsyncConnection, tenant: str, name: str, alias: str, actor: str) -> None:
    """Raises NotFound when it is not set."""
    await take_turn(connection, tenant, name)
    given = await aliases_of(connection, tenant, name)
    if alias not in given:
        raise NotFound(
            "alias_unknown",
            f"found no alias {alias!r} of {name!r}; expected one of: {', '.join(given) or 'none is set'}.",
        )
    version = await find(connection, tenant, name, given[alias])
    await drop_alias(connection, tenant, version.id, name, alias)
    await audit.append(connection, tenant, actor, "alias.remove", f"{name}@{alias}", version=given[alias])


async def roll_back(
    connection: AsyncConnection, tenant: str, name: str, number: int | None, actor: str
) -> tuple[Version, Version]:
    """(what the bare name meant, what it means now): the given version, else the one before that may be
    started. Raises NotFound, and Refused when there is none."""
    await take_turn(connection, tenant, name)
    present = await find(connection, tenant, name)
    if number is None:
        number = await newest_usable(connection, tenant, name, below=present.number)
    if number is None:
        raise Refused(
            "version_none_before",
            f"found no version of {name!r} before {name}@{present.number} that may be started; expected "
            f"one to go back to. `facilitair versions {name}` lists them.",
        )
    return present, await move(connection, tenant, name, CURRENT, number, actor)


async def deprecate(
    connection: AsyncConnection, tenant: str, name: str, number: int, reason: str | None, actor: str
) -> Version:
    """Say why nobody should start the version any more; None takes it back. The bare name stops meaning it:
    an alias `current` that names it is removed."""
    await take_turn(connection, tenant, name)
    version = await find(connection, tenant, name, number)
    if version.deprecated == reason:
        return version
    row = (
        await connection.execute(
            update(workflows)
            .where(workflows.c.id == version.id)
            .values(deprecated=reason)
            .returning(*COLUMNS)
        )
    ).one()
    action = "definition.undeprecate" if reason is None else "definition.deprecate"
    await audit.append(connection, tenant, actor, action, f"{name}@{number}", reason=reason)
    event = VersionDeprecated(str(version.id), name, number, reason)
    await outbox.append(connection, tenant, str(version.id), event)
    named = (await aliases_of(connection, tenant, name)).get(CURRENT)
    if reason is not None and named == number:
        await drop_alias(connection, tenant, version.id, name, CURRENT)
    return Version(*row)
