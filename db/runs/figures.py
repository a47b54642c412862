"""Count runs that ended since the last count, read from the event log."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_LABELS: Final = 200
"""Models and error codes that are counted by name; those that come later are counted as `other`."""
OTHER: Final = "other"


@dataclass
class RunFigures:
    """Sums since the first reading."""

    read_up_to: str = ""
    """Transactions below this one are counted; empty before the first reading."""
    runs: Counter[str] = field(default_factory=Counter)
    """completed, failed or cancelled → how many."""
    run_seconds: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)
    """completed or failed → attempts at steps."""
    errors: Counter[str] = field(default_factory=Counter)
    """Code → failed runs and attempts."""
    cost_usd: Counter[str] = field(default_factory=Counter)
    """Model → dollars."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(model, input or output) → tokens."""


_SETTLED: Final = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
_ENDED: Final = text("""
    SELECT type, payload->>'status' AS status, coalesce(payload->>'sub_state', '') AS sub_state,
        payload->>'error_code' AS code, coalesce(payload->>'model', '') AS model, count(*) AS count,
        coalesce(sum((payload->>'cost_usd')::numeric), 0)::float AS usd,
        coalesce(sum((payload->>'latency_ms')::bigint), 0)::bigint AS milliseconds,
        coalesce(sum((payload->>'input_tokens')::bigint), 0)::bigint AS input,
        coalesce(sum((payload->>'output_tokens')::bigint), 0)::bigint AS output
    FROM outbox
    WHERE tenant_id = :tenant AND xid >= CAST(:since AS text)::xid8 AND xid < CAST(:until AS text)::xid8
        AND type IN ('CollaborationFinished', 'StepFinished', 'AttemptFailed')
    GROUP BY 1, 2, 3, 4, 5
""")


async def add_new(connection: AsyncConnection, tenant: str, figures: RunFigures) -> None:
    """Count what ended since the last reading; the first one only begins to count."""
    until = str(await connection.scalar(_SETTLED))
    if figures.read_up_to:
        asked = {"tenant": tenant, "since": figures.read_up_to, "until": until}
        for row in await connection.execute(_ENDED, asked):
            _add(figures, row._asdict())
    figures.read_up_to = until


def _add(figures: RunFigures, row: dict[str, Any]) -> None:
    count = row["count"]
    if row["code"]:
        figures.errors[_label(figures.errors, row["code"])] += count
    if row["type"] == "CollaborationFinished":
        is_cancelled = row["sub_state"] == "cancelled"
        figures.runs["cancelled" if is_cancelled else row["status"]] += count
        figures.run_seconds += row["milliseconds"] / 1000
        return
    figures.steps["completed" if row["type"] == "StepFinished" else "failed"] += count
    model = _label(figures.cost_usd, row["model"])
    figures.cost_usd[model] += row["usd"]
    figures.tokens[model, "input"] += row["input"]
    figures.tokens[model, "output"] += row["output"]


def _label(known: Counter[str], name: str) -> str:
    return name if name in known or len(known) < MAX_LABELS else OTHER
