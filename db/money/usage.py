"""Usage against limits: token buckets, and counts that would take long to make anew."""

from typing import Final, Literal

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.money import tenant_rates, tenant_usage

Subject = Literal["definition_bytes", "schedules"]

# A clock that was set back must not take away what had been refilled.
_AVAILABLE: Final = """
    least(CAST(:most AS double precision), b.tokens
        + greatest(0, extract(epoch FROM clock_timestamp() - b.refilled_at)) * :most / 60)
"""
_TAKE: Final = text(f"""
INSERT INTO tenant_rates AS b (tenant_id, subject, tokens, refilled_at)
VALUES (:tenant, :subject, :most - :wanted, clock_timestamp())
ON CONFLICT (tenant_id, subject) DO UPDATE
    SET tokens = {_AVAILABLE} - :wanted, refilled_at = clock_timestamp()
    WHERE {_AVAILABLE} >= :wanted
RETURNING true
""")


_SETTLED: Final = tenant_usage.c.changed_at < func.now() - text("interval '1 minute'")


async def take_tokens(
    connection: AsyncConnection, tenant: str, subject: str, per_minute: int, wanted: int
) -> bool:
    """Take tokens from a bucket that holds `per_minute` and fills by as many; False where some lack."""
    values = {"tenant": tenant, "subject": subject, "most": per_minute, "wanted": wanted}
    return (await connection.execute(_TAKE, values)).first() is not None


async def taken_tokens(connection: AsyncConnection, tenant: str, subject: str, per_minute: int) -> int:
    """Return how many tokens of a bucket are taken now."""
    query = text(f"SELECT {_AVAILABLE} FROM tenant_rates b WHERE tenant_id = :tenant AND subject = :subject")
    values = {"tenant": tenant, "subject": subject, "most": per_minute}
    left = (await connection.execute(query, values)).scalar()
    return 0 if left is None else max(0, round(per_minute - left))


async def remove_bucket(connection: AsyncConnection, tenant: str, subject: str) -> None:
    c = tenant_rates.c
    await connection.execute(delete(tenant_rates).where(c.tenant_id == tenant, c.subject == subject))


async def add(connection: AsyncConnection, tenant: str, subject: Subject, amount: int) -> int:
    """Add to what a tenant uses; return the sum. Others who change it wait for the end of the transaction."""
    added = await connection.execute(
        upsert(tenant_usage)
        .values(tenant_id=tenant, subject=subject, used=max(0, amount))
        .on_conflict_do_update(
            index_elements=[*tenant_usage.primary_key],
            set_={"used": func.greatest(0, tenant_usage.c.used + amount), "changed_at": func.now()},
        )
        .returning(tenant_usage.c.used)
    )
    return int(added.scalar_one())


async def take_place(connection: AsyncConnection, tenant: str, subject: Subject, most: int) -> bool:
    """Count one more where there are fewer than `most`; False where there are not, or nothing was counted."""
    c = tenant_usage.c
    taken = await connection.execute(
        update(tenant_usage)
        .where(c.tenant_id == tenant, c.subject == subject, c.used < most)
        .values(used=c.used + 1, changed_at=func.now())
        .returning(c.used)
    )
    return taken.first() is not None


async def is_settled(connection: AsyncConnection, tenant: str, subject: Subject) -> bool:
    """Tell whether nothing was counted, or the count is old enough for lists of other processes to
    show it."""
    c = tenant_usage.c
    changed = select(c.used).where(c.tenant_id == tenant, c.subject == subject, ~_SETTLED)
    return (await connection.execute(changed)).first() is None


async def correct(connection: AsyncConnection, tenant: str, subject: Subject, used: int) -> None:
    """Write down what was counted anew, unless the count has changed meanwhile."""
    await connection.execute(
        upsert(tenant_usage)
        .values(tenant_id=tenant, subject=subject, used=used)
        .on_conflict_do_update(
            index_elements=[*tenant_usage.primary_key],
            set_={"used": used, "changed_at": func.now()},
            where=_SETTLED,
        )
    )


async def of_tenant(connection: AsyncConnection, tenant: str) -> dict[str, int]:
    """subject → what the tenant uses of it."""
    rows = await connection.execute(
        select(tenant_usage.c.subject, tenant_usage.c.used).where(tenant_usage.c.tenant_id == tenant)
    )
    return {row.subject: row.used for row in rows}
