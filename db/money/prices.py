"""Tenants' own prices: versions that are only ever added, the newest holds."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import desc, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.tables.money import prices as table


@dataclass(frozen=True)
class TenantPrice:
    """US dollars for a million tokens."""

    model: str
    version: int
    input_usd: Decimal
    output_usd: Decimal
    cached_input_usd: Decimal | None
    set_by: str | None
    set_at: datetime


_COLUMNS: Final = (
    table.c.model,
    table.c.version,
    table.c.input_usd,
    table.c.output_usd,
    table.c.cached_input_usd,
    table.c.set_by,
    table.c.set_at,
)


def source(tenant: str, version: int) -> str:
    """Return the ledger's name of a price."""
    return f"tenant:{tenant}@{version}"


async def add(
    connection: AsyncConnection,
    tenant: str,
    model: str,
    input_usd: Decimal,
    output_usd: Decimal,
    cached_input_usd: Decimal | None,
    actor: str,
) -> TenantPrice:
    """A new version. It holds from the next call on; what was called before keeps its price."""
    # Two at once would both be the same version.
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"price/{tenant}/{model}"))))
    last = select(func.coalesce(func.max(table.c.version), 0)).where(
        table.c.tenant_id == tenant, table.c.model == model
    )
    row = (
        await connection.execute(
            insert(table)
            .values(
                tenant_id=tenant,
                model=model,
                version=last.scalar_subquery() + 1,
                input_usd=input_usd,
                output_usd=output_usd,
                cached_input_usd=cached_input_usd,
                set_by=actor,
            )
            .returning(*_COLUMNS)
        )
    ).one()
    added = TenantPrice(*row)
    await audit.append(
        connection,
        tenant,
        actor,
        "price.set",
        model,
        version=added.version,
        input_usd=str(input_usd),
        output_usd=str(output_usd),
        cached_input_usd=None if cached_input_usd is None else str(cached_input_usd),
    )
    return added


async def page(
    connection: AsyncConnection, tenant: str, *, after: str = "", limit: int = 100
) -> list[TenantPrice]:
    """The newest version of each model's price, in the order of models, those behind `after`."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(table.c.tenant_id == tenant, table.c.model > after)
        .ext(distinct_on(table.c.model))
        .order_by(table.c.model, desc(table.c.version))
        .limit(limit)
    )
    return [TenantPrice(*row) for row in rows]


async def versions_of(
    connection: AsyncConnection, tenant: str, model: str, *, below: int | None = None, limit: int = 100
) -> list[TenantPrice]:
    """All versions of the tenant's own price for a model, the newest first; those below one."""
    query = select(*_COLUMNS).where(table.c.tenant_id == tenant, table.c.model == model)
    if below is not None:
        query = query.where(table.c.version < below)
    rows = await connection.execute(query.order_by(table.c.version.desc()).limit(limit))
    return [TenantPrice(*row) for row in rows]


async def newest(connection: AsyncConnection, tenant: str) -> dict[str, TenantPrice]:
    """model → the tenant's own price for it."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(table.c.tenant_id == tenant)
        .ext(distinct_on(table.c.model))
        .order_by(table.c.model, desc(table.c.version))
    )
    return {row.model: TenantPrice(*row) for row in rows}
