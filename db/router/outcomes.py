"""Graded outcomes of agent steps: score, latency and cost of each model's last answer."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import audit
from db.engine import transaction
from plan.verdicts import JudgedSteps, verdicts
from schema.errors import NotFound, Refused
from schema.tables.router import outcomes as table
from schema.tables.runs import agent_executions, collaborations

FAULTS: Final = (
    "output_invalid",
    "answer_rejected",
    "provider_rate_limited",
    "provider_unavailable",
    "provider_timeout",
    "provider_stream_cut",
    "provider_content_policy",
    "provider_answer_empty",
    "provider_context_too_long",
)
"""Failures that are the model's or its provider's. A budget, a key, a bug or a cancellation says nothing of
the model."""
PAGE: Final = 5_000
MAX_TASK: Final = 20_000
"""Characters of a task that anybody reads."""
MAX_NOTE: Final = 2_000

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True)
class OutcomeDecision:
    """The routing decision for a step."""

    policy: str
    chosen: str
    propensity: float
    candidates: dict[str, float]
    features: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class OutcomeRow:
    """Outcome of one model at one step: its last attempt."""

    id: UUID
    """Id of the execution."""
    collaboration: UUID
    at: datetime
    """Time at which it ended."""
    definition: str
    step: str
    path: str
    agent: str
    role: str | None
    task: str
    prompt: str
    """Prompt of the step, as its definition holds it."""
    model: str
    """The model that was asked: the agent's own, the router's choice, or a fallback."""
    answered_by: str
    """The model as the provider names it; mostly the same, and empty without an answer."""
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    ok: float | None
    """0 useless to 1 right; None where nobody can tell, which is no success."""
    source: str
    """Source of `ok`: told, failed, review, human, run, checked; empty if unknown."""
    decision: OutcomeDecision | None

    @property
    def by_router(self) -> bool:
        """Tell whether the model was drawn by the decision's chances."""
        return self.decision is not None and self.decision.chosen == self.model


