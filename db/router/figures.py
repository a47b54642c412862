"""Sum routing decisions for the router's dashboards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

BUCKETS_MS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Upper ends of the latency histogram; what takes longer counts in the last one, without an end."""


@dataclass
class CountedTotal:
    count: int = 0
    total: float = 0.0


@dataclass
class RoutingFigures:
    """Totals of the decisions up to `until`."""

    until: datetime
    decisions: dict[tuple[str, bool], int] = field(default_factory=dict)
    """(policy, whether it was a fallback) → how many."""
    slower: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    """Decisions per bucket."""
    milliseconds: CountedTotal = field(default_factory=CountedTotal)
    confidence: CountedTotal = field(default_factory=CountedTotal)
    novelty: CountedTotal = field(default_factory=CountedTotal)
    order_sensitivity: CountedTotal = field(default_factory=CountedTotal)


# A decision is seen only when its transaction has committed, a moment after the time that it bears.
_NEW: Final = text("""
WITH bounds AS (SELECT now() - interval '2 seconds' AS until), fresh AS (
    SELECT policy, fallback, (features ->> 'ms')::float AS ms,
        (features ->> 'confidence')::float AS confidence,
        (features ->> 'novelty')::float AS novelty,
        (features ->> 'order_sensitivity')::float AS order_sensitivity
    FROM routing_decisions, bounds
    WHERE tenant_id = :tenant AND created_at > :since AND created_at <= until
)
SELECT until, policy, fallback, width_bucket(ms, CAST(:ends AS float[])) AS bucket,
    count(policy) AS decisions,
    count(ms) AS timed, coalesce(sum(ms), 0) AS ms,
    count(confidence) AS confident, coalesce(sum(confidence), 0) AS confidence,
    count(novelty) AS novel, coalesce(sum(novelty), 0) AS novelty,
    count(order_sensitivity) AS ordered, coalesce(sum(order_sensitivity), 0) AS order_sensitivity
FROM bounds LEFT JOIN fresh ON true
GROUP BY until, policy, fallback, bucket
""")


async def add_new(connection: AsyncConnection, tenant: str, figures: RoutingFigures) -> None:
    """Add what was decided since `figures.until`, as of two seconds ago."""
    values = {"tenant": tenant, "since": figures.until, "ends": list(BUCKETS_MS)}
    rows: Sequence[Any] = (await connection.execute(_NEW, values)).all()
    for row in rows:
        figures.until = max(figures.until, row.until)
        if row.policy is None:
            continue
        key = row.policy, row.fallback
        figures.decisions[key] = figures.decisions.get(key, 0) + row.decisions
        if row.bucket is not None:
            figures.slower[row.bucket] += row.timed
        _add(figures.milliseconds, row.timed, row.ms)
        _add(figures.confidence, row.confident, row.confidence)
        _add(figures.novelty, row.novel, row.novelty)
        _add(figures.order_sensitivity, row.ordered, row.order_sensitivity)


def _add(to: CountedTotal, count: int, total: float) -> None:
    to.count += count
    to.total += total
