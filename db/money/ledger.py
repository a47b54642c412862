"""The ledger: every call of a model, booked before it is made and closed when its cost is known.

open → settled (its usage is known), refunded (nothing was billed) or unknown (nobody knows yet, and what was
reserved for it stays reserved). What was only assumed gives way to what is known later; nothing is booked
twice.
"""

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.money.spending import Amount, LimitState, Scope, count_from_now, refusal
from schema.errors import ProviderError
from schema.temporal.memo import BY_TEMPORAL

Basis = Literal["usage", "larger", "asked", "assumed"]
"""Source of the booked tokens: the answer (`usage`), the larger of two counts that contradict each other
(`larger`), a later question (`asked`), or an estimate or bound (`assumed`)."""


@dataclass(frozen=True)
class Booking:
    """A call that is about to be made."""

    id: UUID
    tenant: str
    account: str
    provider: str
    model: str
    """The platform id that was asked."""
    priced_model: str
    """The one that answers, whose price counts."""
    simulated: bool
    most_input_tokens: int
    most_output_tokens: int
    seconds: float
    """Seconds after which no process waits for it any longer."""
    purpose: str = "step"
    run: UUID | None = None
    execution: UUID | None = None
    path: str | None = None
    agent_name: str | None = None
    requested_by: str | None = None
    """Actor of a call outside of a run."""
    step: str | None = None
    step_usd: Decimal | None = None
    """Budget of all calls of the step."""
    step_tokens: int | None = None
    # What it costs, unless the tenant has a price of its own. None: unknown.
    price_source: str | None = None
    input_usd: Decimal | None = None
    output_usd: Decimal | None = None
    cached_input_usd: Decimal | None = None


@dataclass(frozen=True)
class Reservation:
    """Price and bound under which a call was booked."""

    bounded: bool
    """Whether any limit applies."""
    price_source: str
    input_usd: Decimal
    output_usd: Decimal
    cached_input_usd: Decimal | None


class PriceMissing(Exception):
    """Neither the tenant nor we have a price for the model; nothing was booked."""


