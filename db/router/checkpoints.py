"""Checkpoints of the router: the last ones of a training, its best, and those that were put to work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from sqlalchemy import delete, desc, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.errors import NotFound, Refused
from schema.tables.router import checkpoints as table
from schema.tables.router import trainings

State = Literal["shadow", "share", "all", "rolled_back", "retired"]

KEPT: Final = 3
"""Epochs kept per training."""
BY_ITSELF: Final = "rollout"
"""The actor of what evidence decides."""
_NEXT: Final[Mapping[str, tuple[State, ...]]] = {
    "shadow": ("share", "rolled_back"),
    "share": ("all", "rolled_back"),
    "all": ("rolled_back",),
}


@dataclass(frozen=True)
class ServingCheckpoint:
    """A production checkpoint that takes part in decisions, or watches them."""

    id: UUID
    number: int
    state: Literal["shadow", "share", "all"]
    sha256: str
    followed_until: str
    """The last outcome that its intervals have moved with; empty before the first."""
    moved: dict[str, Any] | None
    """Shift of the intervals, as router/statistics/interval_drift.py keeps it."""


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint without its content."""

    id: UUID
    tenant: str
    training: UUID
    kind: str
    number: int | None
    epoch: int
    sha256: str
    bytes: int
    manifest: dict[str, Any]
    state: State | None
    outcomes: int
    """Since it is in its state."""
    state_reason: str
    state_since: datetime | None
    created_at: datetime
    simulated: bool
    """Whether it learned from simulated runs, and decides in those alone."""
    trained_until: datetime
    """It has learned from nothing that ended later."""


_COLUMNS: Final = (
    table.c.id,
    table.c.tenant_id,
    table.c.training_id,
    table.c.kind,
    table.c.number,
    table.c.epoch,
    table.c.sha256,
    table.c.bytes,
    table.c.manifest,
    table.c.state,
    table.c.outcomes,
    table.c.state_reason,
    table.c.state_since,
    table.c.created_at,
    table.c.simulated,
    trainings.c.until,
)
_SUMMARIES: Final = select(*_COLUMNS).join(trainings, trainings.c.id == table.c.training_id)


async def save_training(
    connection: AsyncConnection,
    tenant: str,
    training: UUID,
    epoch: int,
    content: bytes,
    sha256: str,
    manifest: dict[str, Any],
) -> None:
    """Store an epoch's result, replacing an earlier one; the last KEPT epochs stay."""
    of_training = (table.c.training_id == training, table.c.kind == "training")
    await connection.execute(delete(table).where(*of_training, table.c.epoch == epoch))
    await _insert(connection, tenant, training, "training", epoch, content, sha256, manifest)
    last = select(table.c.epoch).where(*of_training).order_by(desc(table.c.epoch)).limit(KEPT)
    await connection.execute(delete(table).where(*of_training, table.c.epoch.not_in(last)))


async def save_milestone(
    connection: AsyncConnection,
    tenant: str,
    training: UUID,
    epoch: int,
    content: bytes,
    sha256: str,
    manifest: dict[str, Any],
) -> None:
    """Keep for ever what was the best so far. The same epoch again changes nothing."""
    same = (table.c.training_id == training, table.c.kind == "milestone", table.c.epoch == epoch)
    if await connection.scalar(select(table.c.id).where(*same)) is None:
        await _insert(connection, tenant, training, "milestone", epoch, content, sha256, manifest)


async def register(
    connection: AsyncConnection,
    tenant: str,
    training: UUID,
    epoch: int,
    content: bytes,
    sha256: str,
    manifest: dict[str, Any],
    actor: str,
) -> CheckpointSummary:
    """Put a checkpoint to work in shadow, under the tenant's next number; who was on the way gives way.

    A training registers once: again, it gives the same."""
    await take_turn(connection, tenant)
    done = await connection.execute(
        _SUMMARIES.where(table.c.training_id == training, table.c.kind == "production")
    )
    if row := done.one_or_none():
        return CheckpointSummary(*tuple(row))
    newest = await connection.scalar(
        select(func.coalesce(func.max(table.c.number), 0)).where(table.c.tenant_id == tenant)
    )
    number = int(newest or 0) + 1
    simulated = await connection.scalar(select(trainings.c.simulated).where(trainings.c.id == training))
    if challenger := await _in_state(connection, tenant, bool(simulated), "shadow", "share"):
        reason = f"{number} took its place before it served all"
        await _set(connection, challenger, "rolled_back", reason, actor)
    await _insert(
        connection,
        tenant,
        training,
        "production",
        epoch,
        content,
        sha256,
        manifest,
        number=number,
        state="shadow",
        state_reason="registered",
        state_since=func.clock_timestamp(),
        simulated=simulated,
    )
    await audit.append(
        connection, tenant, actor, "checkpoint.register", str(number), training=str(training), sha256=sha256
    )
    return await find(connection, tenant, number)


