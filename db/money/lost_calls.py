"""Lost calls: their cost is unknown, and no process is left that would report it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.money.ledger import Tokens
from db.money.spending import LimitState
from schema.tables.runs import agent_executions as executions


@dataclass(frozen=True)
class LostCall:
    id: UUID
    tenant: str
    execution: UUID | None
    model: str
    account: str
    response_id: str | None
    error_code: str | None
    input_price_usd: Decimal
    output_price_usd: Decimal
    cached_input_price_usd: Decimal | None
    most_input_tokens: int
    reserved_usd: Decimal | None
    reserved_tokens: int | None
    opened_at: datetime
    overdue_seconds: float
    """Seconds past the call's time; negative while it may still be awaited."""
    given_up: bool
    """Whether its own worker reported that it does not know."""


# An execution that is no longer running has nobody who waits, and so has one whose run has ended. What is
# left running by a run that was lost is found by the time it may take.
_LOST: Final = """
SELECT c.id, c.tenant_id, c.execution_id, c.model, c.account, c.response_id, c.error_code,
    c.input_price_usd, c.output_price_usd, c.cached_input_price_usd, c.most_input_tokens, c.reserved_usd,
    c.reserved_tokens, c.opened_at, CAST(extract(epoch FROM now() - c.ends_by) AS float8),
    c.state = 'unknown'
FROM model_calls c
LEFT JOIN agent_executions e ON e.id = c.execution_id
LEFT JOIN collaborations r ON r.id = c.collaboration_id
WHERE c.state IN ('open', 'unknown') AND (
    c.state = 'unknown' OR c.ends_by < now() - make_interval(secs => :patience)
    OR c.execution_id IS NOT NULL
    AND (e.status IS DISTINCT FROM 'running' OR r.status IS DISTINCT FROM 'running')
)
"""
_OLDEST: Final = text(f"""{_LOST} AND (c.opened_at, c.id) > (CAST(:at AS timestamptz), CAST(:id AS uuid))
    ORDER BY c.opened_at, c.id LIMIT :limit""")
_IN_THE_WAY: Final = text(f"""{_LOST} AND c.id IN (
        SELECT call_id FROM reservations
        WHERE tenant_id = :tenant AND scope = :scope AND subject = :subject AND period = :period
    ) ORDER BY c.opened_at, c.id LIMIT :limit""")

LOST_AFTER_SECONDS: Final = 60.0
"""Time past its end after which a call counts as lost though its execution seems to be running."""


async def oldest(connection: AsyncConnection, limit: int, behind: LostCall | None = None) -> list[LostCall]:
    """The oldest first, those behind the last one of the page before."""
    at, id = (behind.opened_at, behind.id) if behind else ("-infinity", UUID(int=0))
    values = {"at": at, "id": id, "limit": limit, "patience": LOST_AFTER_SECONDS}
    return [LostCall(*row) for row in await connection.execute(_OLDEST, values)]


async def in_the_way(
    connection: AsyncConnection, tenant: str, standing: LimitState, limit: int
) -> list[LostCall]:
    """Return the lost calls that still reserve something of a limit."""
    values = {
        "tenant": tenant,
        "scope": standing.scope,
        "subject": standing.subject,
        "period": standing.period,
        "limit": limit,
        "patience": LOST_AFTER_SECONDS,
    }
    return [LostCall(*row) for row in await connection.execute(_IN_THE_WAY, values)]


async def bytes_said(connection: AsyncConnection, call: LostCall) -> int:
    """Return how many bytes of the answer were stored."""
    query = text("SELECT coalesce(sum(octet_length(token)), 0) FROM token_stream WHERE execution_id = :id")
    said: int = (await connection.execute(query, {"id": call.execution})).scalar_one()
    return said


async def take(connection: AsyncConnection, call: LostCall) -> None:
    """Lock the attempt's row, as its worker does before the ledger's: in another order the two could wait
    for each other."""
    if call.execution:
        attempt = select(executions.c.id).where(executions.c.id == call.execution)
        await connection.execute(attempt.with_for_update())


async def correct_execution(
    connection: AsyncConnection, call: LostCall, counted: Tokens, usd: Decimal
) -> None:
    """Write the call's cost into the attempt's row."""
    await connection.execute(
        update(executions)
        .where(executions.c.id == call.execution)
        .values(input_tokens=counted.input_tokens, output_tokens=counted.output_tokens, cost_usd=usd)
    )