# The last attempt with each model that was asked counts; one with a model that failed before another stood in
# is that model's. The first case that applies decides.
_ROWS: Final = """
WITH reviewed AS (
    SELECT * FROM unnest(CAST(:reviewed_of AS uuid[]), CAST(:reviewed_by AS text[]),
        CAST(:reviewed AS text[])) AS one(version, judge, step)
), shown AS (
    SELECT * FROM unnest(CAST(:shown_of AS uuid[]), CAST(:shown_by AS text[]),
        CAST(:shown AS text[])) AS one(version, judge, step)
), final AS (
    SELECT * FROM unnest(CAST(:final_of AS uuid[]), CAST(:final AS text[])) AS one(version, step)
), checked AS (
    SELECT * FROM unnest(CAST(:checked_of AS uuid[]), CAST(:checked AS text[])) AS one(version, step)
), page AS (
    SELECT done.id, done.collaboration_id, done.completed_at, done.step_id, done.path, done.agent_name,
        done.role, coalesce(done.requested_model, done.model_id) AS model, done.model_id, done.latency_ms,
        done.input_tokens, done.output_tokens, done.cost_usd, done.quality_score, done.error_code,
        done.status = 'completed' AND done.error_code IS NULL AS went_well,
        left(done.path, -length(done.step_id)) AS frame, told.ok AS told,
        run.workflow_id, left(run.task, :longest) AS task, run.status AS run_status,
        run.quality_score AS run_quality
    FROM agent_executions AS done
    JOIN collaborations AS run ON run.id = done.collaboration_id
    LEFT JOIN outcomes AS told ON told.execution_id = done.id
    WHERE done.tenant_id = :tenant AND done.kind = 'agent' AND done.reused_from IS NULL
        -- Turns and rounds of tools are no answers.
        AND strpos(done.path, '~') = 0 AND done.status IN ('completed', 'failed', 'caught')
        AND coalesce(done.requested_model, done.model_id) <> ''
        -- What a run is known to be when it has ended, its answers tell before.
        AND (run.simulated OR run.status = 'running' AND done.simulated) = :simulated
        -- While a run goes on, a later step may still judge this one.
        AND (run.status <> 'running' OR told.ok IS NOT NULL)
        AND (done.completed_at, done.id) > (:at, :id) AND done.completed_at <= :until
        AND NOT EXISTS (
            SELECT 1 FROM agent_executions AS later
            WHERE later.collaboration_id = done.collaboration_id AND later.path = done.path
                AND later.attempt > done.attempt AND later.status <> 'abandoned'
                AND coalesce(later.requested_model, later.model_id)
                    = coalesce(done.requested_model, done.model_id))
    ORDER BY done.completed_at {order}, done.id {order} LIMIT :limit
), judged AS (
    SELECT page.*, CASE
        WHEN told IS NOT NULL THEN 'told'
        WHEN NOT went_well THEN CASE WHEN error_code = ANY(:faults) THEN 'failed' ELSE '' END
        WHEN review.score IS NOT NULL THEN 'review'
        WHEN human.score IS NOT NULL THEN 'human'
        WHEN run_status = 'completed' AND run_quality IS NOT NULL AND quality_score IS NULL
            AND (workflow_id, step_id) IN (SELECT version, step FROM final) THEN 'run'
        WHEN (workflow_id, step_id) IN (SELECT version, step FROM checked) THEN 'checked'
        ELSE '' END AS source, review.score AS review, human.score AS human
    FROM page
    LEFT JOIN LATERAL (
        SELECT avg(judge.quality_score) AS score FROM reviewed JOIN agent_executions AS judge
            ON judge.collaboration_id = page.collaboration_id AND judge.path = page.frame || reviewed.judge
            AND judge.status = 'completed' AND judge.completed_at >= page.completed_at
        WHERE page.went_well AND reviewed.version = page.workflow_id AND reviewed.step = page.step_id
    ) AS review ON true
    LEFT JOIN LATERAL (
        SELECT avg(CASE judge.output ->> 'decision' WHEN 'approve' THEN 1 WHEN 'reject' THEN 0 END) AS score
        FROM shown JOIN agent_executions AS judge
            ON judge.collaboration_id = page.collaboration_id AND judge.path = page.frame || shown.judge
            AND judge.status = 'completed' AND judge.kind = 'human'
        WHERE page.went_well AND shown.version = page.workflow_id AND shown.step = page.step_id
    ) AS human ON true
)
SELECT judged.id, judged.collaboration_id, judged.completed_at, version.name, judged.step_id, judged.path,
    judged.agent_name, judged.role, judged.task, judged.model,
    CASE WHEN went_well THEN judged.model_id ELSE '' END AS answered_by, judged.latency_ms,
    judged.input_tokens, judged.output_tokens, judged.cost_usd,
    CASE judged.source WHEN 'told' THEN told WHEN 'failed' THEN 0 WHEN 'review' THEN review
        WHEN 'human' THEN human WHEN 'run' THEN run_quality WHEN 'checked' THEN 1 END AS ok,
    judged.source, judged.workflow_id, decision.policy, decision.chosen_model, decision.propensity,
    decision.candidates, decision.features, decision.created_at
FROM judged
JOIN workflows AS version ON version.id = judged.workflow_id
LEFT JOIN routing_decisions AS decision
    ON decision.collaboration_id = judged.collaboration_id AND decision.path = judged.path
ORDER BY judged.completed_at, judged.id
"""
_FORWARD: Final = text(_ROWS.format(order="ASC"))
_NEWEST: Final = text(_ROWS.format(order="DESC"))
_VERSIONS: Final = text("""
SELECT id, sha256, source FROM workflows AS version WHERE tenant_id = :tenant AND EXISTS (
    SELECT 1 FROM collaborations WHERE workflow_id = version.id AND coalesce(completed_at, now()) > :at)
ORDER BY id
""")


async def page(
    connection: AsyncConnection,
    tenant: str,
    until: datetime,
    *,
    simulated: bool,
    after: tuple[datetime, UUID] | None = None,
    limit: int = PAGE,
) -> list[OutcomeRow]:
    """In the order in which steps ended, from behind (at, id) on, up to `until`: of simulated runs alone, or
    of none of them."""
    at, id = after or (_BEGINNING, _FIRST)
    return await _rows(connection, _FORWARD, tenant, simulated, at, id, until, limit)


async def newest(
    connection: AsyncConnection, tenant: str, since: datetime, limit: int = PAGE, *, simulated: bool
) -> list[OutcomeRow]:
    """The last `limit` of steps that ended after `since`, in the order in which they did."""
    return await _rows(connection, _NEWEST, tenant, simulated, since, _LAST, datetime.now(UTC), limit)


async def every(
    engine: AsyncEngine, tenant: str, until: datetime, page_size: int = PAGE, *, simulated: bool
) -> AsyncIterator[list[OutcomeRow]]:
    """Page by page, each in a transaction of its own."""
    after: tuple[datetime, UUID] | None = None
    while True:
        async with transaction(engine) as connection:
            rows = await page(connection, tenant, until, simulated=simulated, after=after, limit=page_size)
        if not rows:
            return
        yield rows
        after = rows[-1].at, rows[-1].id


async def _rows(
    connection: AsyncConnection,
    query: TextClause,
    tenant: str,
    simulated: bool,
    at: datetime,
    id: UUID,
    until: datetime,
    limit: int,
) -> list[OutcomeRow]:
    known = {
        version: verdicts(sha256, source)
        for version, sha256, source in await connection.execute(_VERSIONS, {"tenant": tenant, "at": at})
    }
    values = {
        "tenant": tenant,
        "simulated": simulated,
        "at": at,
        "id": id,
        "until": until,
        "limit": limit,
        "longest": MAX_TASK,
        "faults": list(FAULTS),
        **_columns(known),
    }
    return [_row(row, known) for row in await connection.execute(query, values)]


