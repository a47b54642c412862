"""Definitions as immutable versions, and the names under which people mean them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import (
    Select,
    bindparam,
    delete,
    desc,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit, outbox
from db.money import run_trees, usage
from schema.errors import InvalidDefinition, NotFound, Refused
from schema.events import AliasMoved, DefinitionStored
from schema.language.definition import Definition
from schema.language.dependencies import walk
from schema.language.json_schemas import with_defaults
from schema.language.problems import EnoughProblems, Problems
from schema.language.steps import CollaborationStep
from schema.language.templates import escape
from schema.rules.size import check_tree
from schema.tables.definitions import aliases, workflows

CURRENT: Final = "current"
"""The alias that says what the bare name means; while it is not set, the newest version is meant."""
MAX_NAMED: Final = 20
MAX_LEVELS: Final = 8
"""Collaborations within each other, the outermost included."""

_TYPE: Final = re.compile(r"([^@]+)@(?:([1-9][0-9]{0,8})|([a-z][a-z0-9_-]{0,31}))")


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
    pins: dict[str, int]
    """ref of a sub-collaboration, as it is written → the version it was bound to at upload."""
    deprecated: str | None
    """Why nobody should start it any more."""


COLUMNS: Final = (
    workflows.c.id,
    workflows.c.name,
    workflows.c.version,
    workflows.c.sha256,
    workflows.c.source,
    workflows.c.created_at,
    workflows.c.created_by,
    workflows.c.pins,
    workflows.c.deprecated,
)
"""Columns of a Version, in its order."""

# Built once: finding the version of a name is the first thing that every run does.
_MINE: Final = (workflows.c.tenant_id == bindparam("tenant"), workflows.c.name == bindparam("name"))
_ALIASED: Final = (
    select(aliases.c.version)
    .where(
        aliases.c.tenant_id == bindparam("tenant"),
        aliases.c.name == bindparam("name"),
        aliases.c.alias == bindparam("selector"),
    )
    .scalar_subquery()
)
_usable = workflows.alias("usable")
_NEWEST: Final = (
    select(_usable.c.version)
    .where(
        _usable.c.tenant_id == bindparam("tenant"),
        _usable.c.name == bindparam("name"),
        _usable.c.deprecated.is_(None),
        # What an agent planned is meant by its number only: no plan may replace what people upload.
        _usable.c.planned_by.is_(None),
    )
    .order_by(desc(_usable.c.version))
    .limit(1)
)
_BY_NUMBER: Final = select(*COLUMNS).where(*_MINE, workflows.c.version == bindparam("selector"))
_BY_ALIAS: Final = select(*COLUMNS).where(*_MINE, workflows.c.version == _ALIASED)
_BY_NAME: Final = select(*COLUMNS).where(
    *_MINE, workflows.c.version == func.coalesce(_ALIASED, _NEWEST.scalar_subquery())
)


def split_type(type: str) -> tuple[str, int | str | None]:
    """(name, selector) of a workflow type: `name`, `name@3` or `name@alias`."""
    match = _TYPE.fullmatch(type)
    if match is None:
        return type, None
    return match.group(1), int(match.group(2)) if match.group(2) else match.group(3)


def canonical(definition: Definition, pins: Mapping[str, int]) -> tuple[str, str]:
    """(source text in the author's order, sha256 of the order-free form and of what the refs mean)."""
    value = definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    ordered = _ordered(value) + (_ordered(dict(pins)) if pins else "")
    return json.dumps(value, ensure_ascii=False), hashlib.sha256(ordered.encode()).hexdigest()


def _ordered(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


async def save(
    connection: AsyncConnection,
    tenant: str,
    definition: Definition,
    actor: str,
    *,
    planned_by: UUID | None = None,
) -> tuple[Version, bool]:
    """(the stored version, whether it is new). The same content is the same version, and a new one is what
    the bare name means from then on. `planned_by` is the collaboration whose agent wrote the definition: such
    a version is meant by its number only. Raises InvalidDefinition for refs that cannot be bound."""
    pins = await bind(connection, tenant, definition)
    source, sha256 = canonical(definition, pins)
    name = definition.name
    await take_turn(connection, tenant, name)
    same = (workflows.c.tenant_id == tenant, workflows.c.name == name, workflows.c.sha256 == sha256)
    known = (await connection.execute(select(*COLUMNS).where(*same))).one_or_none()
    if known is not None:
        if planned_by is None:  # what a person uploads is theirs, also when an agent had the same idea before
            await connection.execute(
                update(workflows).where(*same, workflows.c.planned_by.is_not(None)).values(planned_by=None)
            )
        return Version(*known), False
    newest = select(func.coalesce(func.max(workflows.c.version), 0) + 1).where(
        workflows.c.tenant_id == tenant, workflows.c.name == name
    )
    row = (
        await connection.execute(
            insert(workflows)
            .values(
                id=uuid4(),
                tenant_id=tenant,
                name=name,
                version=newest.scalar_subquery(),
                sha256=sha256,
                definition=json.loads(source),
                source=source,
                created_by=actor,
                pins=pins,
                planned_by=planned_by,
            )
            .returning(*COLUMNS)
        )
    ).one()
    version = Version(*row)
    await usage.add(connection, tenant, "definition_bytes", len(source.encode()))
    await outbox.append(
        connection, tenant, str(version.id), DefinitionStored(str(version.id), name, version.number, sha256)
    )
    await audit.append(connection, tenant, actor, "definition.store", f"{name}@{version.number}")
    if planned_by is None:
        await drop_alias(connection, tenant, version.id, name, CURRENT)
    return version, True


async def check_room(connection: AsyncConnection, tenant: str, max_bytes: int) -> None:
    """Raise Refused("definitions_full") where what was just saved is more than a tenant may store."""
    stored = (await usage.of_tenant(connection, tenant)).get("definition_bytes", 0)
    if stored > max_bytes:
        raise Refused(
            "definitions_full",
            f"found {stored:,} bytes of stored definitions with this one; expected at most {max_bytes:,} "
            "(FACILITAIR_MAX_DEFINITION_BYTES). Ask the operator for more room.",
        )


async def take_turn(connection: AsyncConnection, tenant: str, name: str) -> None:
    """Changes to one name wait for each other, so that numbers have no gaps and aliases no surprises."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{tenant}/{name}"}
    )


async def find(
    connection: AsyncConnection, tenant: str, name: str, selector: int | str | None = None
) -> Version:
    """The version with that number or alias. Without one: what the alias `current` says, else the newest
    that is not deprecated. Raises NotFound, and Refused("definition_deprecated") when all are."""
    found = await _look_up(connection, tenant, name, selector)
    if found is None:
        raise await _why_not(connection, tenant, name, selector)
    return found


async def _look_up(
    connection: AsyncConnection, tenant: str, name: str, selector: int | str | None
) -> Version | None:
    query: Select[Any]
    if isinstance(selector, int):
        query = _BY_NUMBER
    elif selector is None or selector == CURRENT:
        query, selector = _BY_NAME, CURRENT
    else:
        query = _BY_ALIAS
    values = {"tenant": tenant, "name": name, "selector": selector}
    row = (await connection.execute(query, values)).one_or_none()
    return Version(*row) if row else None


async def _names(connection: AsyncConnection, tenant: str) -> str:
    """The first names that people stored something under, for people; what agents planned is no name to
    choose."""
    stored = (workflows.c.tenant_id == tenant, workflows.c.planned_by.is_(None))
    query = select(workflows.c.name).where(*stored).distinct().order_by(workflows.c.name)
    found = list((await connection.execute(query.limit(MAX_NAMED + 1))).scalars())
    more = "" if len(found) <= MAX_NAMED else " and others, which `facilitair list` shows"
    return ", ".join(found[:MAX_NAMED]) + more or "none stored yet"


async def _why_not(
    connection: AsyncConnection, tenant: str, name: str, selector: int | str | None
) -> NotFound | Refused:
    """Return why there is no such version, and which there are."""
    mine = (workflows.c.tenant_id == tenant, workflows.c.name == name)
    newest = (await connection.execute(select(func.max(workflows.c.version)).where(*mine))).scalar()
    if newest is None:
        return NotFound(
            "definition_unknown",
            f"found no definition {name!r}; expected one of: {await _names(connection, tenant)}. "
            "Upload it with `facilitair apply FILE`.",
        )
    if isinstance(selector, int):
        return NotFound(
            "definition_unknown",
            f"found no version {selector} of {name!r}; expected one up to {newest}. "
            f"`facilitair versions {name}` lists them.",
        )
    if selector is not None and selector != CURRENT:
        given = ", ".join(await aliases_of(connection, tenant, name)) or "none is set yet"
        return NotFound(
            "alias_unknown",
            f"found no alias {selector!r} of {name!r}; expected one of: {given}. "
            f"Set it with `facilitair alias {name}@{selector} VERSION`.",
        )
    last = (
        await connection.execute(
            select(*COLUMNS)
            .where(*mine, workflows.c.planned_by.is_(None))
            .order_by(desc(workflows.c.version))
            .limit(1)
        )
    ).one_or_none()
    if last is None:
        return NotFound(
            "definition_unknown",
            f"found only versions of {name!r} that agents planned; expected one that a person stored. "
            f"Name one by its number, such as {name}@{newest}, or upload one.",
        )
    return deprecated(Version(*last), f"every version of {name!r} deprecated, the last one")


async def startable(
    connection: AsyncConnection, tenant: str, name: str, selector: int | str | None = None
) -> Version:
    """The version that `find` finds, where a run of it is bounded. Raises Refused("too_large_tree") too."""
    version = await find(connection, tenant, name, selector)
    if version.pins:  # without them its size was checked when it was uploaded
        await run_trees.check(connection, tenant, version.id, version.name, version.number)
    return version


async def newest_usable(connection: AsyncConnection, tenant: str, name: str, *, below: int) -> int | None:
    """The number of the newest version below that one which the bare name may mean."""
    query = _NEWEST.where(_usable.c.version < below)
    return (await connection.execute(query, {"tenant": tenant, "name": name})).scalar()


async def newest_per_name(
    connection: AsyncConnection, tenant: str, *, after: str = "", limit: int = 100
) -> list[Version]:
    """The newest version that a person stored of each name in order of names, those behind `after`."""
    rows = await connection.execute(
        select(*COLUMNS)
        .where(workflows.c.tenant_id == tenant, workflows.c.name > after, workflows.c.planned_by.is_(None))
        .ext(distinct_on(workflows.c.name))
        .order_by(workflows.c.name, desc(workflows.c.version))
        .limit(limit)
    )
    return [Version(*row) for row in rows]


@dataclass(frozen=True)
class NewestRun:
    """The newest run of a definition, whichever its version."""

    id: str
    status: str
    sub_state: str
    started_at: datetime


@dataclass(frozen=True)
class DefinitionOverview:
    """A definition's description and newest run, for lists."""

    description: str
    last_run: NewestRun | None


# Per version, as the index has them: a definition's runs can be many.
_LOOKS: Final = text("""
SELECT newest.id, coalesce(newest.definition ->> 'description', '') AS description, last.*
FROM workflows AS newest LEFT JOIN LATERAL (
    SELECT run.* FROM workflows AS version CROSS JOIN LATERAL (
        SELECT temporal_workflow_id, status, sub_state, started_at FROM collaborations
        WHERE workflow_id = version.id ORDER BY started_at DESC LIMIT 1
    ) AS run
    WHERE version.tenant_id = newest.tenant_id AND version.name = newest.name
    ORDER BY run.started_at DESC LIMIT 1
) AS last ON true
WHERE newest.id = ANY(:ids)
""")


async def looks(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, DefinitionOverview]:
    """Version → its description, and the newest run of its definition."""
    rows = await connection.execute(_LOOKS, {"ids": list(ids)})
    return {
        row.id: DefinitionOverview(row.description, NewestRun(*row[2:]) if row.temporal_workflow_id else None)
        for row in rows
    }


async def versions(
    connection: AsyncConnection, tenant: str, name: str, *, below: int | None = None, limit: int = 100
) -> list[Version]:
    """The versions of one name, newest first, those below `below`."""
    query = select(*COLUMNS).where(workflows.c.tenant_id == tenant, workflows.c.name == name)
    if below is not None:
        query = query.where(workflows.c.version < below)
    rows = await connection.execute(query.order_by(desc(workflows.c.version)).limit(limit))
    return [Version(*row) for row in rows]


async def aliases_of(connection: AsyncConnection, tenant: str, name: str) -> dict[str, int]:
    """alias → version, in the order of aliases."""
    rows = await connection.execute(
        select(aliases.c.alias, aliases.c.version)
        .where(aliases.c.tenant_id == tenant, aliases.c.name == name)
        .order_by(aliases.c.alias)
    )
    return {row.alias: row.version for row in rows}


async def drop_alias(
    connection: AsyncConnection, tenant: str, version_id: UUID, name: str, alias: str
) -> None:
    dropped = await connection.execute(
        delete(aliases).where(aliases.c.tenant_id == tenant, aliases.c.name == name, aliases.c.alias == alias)
    )
    if dropped.rowcount:
        await outbox.append(connection, tenant, str(version_id), AliasMoved(name, alias, None))


def deprecated(version: Version, what: str = "") -> Refused:
    what = what or f"{version.name}@{version.number} deprecated"
    return Refused(
        "definition_deprecated",
        f"found {what}: {(version.deprecated or '').rstrip('.')}. Upload another version, name this one by "
        f"its number, or take it back with `facilitair deprecate {version.name} {version.number} --undo`.",
    )


def refers(definition: Definition) -> bool:
    """Tell whether a definition has references to bind."""
    return any(_refs(definition))


def _refs(definition: Definition) -> Iterator[tuple[str, CollaborationStep, str]]:
    """(JSON pointer, step, ref) of every step that runs a stored definition."""
    for pointer, _, step, _ in walk(definition.steps):
        if isinstance(step, CollaborationStep) and step.ref is not None:
            yield pointer, step, step.ref


async def stored_refs(connection: AsyncConnection, tenant: str, definition: Definition) -> dict[str, int]:
    """ref → version as of now, of those sub-collaborations that are stored."""
    found = {
        ref: await _look_up(connection, tenant, *split_type(ref))
        for ref in {ref for _, _, ref in _refs(definition)}
    }
    return {ref: version.number for ref, version in found.items() if version is not None}


async def bind(connection: AsyncConnection, tenant: str, definition: Definition) -> dict[str, int]:
    """ref → version of every sub-collaboration, as of now; raises InvalidDefinition with all that is wrong.

    Refs are bound at upload, to versions that were stored before: a circle of collaborations cannot come up.
    """
    problems = Problems()
    bound: dict[str, Version | None] = {}
    with suppress(EnoughProblems):
        for pointer, step, ref in _refs(definition):
            name, selector = split_type(ref)
            if name == definition.name and not isinstance(selector, int):
                problems.add(
                    "collaboration_recursive",
                    f"{pointer}/ref",
                    f"{ref!r}, the definition's own name",
                    "another collaboration, or an earlier version by its number",
                    "A collaboration cannot run itself: repeat steps with a loop.",
                )
                continue
            if ref not in bound:
                bound[ref] = await _look_up(connection, tenant, name, selector)
            version = bound[ref]
            if version is not None:
                _check_input(pointer, step, version, problems)
                continue
            reason = (await _why_not(connection, tenant, name, selector)).message
            problems.add(
                "collaboration_unknown",
                f"{pointer}/ref",
                repr(ref),
                "a stored definition",
                reason[:1].upper() + reason[1:],
            )
    pins = {ref: version.number for ref, version in bound.items() if version is not None}
    if not problems.all and await _too_deep(connection, tenant, pins):
        problems.add(
            "collaboration_too_deep",
            "/steps",
            f"more than {MAX_LEVELS} levels of collaborations within each other",
            f"at most {MAX_LEVELS}",
            "Let one of them do the work of its sub-collaboration itself.",
        )
    if not problems.all and pins:
        with suppress(EnoughProblems):
            check_tree(definition, await run_trees.sizes(connection, tenant, pins), problems)
    if problems.all:
        raise InvalidDefinition(problems.all)
    return pins


def _check_input(pointer: str, step: CollaborationStep, version: Version, problems: Problems) -> None:
    """Check that a literal input has the fields that the sub-collaboration requires."""
    schema = json.loads(version.source).get("input", {})
    if not isinstance(step.input, dict):
        return
    given = with_defaults(schema, step.input)
    for field in schema.get("required", []):
        if field not in given:
            problems.add(
                "collaboration_input_wrong",
                f"{pointer}/input/{escape(field)}",
                "nothing",
                f"the field {field!r} that the input of {version.name}@{version.number} must have",
                "Add it.",
            )


async def _too_deep(connection: AsyncConnection, tenant: str, pins: Mapping[str, int]) -> bool:
    """Tell whether the pinned definitions nest deeper than a run may."""
    level = {(split_type(ref)[0], number) for ref, number in pins.items()}
    for _ in range(MAX_LEVELS - 1):
        if not level:
            return False
        rows = await connection.execute(
            select(workflows.c.pins).where(
                workflows.c.tenant_id == tenant, tuple_(workflows.c.name, workflows.c.version).in_(level)
            )
        )
        level = {(split_type(ref)[0], number) for inner in rows.scalars() for ref, number in inner.items()}
    return bool(level)
