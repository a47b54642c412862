"""The tenant's own roles, skills and providers, beside those built in."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import JSON, ScalarSelect, Table, bindparam, delete, func, select, text, type_coerce
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import Pool

from db import audit
from schema.errors import NotFound, Refused
from schema.language.catalogue import BUILT_IN, Catalogue, RoleDefault, TenantProvider
from schema.language.skills import Skill
from schema.rules.catalogue import MAX_OWN
from schema.tables.definitions import providers, roles, skills
from schema.tables.prompts import prompt_versions

KEPT_SECONDS: Final = 2.0
"""Longest time for which a change in one process may go unseen in another."""
_MAX_KEPT: Final = 256
MAX_NAMED: Final = 20

_ROLE: Final = ("model", "system", "relationship", "description", "skills")
_SKILL: Final = ("description", "instructions", "tools")
_PROVIDER: Final = ("kind", "base_url", "key_ref", "requests_per_minute", "tokens_per_minute")

_kept: WeakKeyDictionary[Pool, dict[str, tuple[float, Catalogue]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class EntryStamp:
    """The actor and the time of a tenant's entry."""

    by: str | None
    at: datetime


@dataclass(frozen=True)
class EntryUses:
    """Definitions that still name a removed entry."""

    definitions: list[str]
    """name@version of what bare names mean now; at most MAX_NAMED."""
    more: bool


def _own(table: Table, columns: tuple[str, ...]) -> ScalarSelect[Any]:
    facts = [part for name in columns for part in (text(f"'{name}'"), table.c[name])]
    return (
        select(type_coerce(func.json_object_agg(table.c.name, func.json_build_object(*facts)), JSON))
        .where(table.c.tenant_id == bindparam("tenant"))
        .scalar_subquery()
    )


_latest = (
    select(prompt_versions.c.name, func.max(prompt_versions.c.version).label("version"))
    .where(prompt_versions.c.tenant_id == bindparam("tenant"))
    .group_by(prompt_versions.c.name)
    .subquery()
)
_prompts = select(
    type_coerce(func.json_object_agg(_latest.c.name, _latest.c.version), JSON)
).scalar_subquery()
_ALL: Final = select(_own(roles, _ROLE), _own(skills, _SKILL), _own(providers, _PROVIDER), _prompts)


async def of_tenant(connection: AsyncConnection, tenant: str, *, fresh: bool = False) -> Catalogue:
    """Return what the tenant's definitions may name. `fresh` reads now; otherwise the answer may be 2
    s old."""
    kept = _kept.setdefault(connection.engine.pool, {})
    known = kept.get(tenant)
    now = time.monotonic()
    if known and not fresh and now - known[0] < KEPT_SECONDS:
        return known[1]
    row = (await connection.execute(_ALL, {"tenant": tenant})).one()
    found = _read(*(part or {} for part in row)) if any(row) else BUILT_IN
    if len(kept) >= _MAX_KEPT and tenant not in kept:
        kept.pop(next(iter(kept)))
    kept[tenant] = (now, found)
    return found


def forget(tenant: str) -> None:
    """Read it anew in this process: to be called once a change is committed."""
    for kept in _kept.values():
        kept.pop(tenant, None)


def _read(
    own_roles: Mapping[str, Any],
    own_skills: Mapping[str, Any],
    own: Mapping[str, Any],
    prompts: Mapping[str, int],
) -> Catalogue:
    return BUILT_IN.with_own(
        {name: RoleDefault(**one | {"skills": tuple(one["skills"])}) for name, one in own_roles.items()},
        {name: Skill(**one | {"tools": tuple(one["tools"])}) for name, one in own_skills.items()},
        {name: TenantProvider(name, **one) for name, one in own.items()},
        prompts,
    )


async def settings_of(connection: AsyncConnection, tenant: str) -> dict[str, dict[str, EntryStamp]]:
    """roles, skills, providers → name → who set it."""
    found: dict[str, dict[str, EntryStamp]] = {}
    for table in (roles, skills, providers):
        rows = await connection.execute(
            select(table.c.name, table.c.set_by, table.c.set_at)
            .where(table.c.tenant_id == tenant)
            .order_by(table.c.name)
        )
        found[table.name] = {row.name: EntryStamp(row.set_by, row.set_at) for row in rows}
    return found


async def set_role(
    connection: AsyncConnection, tenant: str, name: str, role: RoleDefault, actor: str
) -> None:
    await _set(connection, roles, tenant, name, asdict(role) | {"skills": list(role.skills)}, actor)
    await audit.append(
        connection,
        tenant,
        actor,
        "role.set",
        name,
        model=role.model,
        relationship=role.relationship,
        skills=list(role.skills),
    )


async def set_skill(connection: AsyncConnection, tenant: str, name: str, skill: Skill, actor: str) -> None:
    await _set(connection, skills, tenant, name, asdict(skill) | {"tools": list(skill.tools)}, actor)
    await audit.append(connection, tenant, actor, "skill.set", name, tools=list(skill.tools))