def _columns(known: Mapping[UUID, JudgedSteps]) -> dict[str, list[Any]]:
    """Lay out graders and graded steps as columns for unnest."""

    def columns(rows: Iterable[tuple[Any, ...]], *names: str) -> dict[str, list[Any]]:
        found = list(rows)
        return {name: [row[at] for row in found] for at, name in enumerate(names)}

    every = known.items()
    return (
        columns(
            ((id, *one) for id, said in every for one in said.reviewed),
            "reviewed_of",
            "reviewed_by",
            "reviewed",
        )
        | columns(((id, *one) for id, said in every for one in said.shown), "shown_of", "shown_by", "shown")
        | columns(((id, one) for id, said in every for one in said.final), "final_of", "final")
        | columns(((id, one) for id, said in every for one in said.checked), "checked_of", "checked")
    )


def _row(row: Any, known: Mapping[UUID, JudgedSteps]) -> OutcomeRow:
    said = known.get(row.workflow_id)
    decision = None
    if row.chosen_model is not None:
        decision = OutcomeDecision(
            row.policy, row.chosen_model, row.propensity, row.candidates, row.features, row.created_at
        )
    return OutcomeRow(
        id=row.id,
        collaboration=row.collaboration_id,
        at=row.completed_at,
        definition=row.name,
        step=row.step_id,
        path=row.path,
        agent=row.agent_name,
        role=row.role,
        task=row.task,
        prompt=said.prompts.get(row.step_id, "") if said else "",
        model=row.model,
        answered_by=row.answered_by,
        seconds=None if row.latency_ms is None else row.latency_ms / 1000,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        usd=None if row.cost_usd is None else float(row.cost_usd),
        ok=None if row.ok is None else float(row.ok),
        source=row.source,
        decision=decision,
    )


async def tell(
    connection: AsyncConnection,
    tenant: str,
    collaboration: UUID,
    place: str,
    ok: float,
    actor: str,
    note: str = "",
) -> UUID:
    """Say how good an agent's answer was; returns its execution. Said again, the last word counts.

    `place`: the step's path, or its id where it ran once. Raises NotFound, and Refused saying what to do."""
    if not 0 <= ok <= 1:
        raise Refused(
            "outcome_invalid", f"found {ok:g} for how good it was; expected 0 (useless) to 1 (right)."
        )
    if len(note) > MAX_NOTE:
        raise Refused(
            "outcome_invalid", f"found a note of {len(note):,} characters; expected at most {MAX_NOTE:,}."
        )
    execution = await _answered(connection, tenant, collaboration, place)
    values = {"ok": ok, "actor": actor, "note": note, "at": func.clock_timestamp()}
    await connection.execute(
        upsert(table)
        .values(execution_id=execution, tenant_id=tenant, **values)
        .on_conflict_do_update(index_elements=["execution_id"], set_=values)
    )
    await audit.append(
        connection, tenant, actor, "outcome.tell", f"{collaboration}/{place}", ok=ok, execution=str(execution)
    )
    return execution


async def _answered(connection: AsyncConnection, tenant: str, collaboration: UUID, place: str) -> UUID:
    known = select(collaborations.c.id).where(
        collaborations.c.id == collaboration, collaborations.c.tenant_id == tenant
    )
    if await connection.scalar(known) is None:
        raise NotFound("collaboration_unknown", f"found no collaboration {collaboration}.")
    row = agent_executions.c
    found = (
        await connection.execute(
            select(row.id, row.path, row.kind, row.status)
            .where(
                row.collaboration_id == collaboration,
                (row.path == place) | (row.step_id == place),
                func.strpos(row.path, "~") == 0,
            )
            .order_by(row.path, row.attempt.desc())
        )
    ).all()
    if not found:
        raise NotFound("step_not_begun", f"found no attempt at {place!r} in this run.")
    exact = [one for one in found if one.path == place] or found
    if len(paths := sorted({one.path for one in exact})) > 1:
        shown = ", ".join(paths[:5]) + (", …" if len(paths) > 5 else "")
        raise Refused(
            "outcome_unclear", f"found that {place!r} ran {len(paths)} times; expected one of {shown}."
        )
    ended = next((one for one in exact if one.status in ("completed", "failed", "caught")), None)
    if exact[0].kind != "agent" or ended is None:
        what = (
            f"a step of kind {exact[0].kind}"
            if exact[0].kind != "agent"
            else f"one that is {exact[0].status}"
        )
        raise Refused(
            "outcome_unclear",
            f"found {what} at {place!r}; expected an agent's step that has ended.",
        )
    done: UUID = ended.id
    return done