async def _insert(
    connection: AsyncConnection,
    tenant: str,
    training: UUID,
    kind: str,
    epoch: int,
    content: bytes,
    sha256: str,
    manifest: dict[str, Any],
    **more: Any,
) -> None:
    await connection.execute(
        insert(table).values(
            id=uuid4(),
            tenant_id=tenant,
            training_id=training,
            kind=kind,
            epoch=epoch,
            content=content,
            sha256=sha256,
            bytes=len(content),
            manifest=manifest,
            **more,
        )
    )


async def serving(connection: AsyncConnection, tenant: str, *, simulated: bool) -> list[ServingCheckpoint]:
    """Return the serving checkpoint of real or of simulated runs, then those on the way there: at most one
    per state."""
    rows = await connection.execute(
        select(
            table.c.id,
            table.c.number,
            table.c.state,
            table.c.sha256,
            func.coalesce(table.c.followed["until"].astext, ""),
            table.c.followed["moved"],
        )
        .where(
            table.c.tenant_id == tenant,
            table.c.simulated == simulated,
            table.c.state.in_(("shadow", "share", "all")),
        )
        .order_by(table.c.state != "all")
    )
    return [ServingCheckpoint(*row) for row in rows]


async def content(connection: AsyncConnection, id: UUID) -> bytes:
    """As it was stored; whether it still is that, its sha256 tells. Raises NotFound."""
    found = await connection.scalar(select(table.c.content).where(table.c.id == id))
    if found is None:
        raise NotFound("checkpoint_unknown", f"found no checkpoint {id}: it is no longer kept.")
    return bytes(found)


async def last_of_training(
    connection: AsyncConnection, training: UUID, kind: str
) -> CheckpointSummary | None:
    """The highest epoch that a training has kept: where another attempt goes on."""
    row = (
        await connection.execute(
            _SUMMARIES.where(table.c.training_id == training, table.c.kind == kind)
            .order_by(desc(table.c.epoch))
            .limit(1)
        )
    ).one_or_none()
    return CheckpointSummary(*tuple(row)) if row else None


async def find(connection: AsyncConnection, tenant: str, number: int) -> CheckpointSummary:
    """A production checkpoint. Raises NotFound."""
    row = (
        await connection.execute(_SUMMARIES.where(table.c.tenant_id == tenant, table.c.number == number))
    ).one_or_none()
    if row is None:
        raise NotFound(
            "checkpoint_unknown",
            f"found no checkpoint {number}; `facilitair router checkpoints` lists those that there are.",
        )
    return CheckpointSummary(*tuple(row))


async def page(
    connection: AsyncConnection,
    tenant: str,
    *,
    before: int | None = None,
    limit: int = 50,
    simulated: bool | None = None,
) -> list[CheckpointSummary]:
    """Production checkpoints, the newest first, from below the number `before` on; `simulated` None: whatever
    they learned from."""
    query = _SUMMARIES.where(table.c.tenant_id == tenant, table.c.number.is_not(None))
    if before is not None:
        query = query.where(table.c.number < before)
    if simulated is not None:
        query = query.where(table.c.simulated == simulated)
    rows = await connection.execute(query.order_by(desc(table.c.number)).limit(limit))
    return [CheckpointSummary(*tuple(row)) for row in rows]


async def of_training(connection: AsyncConnection, training: UUID) -> list[CheckpointSummary]:
    """Return all checkpoints that a training kept, by kind and epoch."""
    rows = await connection.execute(
        _SUMMARIES.where(table.c.training_id == training).order_by(table.c.kind, table.c.epoch)
    )
    return [CheckpointSummary(*tuple(row)) for row in rows]


async def tenants(connection: AsyncConnection, *, after: str = "", limit: int = 100) -> Sequence[str]:
    """Return tenants with a serving or watching checkpoint, sorted by name."""
    rows = await connection.scalars(
        select(table.c.tenant_id)
        .distinct()
        .where(table.c.state.in_(("shadow", "share", "all")), table.c.tenant_id > after)
        .order_by(table.c.tenant_id)
        .limit(limit)
    )
    return rows.all()


