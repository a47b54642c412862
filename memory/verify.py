"""Check that Weaviate holds what the log and Postgres say it should."""

from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db import outbox
from db.engine import transaction
from memory.client import WeaviateMemory, answering
from memory.projection import EVENT_TYPES, Encode, MemoryObject, position, remembered

Contents = dict[tuple[str, UUID], dict[str, Any]]
"""(tenant, collaboration) → what is kept of it"""

# Vectors travel as 32-bit floats.
_VECTOR_TOLERANCE = 1e-6


def expected(items: Iterable[MemoryObject]) -> Contents:
    return {
        (item.tenant, item.collaboration): {**item.properties(), "vector": item.embedding} for item in items
    }


async def actual(memory: WeaviateMemory) -> Contents:
    """Every object of every tenant."""
    client = await memory.client()
    found: Contents = {}
    with answering():
        if not await client.collections.exists(memory.collaborations):
            return {}
        collection = client.collections.use(memory.collaborations)
        for tenant in sorted(await collection.tenants.get()):
            async for item in collection.with_tenant(tenant).iterator(include_vector=True):
                kept = {name: value for name, value in item.properties.items() if value is not None}
                found[tenant, UUID(str(item.uuid))] = {**kept, "vector": item.vector["default"]}
    return found


async def check(engine: AsyncEngine, memory: WeaviateMemory, encoder: str, encode: Encode) -> list[str]:
    """Compare Weaviate with the log up to where Weaviate is; the differences."""
    place, found = await outbox.read_at_rest(partial(position, memory), partial(actual, memory))
    async with transaction(engine) as connection:
        events = await outbox.read_up_to(connection, place, list(EVENT_TYPES))
        items = await remembered(connection, events, encoder, encode)
    return differences(expected(items), found)


def differences(want: Contents, have: Contents) -> list[str]:
    """One line per object that is missing, extra or different; none when they are equal."""
    lines: list[str] = []
    for key in sorted(want.keys() | have.keys()):
        if key not in have:
            lines.append(f"{key}: missing")
        elif key not in want:
            lines.append(f"{key}: extra")
        else:
            lines.extend(f"{key}: {name} differs" for name in _different(want[key], have[key]))
    return lines


def _different(want: dict[str, Any], have: dict[str, Any]) -> list[str]:
    return [
        name
        for name in sorted(want.keys() | have.keys())
        if not (
            _close(want[name], have[name])
            if name == "vector"
            else want.get(name) == have.get(name) and (name in want) == (name in have)
        )
    ]


def _close(want: list[float], have: list[float]) -> bool:
    return len(want) == len(have) and all(
        abs(left - right) <= _VECTOR_TOLERANCE for left, right in zip(want, have, strict=True)
    )
