"""Bound the size of the runs that one start of a stored version can lead to."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.errors import Refused
from schema.language.definition import Definition
from schema.rules.size import TreeSize, is_too_large, tree_fault, tree_size
from schema.tables.definitions import workflows

MAX_VERSIONS: Final = 1_000
"""Different versions within one run. More are taken for a tree that is too large."""
MAX_KEPT: Final = 10_000

_Key = tuple[str, int]
"""(name, version)"""

# A version never changes, nor what its refs are bound to: so neither does its size.
_sizes: dict[UUID, TreeSize] = {}


@dataclass(frozen=True)
class _StoredVersion:
    id: UUID
    pins: Mapping[str, int]

    @property
    def within(self) -> dict[str, _Key]:
        return _keys(self.pins)


async def sizes(connection: AsyncConnection, tenant: str, pins: Mapping[str, int]) -> dict[str, TreeSize]:
    """Return how large each ref's version can become with all that is within it.

    Raises Refused("too_large_tree") where too many different versions are within each other.
    """
    wanted = _keys(pins)
    found = await _load(connection, tenant, set(wanted.values()))
    new = [one.id for one in found.values() if one.id not in _sizes]
    rows = await connection.execute(select(workflows.c.id, workflows.c.source).where(workflows.c.id.in_(new)))
    # Reading a thousand definitions takes a while, and others' requests go on meanwhile.
    measured = await asyncio.to_thread(_measure, found, {row.id: row.source for row in rows})
    _keep(measured)
    return {ref: measured[found[key].id] for ref, key in wanted.items() if key in found}


async def check(connection: AsyncConnection, tenant: str, version: UUID, name: str, number: int) -> None:
    """Raise Refused("too_large_tree") for a version that no upload would take any more.

    What was stored before there was the limit is refused when it is started.
    """
    size = _sizes.get(version) or (await sizes(connection, tenant, {name: number})).get(name)
    if size and is_too_large(size):
        found, expected, fix = tree_fault(size)
        raise Refused("too_large_tree", f"found {name}@{number} with {found}; expected {expected}. {fix}")


async def _load(connection: AsyncConnection, tenant: str, wanted: set[_Key]) -> dict[_Key, _StoredVersion]:
    """Return the versions and all within them; nothing within one whose size is known."""
    loaded: dict[_Key, _StoredVersion] = {}
    c = workflows.c
    while wanted:
        if len(loaded) + len(wanted) > MAX_VERSIONS:
            raise Refused(
                "too_large_tree",
                f"found more than {MAX_VERSIONS:,} different versions within each other; expected at most "
                "so many. Let some of them do the work of their sub-collaborations themselves.",
            )
        rows = await connection.execute(
            select(c.name, c.version, c.id, c.pins).where(
                c.tenant_id == tenant, tuple_(c.name, c.version).in_(wanted)
            )
        )
        found = {(name, number): _StoredVersion(id, pins) for name, number, id, pins in rows}
        loaded |= found
        open = [one for one in found.values() if one.id not in _sizes]
        wanted = {key for one in open for key in one.within.values()} - loaded.keys()
    return loaded


def _measure(found: Mapping[_Key, _StoredVersion], sources: Mapping[UUID, str]) -> dict[UUID, TreeSize]:
    """Return the size of each version. What is within one was stored before it, so there is no circle."""
    known: dict[UUID, TreeSize] = {}

    def size_of(one: _StoredVersion) -> TreeSize:
        if one.id not in known:
            size = _sizes.get(one.id)
            if size is None:
                within = {ref: size_of(found[key]) for ref, key in one.within.items() if key in found}
                size = tree_size(Definition.model_validate_json(sources[one.id]), within)
            known[one.id] = size
        return known[one.id]

    for one in found.values():
        size_of(one)
    return known


def _keep(measured: Mapping[UUID, TreeSize]) -> None:
    if len(_sizes) + len(measured) > MAX_KEPT:
        _sizes.clear()
    _sizes.update(measured)


def _keys(pins: Mapping[str, int]) -> dict[str, _Key]:
    return {ref: (ref.partition("@")[0], number) for ref, number in pins.items()}
