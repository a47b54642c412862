"""The replay buffer: what policies that learn by trying have tried."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.router import experiences as table

KEPT: Final = 100_000
"""Steps of a policy; what is older than that is too unlike it to learn from."""


@dataclass(frozen=True, slots=True)
class Experience:
    """One step of an episode."""

    episode: UUID
    turn: int
    """From 0."""
    observation: list[float]
    action: int
    log_chance: float
    """Of the action, by the policy that took it."""
    value: float
    """Expected then of what was left."""
    reward: float
    done: bool
    """Whether the episode ended with it."""


async def append(connection: AsyncConnection, tenant: str, policy: str, tried: Sequence[Experience]) -> None:
    """Keep what was tried; what is known already stays as it is."""
    if tried:
        rows = [asdict(one) | {"tenant_id": tenant, "policy": policy} for one in tried]
        await connection.execute(upsert(table).on_conflict_do_nothing(), rows)


async def newest(connection: AsyncConnection, tenant: str, policy: str, limit: int) -> list[Experience]:
    """At most so many steps of the policy, those tried last, in the order of time; whole episodes only."""
    c = table.c
    rows = (
        await connection.execute(
            select(c.episode, c.turn, c.observation, c.action, c.log_chance, c.value, c.reward, c.done)
            .where(c.tenant_id == tenant, c.policy == policy)
            .order_by(c.id.desc())
            .limit(limit)
        )
    ).all()
    found = [Experience(*row) for row in reversed(rows)]
    # The limit may have cut the first one.
    begun = next((at for at, one in enumerate(found) if one.turn == 0), len(found))
    return found[begun:]


async def prune(connection: AsyncConnection, tenant: str, policy: str, keep: int = KEPT) -> int:
    """Forget all but the newest steps of a policy; how many went. May cut the oldest episode that is left."""
    c = table.c
    oldest = (
        select(c.id)
        .where(c.tenant_id == tenant, c.policy == policy)
        .order_by(c.id.desc())
        .offset(keep)
        .limit(1)
        .scalar_subquery()
    )
    gone = await connection.execute(
        delete(table).where(c.tenant_id == tenant, c.policy == policy, c.id <= oldest)
    )
    return gone.rowcount
