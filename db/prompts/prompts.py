"""Prompts as immutable versions under a name, and which of them the bare name means."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import delete, desc, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.errors import NotFound, Refused
from schema.language.prompts import PromptContent
from schema.tables.prompts import prompt_trials as trials
from schema.tables.prompts import prompt_versions as versions
from schema.tables.prompts import prompts as table

Origin = Literal["person", "optimizer"]

MAX_VERSIONS: Final = 1_000


@dataclass(frozen=True)
class StoredPromptVersion:
    """One immutable stored version."""

    name: str
    number: int
    content: PromptContent
    sha256: str
    origin: str
    note: str
    created_by: str | None
    created_at: datetime
    simulated: bool
    """Whether its examples are answers of the simulator."""

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(frozen=True)
class NamedPrompt:
    """A name, and what it means."""

    name: str
    current: int
    newest: int
    description: str
    created_at: datetime
    on_trial: int | None
    """The candidate that runs are compared with."""
    current_simulated: int | None
    """Version that the name means in simulated runs, if a trial of theirs was won; None: `current`."""


_COLUMNS: Final = (
    versions.c.name,
    versions.c.version,
    versions.c.content,
    versions.c.sha256,
    versions.c.origin,
    versions.c.note,
    versions.c.created_by,
    versions.c.created_at,
    versions.c.simulated,
)


def _version(row: Any) -> StoredPromptVersion:
    name, number, content, *rest = row
    return StoredPromptVersion(name, number, PromptContent.model_validate(content), *rest)


def _json(content: PromptContent) -> dict[str, Any]:
    # Without defaults: equal content has one form, also when fields are added to the language later.
    found: dict[str, Any] = content.model_dump(mode="json", exclude_defaults=True)
    return {"system": content.system} | found


def sha256_of(content: PromptContent) -> str:
    ordered = json.dumps(_json(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(ordered.encode()).hexdigest()


async def take_turn(connection: AsyncConnection, tenant: str, name: str) -> None:
    """Changes to one prompt wait for each other, so that numbers have no gaps and `current` no surprises."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"prompt/{tenant}/{name}"}
    )


async def save(
    connection: AsyncConnection,
    tenant: str,
    name: str,
    content: PromptContent,
    actor: str,
    *,
    note: str = "",
    origin: Origin = "person",
    promote: bool = False,
    description: str | None = None,
    simulated: bool = False,
) -> tuple[StoredPromptVersion, bool]:
    """(the stored version, whether it is new). The same content is the same version. The bare name means it
    from then on when `promote` says so, or when it is the first."""
    await take_turn(connection, tenant, name)
    mine = (versions.c.tenant_id == tenant, versions.c.name == name)
    sha256 = sha256_of(content)
    row = (
        await connection.execute(select(*_COLUMNS).where(*mine, versions.c.sha256 == sha256))
    ).one_or_none()
    if created := row is None:
        newest = await connection.scalar(select(func.coalesce(func.max(versions.c.version), 0)).where(*mine))
        assert newest is not None  # coalesced
        if newest >= MAX_VERSIONS:
            raise Refused(
                "prompt_too_many_versions",
                f"found {newest:,} versions of {name!r}; expected at most {MAX_VERSIONS:,}. "
                "Begin another name.",
            )
        row = (
            await connection.execute(
                insert(versions)
                .values(
                    tenant_id=tenant,
                    name=name,
                    version=newest + 1,
                    content=_json(content),
                    sha256=sha256,
                    origin=origin,
                    note=note,
                    created_by=actor,
                    simulated=simulated,
                )
                .returning(*_COLUMNS)
            )
        ).one()
    version = _version(row)
    if created:
        await audit.append(connection, tenant, actor, "prompt.store", version.ref, origin=origin, note=note)
    await connection.execute(
        upsert(table)
        .values(tenant_id=tenant, name=name, current=version.number, description=description or "")
        .on_conflict_do_nothing()
    )
    if description is not None:
        await connection.execute(
            update(table)
            .where(table.c.tenant_id == tenant, table.c.name == name)
            .values(description=description)
        )
    if promote:
        await _point(connection, tenant, name, version.number, actor)
    return version, created


async def promote(
    connection: AsyncConnection, tenant: str, name: str, number: int, actor: str
) -> tuple[int, int]:
    """(what the bare name meant, what it means now); also the way back. Raises NotFound, and Refused while a
    trial compares two versions."""
    await take_turn(connection, tenant, name)
    await find(connection, tenant, name, number)
    return await _point(connection, tenant, name, number, actor), number


async def _point(connection: AsyncConnection, tenant: str, name: str, number: int, actor: str) -> int:
    mine = (table.c.tenant_id == tenant, table.c.name == name)
    meant = (await connection.execute(select(table.c.current, table.c.current_simulated).where(*mine))).one()
    before: int = meant.current
    if before == number and meant.current_simulated is None:
        return before
    await _refuse_on_trial(connection, tenant, name)
    await point(connection, tenant, name, number, actor, before)
    return before


async def point(
    connection: AsyncConnection,
    tenant: str,
    name: str,
    number: int,
    actor: str,
    before: int,
    *,
    simulated: bool = False,
) -> None:
    """Let the bare name mean that version, whose existence is known: in simulated runs alone where these have
    decided it, else everywhere."""
    mine = (table.c.tenant_id == tenant, table.c.name == name)
    only = {"current_simulated": number}
    values = only if simulated else {"current": number, "current_simulated": None}
    await connection.execute(update(table).where(*mine).values(values))
    await audit.append(
        connection, tenant, actor, "prompt.promote", f"{name}@{number}", before=before, simulated=simulated
    )