# One statement, so that locks are held for a moment of the server's own and never while a worker is busy.
# Rows are locked in one order for all calls, so no two wait for each other in a circle. A row that another
# call holds is read again when that one has ended: what is checked is what is then written.
_OPEN: Final = text("""
WITH RECURSIVE lineage AS (
    SELECT id, parent_id, workflow_id, requested_by, 0 AS depth
    FROM collaborations WHERE id = CAST(:run AS uuid)
    UNION ALL
    SELECT c.id, c.parent_id, c.workflow_id, c.requested_by, depth + 1
    FROM collaborations c JOIN lineage ON c.id = lineage.parent_id
), names AS (
    SELECT name, depth FROM lineage JOIN workflows ON workflows.id = workflow_id
), asker AS (
    -- Whoever asked for the outermost run asked for all that runs within it.
    SELECT coalesce(
        (SELECT coalesce(requested_by, CAST(:by_temporal AS text)) FROM lineage
            ORDER BY depth DESC LIMIT 1),
        CAST(:requested_by AS text)
    ) AS name
), price AS (
    SELECT coalesce(own.source, CAST(:price_source AS text)) AS source,
        CASE WHEN own.source IS NULL THEN CAST(:input_usd AS numeric) ELSE own.input_usd END AS input_usd,
        CASE WHEN own.source IS NULL THEN CAST(:output_usd AS numeric) ELSE own.output_usd END AS output_usd,
        CASE WHEN own.source IS NULL THEN CAST(:cached_input_usd AS numeric) ELSE own.cached_input_usd END
            AS cached_input_usd
    FROM (SELECT) AS always LEFT JOIN LATERAL (
        SELECT 'tenant:' || tenant_id || '@' || version AS source, input_usd, output_usd, cached_input_usd
        FROM prices WHERE tenant_id = :tenant AND model = :priced_model ORDER BY version DESC LIMIT 1
    ) AS own ON true
), worst AS (
    -- Multiplied, for a quotient would be rounded before it is rounded.
    SELECT CAST(:most_input_tokens AS bigint) + CAST(:most_output_tokens AS bigint) AS tokens,
        round((CAST(:most_input_tokens AS bigint) * greatest(input_usd, cached_input_usd)
            + CAST(:most_output_tokens AS bigint) * output_usd) * 0.000001, 6) AS usd
    FROM price
), subjects AS (
    SELECT 'tenant' AS scope, '' AS subject
    UNION ALL SELECT 'user', name FROM asker WHERE name IS NOT NULL
    UNION ALL SELECT DISTINCT 'definition', name FROM names
), limits AS (
    -- What names the user or the definition goes before what is said of each.
    SELECT DISTINCT ON (s.scope, s.subject, l.period) s.scope, s.subject, coalesce(to_char(
            now() AT TIME ZONE 'UTC',
            CASE l.period WHEN 'day' THEN 'YYYY-MM-DD' WHEN 'month' THEN 'YYYY-MM' END), '') AS period,
        l.limit_usd, l.limit_tokens
    FROM subjects s JOIN spending_limits l
        ON l.tenant_id = :tenant AND l.scope = s.scope AND l.subject IN (s.subject, '*')
    ORDER BY s.scope, s.subject, l.period, l.subject = '*'
), held AS (
    SELECT *, NULL AS depth FROM limits
    UNION ALL
    SELECT s.scope, s.subject, s.period, s.limit_usd, s.limit_tokens, depth
    FROM lineage JOIN spending s
        ON s.tenant_id = :tenant AND s.scope = 'run' AND s.subject = CAST(lineage.id AS text)
    UNION ALL
    SELECT 'step', CAST(:step AS text), '', CAST(:step_usd AS numeric), CAST(:step_tokens AS bigint), NULL
    WHERE CAST(:step_usd AS numeric) IS NOT NULL OR CAST(:step_tokens AS bigint) IS NOT NULL
), locked AS MATERIALIZED (
    SELECT s.scope, s.subject, s.period,
        -- A budget of a run may just have been raised.
        CASE WHEN s.scope = 'run' THEN s.limit_usd ELSE h.limit_usd END AS limit_usd,
        CASE WHEN s.scope = 'run' THEN s.limit_tokens ELSE h.limit_tokens END AS limit_tokens,
        s.spent_usd, s.spent_tokens, s.reserved_usd, s.reserved_tokens
    FROM held h JOIN spending s ON s.tenant_id = :tenant
        AND s.scope = h.scope AND s.subject = h.subject AND s.period = h.period
    ORDER BY s.scope, s.subject, s.period FOR UPDATE OF s
), verdict AS (
    SELECT (SELECT count(*) FROM held) > 0 AS bounded,
        (SELECT source IS NOT NULL FROM price)
        AND (SELECT count(*) FROM held) = (SELECT count(*) FROM locked)
        AND NOT EXISTS (
            SELECT FROM locked, worst WHERE spent_usd + reserved_usd + usd > limit_usd
                OR spent_tokens + reserved_tokens + tokens > limit_tokens
        ) AS goes
), booked AS (
    INSERT INTO model_calls (
        id, tenant_id, purpose, collaboration_id, execution_id, path, agent_name, definition, requested_by,
        account, provider, model, simulated, state, price_source, input_price_usd, output_price_usd,
        cached_input_price_usd, most_input_tokens, reserved_usd, reserved_tokens, opened_at, ends_by
    )
    SELECT :id, :tenant, :purpose, :run, :execution, :path, :agent_name,
        (SELECT name FROM names WHERE depth = 0), asker.name, :account, :provider, :model, :simulated,
        'open', source, input_usd, output_usd, cached_input_usd, :most_input_tokens,
        CASE WHEN bounded THEN usd END, CASE WHEN bounded THEN tokens END,
        -- The moment by which the periods were chosen.
        now(), now() + make_interval(secs => :seconds)
    FROM verdict, price, worst, asker WHERE goes
), noted AS (
    INSERT INTO reservations (call_id, tenant_id, scope, subject, period, usd, tokens)
    SELECT :id, :tenant, scope, subject, period, usd, tokens FROM locked, worst, verdict WHERE goes
), raised AS (
    UPDATE spending s SET reserved_usd = s.reserved_usd + usd, reserved_tokens = s.reserved_tokens + tokens
    FROM locked l, worst, verdict
    WHERE goes AND s.tenant_id = :tenant
        AND s.scope = l.scope AND s.subject = l.subject AND s.period = l.period
)
SELECT bounded, goes, source, input_usd, output_usd, cached_input_usd, worst.usd, worst.tokens,
    h.scope, h.subject, h.period, depth, l.scope IS NOT NULL AS counted,
    coalesce(l.limit_usd, h.limit_usd) AS limit_usd, coalesce(l.limit_tokens, h.limit_tokens) AS limit_tokens,
    coalesce(spent_usd, 0) AS spent_usd, coalesce(spent_tokens, 0) AS spent_tokens,
    coalesce(reserved_usd, 0) AS reserved_usd, coalesce(reserved_tokens, 0) AS reserved_tokens
FROM verdict CROSS JOIN price CROSS JOIN worst LEFT JOIN held h ON true
    LEFT JOIN locked l ON l.scope = h.scope AND l.subject = h.subject AND l.period = h.period
ORDER BY depth DESC NULLS FIRST, h.scope, h.subject, h.period
""")


