"""Models that rest because they suddenly failed more than they should."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.tables.router import quarantines as table

BY_ITSELF: Final = "rollout"
FIRST: Final = timedelta(hours=1)
MAX_QUARANTINE: Final = timedelta(days=1)
SOON: Final = timedelta(days=1)
"""Time within which another failure doubles the quarantine."""


@dataclass(frozen=True)
class Quarantine:
    model: str
    reason: str
    since: datetime
    until: datetime
    """Then it is tried again; its earlier outcomes count no longer."""


_COLUMNS: Final = (table.c.model, table.c.reason, table.c.since, table.c.until)


async def active(connection: AsyncConnection, tenant: str, *, simulated: bool) -> list[Quarantine]:
    """Return the models quarantined now by name, in real or in simulated runs."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(
            table.c.tenant_id == tenant,
            table.c.simulated == simulated,
            table.c.until > func.clock_timestamp(),
        )
        .order_by(table.c.model)
    )
    return [Quarantine(*row) for row in rows]


async def of_tenant(connection: AsyncConnection, tenant: str, *, simulated: bool) -> list[str]:
    """The models that must rest now."""
    return [one.model for one in await active(connection, tenant, simulated=simulated)]


async def every(connection: AsyncConnection, tenant: str, *, simulated: bool) -> list[Quarantine]:
    """Also those whose time has passed, one for each model."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(table.c.tenant_id == tenant, table.c.simulated == simulated)
        .order_by(table.c.model)
    )
    return [Quarantine(*row) for row in rows]


async def add(
    connection: AsyncConnection,
    tenant: str,
    model: str,
    reason: str,
    actor: str = BY_ITSELF,
    lasts: timedelta | None = None,
    *,
    simulated: bool,
) -> Quarantine:
    """Let a model rest from now on; one that rests already goes on as it is."""
    now = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    known = {one.model: one for one in await every(connection, tenant, simulated=simulated)}
    last = known.get(model)
    if last and last.until > now:
        return last
    if lasts is None:
        again = last is not None and now - last.until < SOON
        lasts = min(2 * (last.until - last.since), MAX_QUARANTINE) if last and again else FIRST
    values = {"reason": reason, "since": now, "until": now + lasts}
    await connection.execute(
        upsert(table)
        .values(tenant_id=tenant, model=model, simulated=simulated, **values)
        .on_conflict_do_update(index_elements=["tenant_id", "model", "simulated"], set_=values)
    )
    await audit.append(
        connection,
        tenant,
        actor,
        "quarantine.add",
        model,
        reason=reason,
        simulated=simulated,
        until=values["until"].isoformat(),
    )
    return Quarantine(model, reason, now, now + lasts)


async def lift(connection: AsyncConnection, tenant: str, model: str, actor: str, *, simulated: bool) -> bool:
    """End a model's quarantine now; return False if it had none."""
    ended = await connection.execute(
        text("""
        UPDATE quarantines SET until = clock_timestamp()
        WHERE tenant_id = :tenant AND model = :model AND simulated = :simulated AND until > clock_timestamp()
        """),
        {"tenant": tenant, "model": model, "simulated": simulated},
    )
    if ended.rowcount:
        await audit.append(connection, tenant, actor, "quarantine.lift", model)
    return bool(ended.rowcount)
