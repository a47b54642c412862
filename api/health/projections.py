"""Measure how far graph and memory lag behind the log. Drivers load on first use."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

from db import outbox
from db.engine import transaction
from schema.errors import FacilitairError
from schema.settings import Settings

if TYPE_CHECKING:
    from graph.client import GraphDrivers
    from memory.client import WeaviateMemory

_SERVER_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Lag:
    """`events` is None when the server does not say how far it is."""

    events: int | None
    seconds: float | None = None
    detail: str = ""


@dataclass
class Projections:
    settings: Settings
    _graph: "GraphDrivers | None" = None
    _memory: "WeaviateMemory | None" = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def graph(self) -> "GraphDrivers":
        async with self._opening:
            if self._graph is None:
                from graph import client

                self._graph = await asyncio.to_thread(client.connect, self.settings)
            return self._graph

    async def memory(self) -> "WeaviateMemory":
        async with self._opening:
            if self._memory is None:
                from memory.client import WeaviateMemory

                self._memory = WeaviateMemory(self.settings)
            return self._memory

    async def lags(self, engine: AsyncEngine) -> dict[str, Lag]:
        found = await asyncio.gather(self._lag(engine, "graph"), self._lag(engine, "memory"))
        return dict(zip(("graph", "memory"), found, strict=True))

    async def _lag(self, engine: AsyncEngine, name: str) -> Lag:
        try:
            async with asyncio.timeout(_SERVER_TIMEOUT_SECONDS):
                position, types = await (self._of_graph() if name == "graph" else self._of_memory())
        except TimeoutError:
            return Lag(None, detail=f"no answer within {_SERVER_TIMEOUT_SECONDS:g} s")
        except FacilitairError as error:
            return Lag(None, detail=error.message)
        async with transaction(engine) as connection:
            events, seconds = await outbox.behind(connection, position, types)
        return Lag(events, round(seconds, 1))

    async def _of_graph(self) -> tuple[outbox.Position, list[str] | None]:
        from graph import projection

        return await projection.position(await self.graph()), None

    async def _of_memory(self) -> tuple[outbox.Position, list[str] | None]:
        from memory import projection

        return await projection.position(await self.memory()), list(projection.EVENT_TYPES)

    async def close(self) -> None:
        for client in (self._graph, self._memory):
            if client is not None:
                await client.close()
