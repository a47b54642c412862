"""Completed collaborations in Weaviate: written under their own id, so that writing again changes nothing."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from db.outbox import LoggedEvent, Position
from db.runs import vectors
from memory.client import WeaviateMemory, answering
from memory.collections import ensure
from schema.errors import Unavailable
from schema.language.templates import as_text

EVENT_TYPES: Final = ("CollaborationFinished", "CollaborationForgotten")

Encode = Callable[[Sequence[str]], list[list[float]]]

MAX_MESSAGE_CHARS: Final = 16 * 1024 * 1024
"""Characters of text per message; the client takes messages of 100 MB."""
_CURSOR: Final = uuid5(NAMESPACE_URL, "facilitair:projection:memory")


class ObjectsRefused(Exception):
    """Weaviate answers, and does not take some of the objects."""


@dataclass(frozen=True)
class MemoryObject:
    """A collaboration as Weaviate holds it."""

    collaboration: UUID
    tenant: str
    name: str
    task: str
    final_output: str
    quality_score: float | None
    cost_usd: float
    encoder: str
    embedding: list[float]
    simulated: bool

    def properties(self) -> dict[str, Any]:
        found = {
            "task": self.task,
            "final_output": self.final_output,
            "quality_score": self.quality_score,
            "cost_usd": self.cost_usd,
            "name": self.name,
            "encoder": self.encoder,
            "collaboration_id": self.collaboration,
            "simulated": self.simulated,
        }
        return {name: value for name, value in found.items() if value is not None}


def completed_in(events: Sequence[LoggedEvent]) -> list[UUID]:
    return [UUID(event.aggregate_id) for event in events if event.payload.get("status") == "completed"]


def forgotten_in(events: Sequence[LoggedEvent]) -> dict[str, list[UUID]]:
    """Tenant → its runs that are to be forgotten."""
    found: dict[str, list[UUID]] = {}
    for event in events:
        if event.type == "CollaborationForgotten":
            found.setdefault(event.tenant, []).append(UUID(event.aggregate_id))
    return found


async def remembered(
    connection: AsyncConnection, events: Sequence[LoggedEvent], encoder: str, encode: Encode
) -> list[MemoryObject]:
    """Return memory's objects for the runs that `events` complete; `encode` makes the vectors that Postgres
    lacks."""
    found = await vectors.completed(connection, completed_in(events))
    missing = [item.task for item in found if item.embedding is None]
    made = iter(await asyncio.to_thread(encode, missing) if missing else [])
    # Figures are the log's: a cost that is booked later changes the row but not the event.
    facts = {UUID(one.aggregate_id): one.payload for one in events if one.type == "CollaborationFinished"}
    return [
        MemoryObject(
            collaboration=item.collaboration,
            tenant=item.tenant,
            name=item.name,
            task=item.task,
            final_output=as_text(item.final_output),
            quality_score=facts[item.collaboration]["quality"],
            cost_usd=float(facts[item.collaboration]["cost_usd"]),
            encoder=encoder,
            embedding=item.embedding if item.embedding is not None else next(made),
            simulated=item.simulated,
        )
        for item in found
    ]


async def position(memory: WeaviateMemory) -> Position:
    """Return Weaviate's position in the log; the beginning if it is empty, which is how it rebuilds
    itself."""
    client = await memory.client()
    with answering():
        if not await client.collections.exists(memory.collaborations):
            # Never write without it: Weaviate would guess a collection, without tenants.
            await ensure(memory)
            return Position()
        cursor: Any = await client.collections.use(memory.projections).query.fetch_object_by_id(_CURSOR)
    if cursor is None:
        return Position()
    return Position(int(str(cursor.properties["xid"])), int(str(cursor.properties["seq"])))


async def apply(memory: WeaviateMemory, batch: Sequence[MemoryObject], end: Position) -> None:
    """Write a batch, and only then that the log is copied up to `end`."""
    by_tenant: dict[str, list[MemoryObject]] = {}
    for item in batch:
        by_tenant.setdefault(item.tenant, []).append(item)
    for tenant, items in sorted(by_tenant.items()):
        await _upsert(memory, tenant, items)
    await move(memory, end)


async def forget(memory: WeaviateMemory, forgotten: Mapping[str, Sequence[UUID]]) -> None:
    """Delete runs by tenant; those that are not there are no matter."""
    client = await memory.client()
    from weaviate.classes.query import Filter

    for tenant, ids in sorted(forgotten.items()):
        with answering():
            collection = client.collections.use(memory.collaborations)
            if await collection.tenants.exists(tenant):
                await collection.with_tenant(tenant).data.delete_many(Filter.by_id().contains_any(ids))


async def _upsert(memory: WeaviateMemory, tenant: str, items: Sequence[MemoryObject]) -> None:
    client = await memory.client()
    from weaviate.classes.data import DataObject
    from weaviate.exceptions import WeaviateInsertManyAllFailedError

    collection = client.collections.use(memory.collaborations).with_tenant(tenant)
    for part in _parts(items):
        objects = [
            DataObject(properties=item.properties(), uuid=item.collaboration, vector=item.embedding)
            for item in part
        ]
        with answering():
            try:
                done = await collection.data.insert_many(objects)
            except WeaviateInsertManyAllFailedError as error:
                raise ObjectsRefused(str(error)[:500]) from error
        if done.errors:
            first = next(iter(done.errors.values())).message
            raise ObjectsRefused(f"{len(done.errors)} of {len(part)} objects: {first}")


def _parts(items: Sequence[MemoryObject]) -> Iterator[list[MemoryObject]]:
    """Parts that Weaviate takes in one message."""
    part: list[MemoryObject] = []
    chars = 0
    for item in items:
        more = len(item.final_output) + len(item.task)
        if part and chars + more > MAX_MESSAGE_CHARS:
            yield part
            part, chars = [], 0
        part.append(item)
        chars += more
    if part:
        yield part


async def move(memory: WeaviateMemory, end: Position) -> None:
    """Write that the log is copied up to `end`."""
    client = await memory.client()
    from weaviate.classes.data import DataObject

    # insert_many, because it is Weaviate's upsert.
    cursor = DataObject(properties={"xid": str(end.xid), "seq": str(end.seq)}, uuid=_CURSOR)
    with answering():
        done = await client.collections.use(memory.projections).data.insert_many([cursor])
    if done.errors:
        raise Unavailable("memory_unavailable", "Weaviate refused the projection's place in the log.")