async def take_turn(connection: AsyncConnection, tenant: str) -> None:
    """Lock a tenant's serving state, so that no decision rests on a state that has changed meanwhile."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"checkpoints/{tenant}"}
    )


async def move(
    connection: AsyncConnection, tenant: str, number: int, state: State, reason: str, actor: str
) -> CheckpointSummary:
    """Let a checkpoint serve more, or no more: shadow -> share -> all, or rolled_back from each of them.

    The one that served all before is then retired; when one that served all is rolled back, the one that was
    retired last serves all again, else rules do. Raises NotFound, and Refused for any other way."""
    await take_turn(connection, tenant)
    found = await find(connection, tenant, number)
    if found.state == state:
        return found
    if state not in _NEXT.get(found.state or "", ()):
        ways = " or ".join(_NEXT.get(found.state or "", ())) or "none: its successor starts in shadow"
        raise Refused(
            "checkpoint_state",
            f"found checkpoint {number} in the state {found.state}, from where it cannot come to {state}; "
            f"expected {ways}.",
        )
    before = await _in_state(connection, tenant, found.simulated, "all")
    if state == "all" and before:
        await _set(connection, before, "retired", f"{number} serves in its place", actor)
    await _set(connection, found, state, reason, actor)
    if state == "rolled_back" and found.state == "all":
        again = (
            await connection.execute(
                _SUMMARIES.where(
                    table.c.tenant_id == tenant,
                    table.c.simulated == found.simulated,
                    table.c.state == "retired",
                )
                .order_by(desc(table.c.state_since), desc(table.c.number))
                .limit(1)
            )
        ).one_or_none()
        if again:
            await _set(
                connection, CheckpointSummary(*tuple(again)), "all", f"{number} was rolled back", actor
            )
    return await find(connection, tenant, number)


async def promote(connection: AsyncConnection, tenant: str, number: int, actor: str) -> CheckpointSummary:
    """The next state upwards, by command. Raises NotFound, Refused."""
    found = await find(connection, tenant, number)
    state: State = "all" if found.state == "share" else "share"
    return await move(connection, tenant, number, state, f"by {actor}", actor)


async def roll_back(
    connection: AsyncConnection, tenant: str, reason: str, actor: str, *, simulated: bool
) -> CheckpointSummary:
    """By command: who serves all, or where nobody does who is on the way, serves no more (S2-49).

    Raises Refused where rules serve already."""
    await take_turn(connection, tenant)
    found = await _in_state(connection, tenant, simulated, "all") or await _in_state(
        connection, tenant, simulated, "shadow", "share"
    )
    if found is None or found.number is None:
        raise Refused("checkpoint_state", "found no checkpoint that serves; rules do already.")
    return await move(connection, tenant, found.number, "rolled_back", reason, actor)


async def note_outcomes(connection: AsyncConnection, id: UUID, outcomes: int) -> None:
    """Record the number of outcomes seen since the checkpoint entered its state."""
    await connection.execute(update(table).where(table.c.id == id).values(outcomes=outcomes))


async def followed(connection: AsyncConnection, id: UUID) -> dict[str, Any]:
    """Return what `note_followed` stored last; empty before."""
    return dict(await connection.scalar(select(table.c.followed).where(table.c.id == id)) or {})


async def note_followed(connection: AsyncConnection, id: UUID, until: str, found: Mapping[str, Any]) -> None:
    """Record the shift of a checkpoint's intervals, and the time up to which outcomes were followed."""
    values = {"until": until, **found}
    await connection.execute(update(table).where(table.c.id == id).values(followed=values))


async def _in_state(
    connection: AsyncConnection, tenant: str, simulated: bool, *states: State
) -> CheckpointSummary | None:
    query = _SUMMARIES.where(
        table.c.tenant_id == tenant, table.c.simulated == simulated, table.c.state.in_(states)
    )
    row = (await connection.execute(query)).one_or_none()
    return CheckpointSummary(*tuple(row)) if row else None


async def _set(
    connection: AsyncConnection, found: CheckpointSummary, state: State, reason: str, actor: str
) -> None:
    await connection.execute(
        update(table)
        .where(table.c.id == found.id)
        .values(state=state, state_reason=reason, state_since=func.clock_timestamp(), outcomes=0)
    )
    await audit.append(
        connection,
        found.tenant,
        actor,
        f"checkpoint.{state}",
        str(found.number),
        reason=reason,
        before=found.state,
    )