async def open(connection: AsyncConnection, call: Booking) -> Reservation:
    """Book a call and set its worst case aside wherever a limit holds for it, or neither.

    Raises BudgetExceeded, BudgetBusy or PriceMissing. A connection that commits by itself holds the locks
    for the shortest time.
    """
    while True:
        rows = (await connection.execute(_OPEN, asdict(call) | {"by_temporal": BY_TEMPORAL})).all()
        first = rows[0]
        if first.source is None:
            raise PriceMissing
        if first.goes:
            return Reservation(
                first.bounded, first.source, first.input_usd, first.output_usd, first.cached_input_usd
            )
        uncounted = [_standing(row) for row in rows if not row.counted]
        if not uncounted:
            break
        await count_from_now(connection, call.tenant, uncounted)
    refused = refusal([_standing(row) for row in rows], Amount(first.usd, first.tokens))
    assert refused is not None
    raise refused


def _standing(row: Row[Any]) -> LimitState:
    scope: Scope = row.scope
    return LimitState(
        scope,
        row.subject,
        row.period,
        row.depth == 0,
        row.limit_usd,
        row.limit_tokens,
        Amount(row.spent_usd, row.spent_tokens),
        Amount(row.reserved_usd, row.reserved_tokens),
    )


class TokenCount(Protocol):
    """Tokens that a provider counted."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...


class ProviderUsage(TokenCount, Protocol):
    """A provider's count, and how far it can be trusted."""

    @property
    def assumed(self) -> bool: ...
    @property
    def contradictory(self) -> bool: ...


class CompletedCall(Protocol):
    """The result of a call, as the gateway reports it."""

    @property
    def usage(self) -> ProviderUsage: ...
    @property
    def cost_usd(self) -> Decimal: ...
    @property
    def model(self) -> str: ...
    @property
    def response_id(self) -> str: ...
    @property
    def simulated(self) -> bool: ...


# Closing a call locks its row first; the counters follow in the order in which calls lock them.
# What may still turn out otherwise keeps its reservations, at nothing, so that its counters stay known.
_CLOSE: Final = text("""
WITH before AS MATERIALIZED (
    SELECT id, usd, input_tokens + output_tokens AS tokens FROM model_calls
    WHERE id = :id AND (
        state IN ('open', 'unknown')
        OR state = 'settled' AND basis = 'assumed' AND :basis IN ('usage', 'asked')
        OR state = 'refunded' AND basis = 'asked' AND :state = 'settled' AND :basis = 'usage'
    ) FOR UPDATE
), locked AS MATERIALIZED (
    SELECT r.call_id, s.tenant_id, s.scope, s.subject, s.period, r.usd, r.tokens
    FROM before JOIN reservations r ON r.call_id = before.id
    JOIN spending s ON s.tenant_id = r.tenant_id
        AND s.scope = r.scope AND s.subject = r.subject AND s.period = r.period
    ORDER BY s.scope, s.subject, s.period FOR UPDATE OF s, r
), counted AS (
    UPDATE spending s SET
        spent_usd = s.spent_usd + :usd - before.usd,
        spent_tokens = s.spent_tokens + CAST(:tokens AS bigint) - before.tokens,
        reserved_usd = s.reserved_usd - l.usd,
        reserved_tokens = s.reserved_tokens - l.tokens
    FROM locked l, before
    WHERE s.tenant_id = l.tenant_id AND s.scope = l.scope AND s.subject = l.subject AND s.period = l.period
), gone AS (
    -- By way of the locked rows: what this statement itself had changed before could not be locked.
    DELETE FROM reservations r USING locked l
    WHERE NOT :revisable AND r.call_id = l.call_id AND r.tenant_id = l.tenant_id
        AND r.scope = l.scope AND r.subject = l.subject AND r.period = l.period
), emptied AS (
    UPDATE reservations r SET usd = 0, tokens = 0 FROM locked l
    WHERE :revisable AND r.call_id = l.call_id AND r.tenant_id = l.tenant_id
        AND r.scope = l.scope AND r.subject = l.subject AND r.period = l.period
)
UPDATE model_calls m SET state = :state, basis = :basis, usd = :usd, input_tokens = :input_tokens,
    cached_input_tokens = :cached_input_tokens, output_tokens = :output_tokens,
    answered_model = coalesce(:answered_model, m.answered_model),
    response_id = coalesce(:response_id, m.response_id), simulated = m.simulated OR :simulated,
    error_code = coalesce(:error_code, m.error_code), closed_at = clock_timestamp()
FROM before WHERE m.id = before.id
""")