async def _refuse_on_trial(connection: AsyncConnection, tenant: str, name: str) -> None:
    running = select(trials.c.control, trials.c.candidate).where(
        trials.c.tenant_id == tenant, trials.c.name == name, trials.c.status == "running"
    )
    if row := (await connection.execute(running)).one_or_none():
        raise Refused(
            "trial_running",
            f"found a trial of {name}@{row.candidate} against {name}@{row.control}; expected none while "
            f"{name!r} changes its meaning. End it first: `facilitair prompts trial stop {name}`.",
        )


async def find(
    connection: AsyncConnection, tenant: str, name: str, number: int | None = None, *, simulated: bool = False
) -> StoredPromptVersion:
    """The version with that number, or the one that the bare name means, in a simulated run where `simulated`
    says so. Raises NotFound."""
    query = select(*_COLUMNS).where(versions.c.tenant_id == tenant, versions.c.name == name)
    if number is None:
        meant = func.coalesce(table.c.current_simulated, table.c.current) if simulated else table.c.current
        current = select(meant).where(table.c.tenant_id == tenant, table.c.name == name)
        query = query.where(versions.c.version == current.scalar_subquery())
    else:
        query = query.where(versions.c.version == number)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise await unknown(connection, tenant, name, number)
    return _version(row)


async def unknown(connection: AsyncConnection, tenant: str, name: str, number: int | None) -> NotFound:
    """Return the error for an unknown prompt, with the names that exist."""
    newest = await connection.scalar(
        select(func.max(versions.c.version)).where(versions.c.tenant_id == tenant, versions.c.name == name)
    )
    if newest is not None:
        return NotFound(
            "prompt_unknown",
            f"found no version {number} of the prompt {name!r}; expected one from 1 to {newest}. "
            f"`facilitair prompts show {name}` lists them.",
        )
    names = list(
        await connection.scalars(
            select(table.c.name).where(table.c.tenant_id == tenant).order_by(table.c.name).limit(20)
        )
    )
    there = f"expected one of: {', '.join(names)}" if names else "there is none yet"
    return NotFound(
        "prompt_unknown",
        f"found no prompt {name!r}; {there}. `facilitair prompts set {name} --file prompt.json` stores it.",
    )


async def page(
    connection: AsyncConnection, tenant: str, *, name: str | None = None, after: str = "", limit: int = 50
) -> list[NamedPrompt]:
    """Prompts in the order of names, those behind `after`; or the one of that name."""
    newest = (
        select(func.max(versions.c.version))
        .where(versions.c.tenant_id == table.c.tenant_id, versions.c.name == table.c.name)
        .scalar_subquery()
    )
    on_trial = (
        select(trials.c.candidate)
        .where(
            trials.c.tenant_id == table.c.tenant_id,
            trials.c.name == table.c.name,
            trials.c.status == "running",
        )
        .scalar_subquery()
    )
    query = (
        select(
            table.c.name,
            table.c.current,
            newest,
            table.c.description,
            table.c.created_at,
            on_trial,
            table.c.current_simulated,
        )
        .where(table.c.tenant_id == tenant, table.c.name > after)
        .order_by(table.c.name)
        .limit(limit)
    )
    if name is not None:
        query = query.where(table.c.name == name)
    return [NamedPrompt(*row) for row in await connection.execute(query)]


async def versions_of(
    connection: AsyncConnection, tenant: str, name: str, *, below: int | None = None, limit: int = 50
) -> list[StoredPromptVersion]:
    """Newest first, those below `below`."""
    query = select(*_COLUMNS).where(versions.c.tenant_id == tenant, versions.c.name == name)
    if below is not None:
        query = query.where(versions.c.version < below)
    rows = await connection.execute(query.order_by(desc(versions.c.version)).limit(limit))
    return [_version(row) for row in rows]


# What starts of a definition mean: its newest usable version or `current`, and all other aliases.
_USERS: Final = text("""
SELECT DISTINCT stored.name || '@' || stored.version FROM workflows AS stored
WHERE stored.tenant_id = :tenant
  AND jsonb_path_exists(stored.definition, '$.agents.*.prompt ? (@ == $name || @ starts with $pinned)',
        jsonb_build_object('name', CAST(:name AS text), 'pinned', CAST(:name AS text) || '@'))
  AND (EXISTS (SELECT 1 FROM aliases WHERE aliases.tenant_id = stored.tenant_id
               AND aliases.name = stored.name AND aliases.version = stored.version)
       OR stored.deprecated IS NULL AND stored.planned_by IS NULL AND NOT EXISTS (
           SELECT 1 FROM workflows AS newer WHERE newer.tenant_id = stored.tenant_id
           AND newer.name = stored.name AND newer.version > stored.version
           AND newer.deprecated IS NULL AND newer.planned_by IS NULL))
ORDER BY 1 LIMIT 5
""")


async def remove(connection: AsyncConnection, tenant: str, name: str, actor: str) -> None:
    """Forget a prompt with all its versions and trials. Raises NotFound, and Refused while it is used."""
    await take_turn(connection, tenant, name)
    await find(connection, tenant, name)
    await _refuse_on_trial(connection, tenant, name)
    users = list(await connection.scalars(_USERS, {"tenant": tenant, "name": name}))
    if users:
        raise Refused(
            "prompt_in_use",
            f"found that {', '.join(users)} name the prompt {name!r}; expected that no definition does "
            "that a bare name or an alias means. Upload them with another prompt first.",
        )
    for one in (table, versions, trials):
        await connection.execute(delete(one).where(one.c.tenant_id == tenant, one.c.name == name))
    await audit.append(connection, tenant, actor, "prompt.remove", name)
