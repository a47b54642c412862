"""Limits of tenants, users and definitions by day, month or in all: as people set them, and what is left."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from db.money.spending import Amount
from schema.errors import NotFound
from schema.tables.money import spending_limits as table

LimitScope = Literal["tenant", "user", "definition"]
Period = Literal["day", "month", "total"]
Key = tuple[str, str, str]
"""(scope, subject, period)"""

EACH: Final = "*"
"""Subject that stands for each user, or each definition, without a limit of its own for the period."""
MAX_SHOWN: Final = 20


@dataclass(frozen=True)
class SpendingLimit:
    scope: LimitScope
    subject: str
    """A user, a definition, EACH; of the tenant nothing."""
    period: Period
    usd: Decimal | None
    tokens: int | None
    set_by: str | None = None
    set_at: datetime | None = None

    @property
    def key(self) -> Key:
        return self.scope, self.subject, self.period


@dataclass(frozen=True)
class Counter:
    """Spent and reserved amounts of a limit in its current period."""

    subject: str
    spent: Amount
    reserved: Amount


_COLUMNS: Final = (
    table.c.scope,
    table.c.subject,
    table.c.period,
    table.c.limit_usd,
    table.c.limit_tokens,
    table.c.set_by,
    table.c.set_at,
)
_PERIOD: Final = """
    SELECT coalesce(to_char(now() AT TIME ZONE 'UTC',
            CASE :period WHEN 'day' THEN 'YYYY-MM-DD' WHEN 'month' THEN 'YYYY-MM' END), '') AS period,
        CASE :period WHEN 'total' THEN '-infinity'
            ELSE date_trunc(:period, now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' END AS since
"""
# Whose counters a call belongs to: as when it is opened, so also those of the definitions around its own.
_SUBJECTS: Final[dict[LimitScope, str]] = {
    "tenant": "SELECT id, '' AS subject FROM calls",
    "user": "SELECT id, requested_by FROM calls WHERE requested_by IS NOT NULL",
    "definition": """
        SELECT id, definition FROM calls WHERE definition IS NOT NULL
        UNION SELECT calls.id, workflows.name
        FROM calls JOIN lineage ON lineage.run = collaboration_id
        JOIN collaborations c ON c.id = lineage.id JOIN workflows ON workflows.id = c.workflow_id
    """,
}
# What may still turn out otherwise gets reservations of nothing where it has none: so it is booked here too.
_COUNT: Final = """
WITH RECURSIVE span AS ({period}), calls AS (
    SELECT m.id, state, basis, m.usd, input_tokens + output_tokens AS tokens, requested_by, definition,
        collaboration_id, state IN ('open', 'unknown') AS pending, reserved_usd, reserved_tokens
    FROM model_calls m, span WHERE tenant_id = :tenant AND opened_at >= since
), lineage AS (
    SELECT DISTINCT collaboration_id AS run, collaboration_id AS id FROM calls
    UNION ALL
    SELECT run, c.parent_id FROM lineage JOIN collaborations c ON c.id = lineage.id
    WHERE c.parent_id IS NOT NULL
), subjects (id, subject) AS ({subjects}), mine AS (
    SELECT calls.*, subject FROM calls JOIN subjects USING (id) WHERE :subject IN ('*', subject)
), noted AS (
    INSERT INTO reservations (call_id, tenant_id, scope, subject, period, usd, tokens)
    SELECT id, :tenant, :scope, subject, period, CASE WHEN pending THEN coalesce(reserved_usd, 0) ELSE 0 END,
        CASE WHEN pending THEN coalesce(reserved_tokens, 0) ELSE 0 END
    FROM mine, span WHERE pending OR basis = 'assumed' OR state = 'refunded' AND basis = 'asked'
    ON CONFLICT DO NOTHING
)
INSERT INTO spending (
    tenant_id, scope, subject, period, spent_usd, spent_tokens, reserved_usd, reserved_tokens
)
SELECT :tenant, :scope, subject, period, sum(usd), sum(tokens),
    coalesce(sum(reserved_usd) FILTER (WHERE pending), 0),
    coalesce(sum(reserved_tokens) FILTER (WHERE pending), 0)
FROM mine, span GROUP BY subject, period
ON CONFLICT (tenant_id, scope, subject, period) DO UPDATE SET spent_usd = excluded.spent_usd,
    spent_tokens = excluded.spent_tokens, reserved_usd = excluded.reserved_usd,
    reserved_tokens = excluded.reserved_tokens
"""


async def put(connection: AsyncConnection, tenant: str, limit: SpendingLimit, actor: str) -> SpendingLimit:
    """Set a limit, which holds from the next call on. What was spent in its period before counts."""
    known = await connection.scalar(
        select(func.count()).where(table.c.tenant_id == tenant, *_is(limit.key)).select_from(table)
    )
    values = {"limit_usd": limit.usd, "limit_tokens": limit.tokens, "set_by": actor, "set_at": func.now()}
    if not known:
        # Calls that are being booked this moment did not see the limit: they are waited for, and those that
        # begin meanwhile wait for us.
        await connection.execute(text("LOCK TABLE model_calls IN SHARE MODE"))
        count = _COUNT.format(period=_PERIOD, subjects=_SUBJECTS[limit.scope])
        scope, subject, period = limit.key
        await connection.execute(
            text(count), {"tenant": tenant, "scope": scope, "subject": subject, "period": period}
        )
    stored = await connection.execute(
        upsert(table)
        .values(tenant_id=tenant, scope=limit.scope, subject=limit.subject, period=limit.period, **values)
        .on_conflict_do_update(index_elements=[*table.primary_key], set_=values)
        .returning(*_COLUMNS)
    )
    found = SpendingLimit(*stored.one())
    await audit.append(
        connection,
        tenant,
        actor,
        "limit.set",
        "/".join(limit.key),
        usd=None if limit.usd is None else str(limit.usd),
        tokens=limit.tokens,
    )
    return found


async def remove(connection: AsyncConnection, tenant: str, key: Key, actor: str) -> None:
    """Raises NotFound."""
    gone = await connection.execute(delete(table).where(table.c.tenant_id == tenant, *_is(key)))
    if not gone.rowcount:
        scope, subject, period = key
        raise NotFound(
            "limit_unknown",
            f"found no limit of {scope} {subject or 'in all'} by {period}; expected one that "
            "`facilitair limits` shows.",
        )
    await audit.append(connection, tenant, actor, "limit.remove", "/".join(key))


async def page(
    connection: AsyncConnection, tenant: str, *, after: Key | None = None, limit: int = 100
) -> list[SpendingLimit]:
    """In the order of their keys, those behind `after`."""
    key = _COLUMNS[:3]
    query = select(*_COLUMNS).where(table.c.tenant_id == tenant)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(*after))
    rows = await connection.execute(query.order_by(*key).limit(limit))
    return [SpendingLimit(*row) for row in rows]


# Of one for each subject the fullest, but not those that have a limit of their own.
_COUNTERS: Final = text(f"""
WITH span AS ({_PERIOD})
SELECT s.subject, spent_usd, spent_tokens, reserved_usd, reserved_tokens
FROM spending s JOIN span ON s.period = span.period
WHERE s.tenant_id = :tenant AND s.scope = :scope AND (
    s.subject = :subject OR :subject = '*' AND NOT EXISTS (
        SELECT FROM spending_limits l WHERE l.tenant_id = s.tenant_id AND l.scope = s.scope
            AND l.subject = s.subject AND l.period = :period
    )
)
ORDER BY spent_usd + reserved_usd DESC, spent_tokens + reserved_tokens DESC, s.subject LIMIT :limit
""")


async def counters(connection: AsyncConnection, tenant: str, limit: SpendingLimit) -> list[Counter]:
    """Return amounts spent and reserved in the current period; for EACH the fullest subject first."""
    scope, subject, period = limit.key
    values: dict[str, Any] = {
        "tenant": tenant,
        "scope": scope,
        "subject": subject,
        "period": period,
        "limit": MAX_SHOWN,
    }
    rows = await connection.execute(_COUNTERS, values)
    return [
        Counter(
            row.subject,
            Amount(row.spent_usd, row.spent_tokens),
            Amount(row.reserved_usd, row.reserved_tokens),
        )
        for row in rows
    ]


async def holding(
    connection: AsyncConnection, tenant: str, *, user: str | None, definition: str
) -> list[tuple[SpendingLimit, Counter]]:
    """The limits that would hold for a run, and their counters now."""
    subjects = {"tenant": "", "user": user, "definition": definition}
    found: dict[tuple[str, str], SpendingLimit] = {}
    rows = await connection.execute(
        select(table.c.scope, table.c.subject, table.c.period, table.c.limit_usd, table.c.limit_tokens).where(
            table.c.tenant_id == tenant,
            tuple_(table.c.scope, table.c.subject).in_(
                [
                    (scope, one)
                    for scope, subject in subjects.items()
                    if subject is not None
                    for one in (subject, EACH)
                ]
            ),
        )
    )
    for row in rows:
        limit = SpendingLimit(*row)
        known = found.get((limit.scope, limit.period))
        if known is None or known.subject == EACH:
            found[limit.scope, limit.period] = limit
    held: list[tuple[SpendingLimit, Counter]] = []
    for limit in found.values():
        subject = subjects[limit.scope] or ""
        own = SpendingLimit(limit.scope, subject, limit.period, limit.usd, limit.tokens)
        counted = await counters(connection, tenant, own)
        held.append((own, counted[0] if counted else Counter(subject, Amount(), Amount())))
    return held


def _is(key: Key) -> tuple[Any, ...]:
    scope, subject, period = key
    return table.c.scope == scope, table.c.subject == subject, table.c.period == period