async def settle(connection: AsyncConnection, call: UUID, completion: CompletedCall) -> bool:
    """Book a call's cost and release the rest of its reservation; False where that was done before.

    The last statement of its transaction: others wait for the counters it locks.
    """
    usage = completion.usage
    basis: Basis = "assumed" if usage.assumed else "larger" if usage.contradictory else "usage"
    return await _close(
        connection,
        call,
        "settled",
        basis,
        usage,
        completion.cost_usd,
        answered_model=completion.model,
        response_id=completion.response_id or None,
        simulated=completion.simulated,
    )


async def settle_later(
    connection: AsyncConnection,
    call: UUID,
    basis: Literal["usage", "asked", "assumed"],
    counted: TokenCount,
    usd: Decimal,
    *,
    error_code: str | None = None,
    response_id: str | None = None,
) -> bool:
    """Book a lost call's cost, as the provider says with its failure, when it is asked, or as it can
    have been at most."""
    return await _close(
        connection,
        call,
        "settled",
        basis,
        counted,
        usd,
        error_code=error_code,
        response_id=response_id,
        revisable=basis == "assumed",
    )


async def refund(connection: AsyncConnection, call: UUID, code: str | None = None) -> bool:
    """Close a call for which nothing is billed: it was refused, or never sent."""
    return await _close(connection, call, "refunded", None, _NOTHING, Decimal(0), error_code=code)


async def refund_lost(connection: AsyncConnection, call: UUID) -> bool:
    """Close a call that never arrived, as far as its provider knows."""
    return await _close(connection, call, "refunded", "asked", _NOTHING, Decimal(0), revisable=True)


async def fail(connection: AsyncConnection, call: UUID, error: BaseException) -> bool:
    """Close a call that failed. Where it may have been billed its cost is unknown, and what was
    reserved stays reserved until that is known. Call it last in its transaction, as `settle`."""
    refused = isinstance(error, ProviderError) and not error.billed
    code = getattr(error, "code", None) or type(error).__name__
    if refused:
        return await refund(connection, call, code)
    return await lose(connection, call, code, getattr(error, "response_id", "") or None)


async def lose(connection: AsyncConnection, call: UUID, code: str, response_id: str | None = None) -> bool:
    """Note that only the provider may know a call's cost."""
    values = {"id": call, "code": code, "response_id": response_id}
    return (await connection.execute(_LOSE, values)).rowcount > 0


_LOSE: Final = text("""
UPDATE model_calls SET state = 'unknown', error_code = :code,
    response_id = coalesce(CAST(:response_id AS text), response_id)
WHERE id = :id AND state = 'open'
""")


@dataclass(frozen=True)
class Tokens:
    """A count of one's own."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


_NOTHING: Final = Tokens()


async def _close(
    connection: AsyncConnection,
    call: UUID,
    state: str,
    basis: Basis | None,
    counted: TokenCount,
    usd: Decimal,
    *,
    answered_model: str | None = None,
    response_id: str | None = None,
    simulated: bool = False,
    error_code: str | None = None,
    revisable: bool = False,
) -> bool:
    values: dict[str, Any] = {
        "id": call,
        "state": state,
        "basis": basis,
        "usd": usd,
        "input_tokens": counted.input_tokens,
        "output_tokens": counted.output_tokens,
        "cached_input_tokens": counted.cached_input_tokens,
        "tokens": counted.input_tokens + counted.output_tokens,
        "answered_model": answered_model,
        "response_id": response_id,
        "simulated": simulated,
        "error_code": error_code,
        "revisable": revisable,
    }
    return (await connection.execute(_CLOSE, values)).rowcount > 0
