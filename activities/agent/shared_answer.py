"""Take the answer of an equal step, or let equal steps take this one's."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.agent.deadline import Deadline
from activities.agent.single_flight import Flights
from db.runs import cache, in_flight
from db.runs.executions import AttemptOutcome
from schema.cel.expressions import Json


@dataclass
class SharedAnswer:
    """The place where equal steps of a tenant find one answer; without a key there is none."""

    flights: Flights
    tenant: str
    ttl_seconds: float | None
    """Greatest age of an answer that is taken; None if the step shares none."""
    key: str | None = None

    async def take(
        self, decides: dict[str, Json], execution: UUID, deadline: Deadline
    ) -> AttemptOutcome | None:
        """Return an equal execution's outcome, waiting for one under way; None if this one is to be made."""
        assert self.ttl_seconds is not None
        self.key = cache.key_of(decides)
        return await self.flights.take(
            self.tenant,
            self.key,
            self.ttl_seconds,
            execution,
            until=deadline.half_time,
            lead_seconds=max(1.0, deadline.end - asyncio.get_running_loop().time()),
        )

    def leave(self) -> None:
        """Share nothing any more: the conversation has become another one."""
        self.key = None

    async def hand_on(self, connection: AsyncConnection, before: UUID, after: UUID) -> None:
        """Let the next attempt go on making the answer."""
        if self.key:
            await in_flight.hand_on(connection, self.tenant, self.key, before, after)

    async def end(self, connection: AsyncConnection, execution: UUID, *, usable: bool) -> None:
        """Let equal steps take the answer if it is usable, else let one of them make its own."""
        if self.key:
            end = in_flight.land if usable else in_flight.release
            await end(connection, self.tenant, self.key, execution)