async def set_provider(
    connection: AsyncConnection, tenant: str, provider: TenantProvider, actor: str
) -> None:
    facts = asdict(provider)
    name = facts.pop("name")
    await _set(connection, providers, tenant, name, facts, actor)
    await audit.append(connection, tenant, actor, "provider.set", name, **facts)


async def _set(
    connection: AsyncConnection, table: Table, tenant: str, name: str, values: dict[str, Any], actor: str
) -> None:
    values = {**values, "set_by": actor, "set_at": func.now()}
    key = (table.c.tenant_id == tenant, table.c.name == name)
    if not (await connection.execute(select(table.c.name).where(*key))).first():
        count = select(func.count()).select_from(table).where(table.c.tenant_id == tenant)
        if ((await connection.execute(count)).scalar() or 0) >= MAX_OWN:
            raise Refused(
                "catalogue_full",
                f"found {MAX_OWN} {table.name} of yours; expected room for one more. Remove one first.",
            )
    await connection.execute(
        upsert(table)
        .values(tenant_id=tenant, name=name, **values)
        .on_conflict_do_update(index_elements=[table.c.tenant_id, table.c.name], set_=values)
    )


async def remove_role(connection: AsyncConnection, tenant: str, name: str, actor: str) -> EntryUses:
    """Remove a role and return what still names it. Raises NotFound."""
    if not await _remove(connection, roles, tenant, name, actor, "role.remove"):
        raise NotFound("role_unknown", _none_of_yours("role", name, name in BUILT_IN.roles))
    return await _users(connection, tenant, _NAMING_ROLE, name)


async def remove_skill(connection: AsyncConnection, tenant: str, name: str, actor: str) -> EntryUses:
    """Remove a skill and return what still names it. Raises NotFound."""
    if not await _remove(connection, skills, tenant, name, actor, "skill.remove"):
        raise NotFound("skill_unknown", _none_of_yours("skill", name, name in BUILT_IN.skills))
    return await _users(connection, tenant, _NAMING_SKILL, name)


async def remove_provider(connection: AsyncConnection, tenant: str, name: str, actor: str) -> EntryUses:
    """Remove a provider and return what still names it. Raises NotFound."""
    if not await _remove(connection, providers, tenant, name, actor, "provider.remove"):
        raise NotFound("provider_unknown", _none_of_yours("provider", name, built_in=False))
    return await _users(connection, tenant, _NAMING_PROVIDER, f"{name}/")


async def _remove(
    connection: AsyncConnection, table: Table, tenant: str, name: str, actor: str, action: str
) -> bool:
    gone = await connection.execute(delete(table).where(table.c.tenant_id == tenant, table.c.name == name))
    if gone.rowcount:
        await audit.append(connection, tenant, actor, action, name)
    return bool(gone.rowcount)


def _none_of_yours(what: str, name: str, built_in: bool) -> str:
    rest = "The built-in one cannot be removed." if built_in else f"`facilitair {what}s` lists them."
    return f"found no {what} {name!r} of yours; expected one that was set. {rest}"


_NAMING_ROLE: Final = (
    "$.agents.*.role ? (@ == $name)",
    '$.steps.** ? (@.kind == "agent" && @.role == $name)',
)
_NAMING_SKILL: Final = ("$.agents.*.skills[*] ? (@ == $name)",)
_NAMING_PROVIDER: Final = (
    '$.agents.*.model ? (@.type() == "string" && @ starts with $name)',
    "$.agents.*.model.among[*] ? (@ starts with $name)",
    "$.agents.*.fallback[*] ? (@ starts with $name)",
    "$.budget.degrade_to ? (@ starts with $name)",
)

_USERS: Final = """
SELECT w.name || '@' || w.version AS ref
FROM workflows w
LEFT JOIN aliases a ON a.tenant_id = w.tenant_id AND a.name = w.name AND a.alias = 'current'
WHERE w.tenant_id = :tenant AND w.planned_by IS NULL AND w.deprecated IS NULL
  AND w.version = coalesce(a.version, (
    SELECT max(n.version) FROM workflows n
    WHERE n.tenant_id = w.tenant_id AND n.name = w.name AND n.planned_by IS NULL AND n.deprecated IS NULL))
  AND ({conditions})
ORDER BY w.name
LIMIT :limit
"""


async def _users(connection: AsyncConnection, tenant: str, paths: tuple[str, ...], name: str) -> EntryUses:
    """The definitions, as their bare names mean them now, that name it."""
    variable = "jsonb_build_object('name', CAST(:name AS text))"
    conditions = " OR ".join(
        f"jsonb_path_exists(w.definition, CAST(:path{at} AS jsonpath), {variable})"
        for at in range(len(paths))
    )
    values = {f"path{at}": path for at, path in enumerate(paths)}
    rows = await connection.execute(
        text(_USERS.format(conditions=conditions)),
        {"tenant": tenant, "name": name, "limit": MAX_NAMED + 1, **values},
    )
    found = list(rows.scalars())
    return EntryUses(found[:MAX_NAMED], len(found) > MAX_NAMED)
