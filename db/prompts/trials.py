"""A/B tests of two versions of a prompt: the arm that a run gets, and the results of the runs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from sqlalchemy import desc, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from db.prompts import prompts
from db.runs.collaborations import Run
from schema.errors import NotFound, Refused
from schema.language.prompts import PromptContent
from schema.significance import Arm, Metric, Rules, TrialReading, gets_candidate, read
from schema.tables.prompts import prompt_trials as table
from schema.temporal.memo import BY_TEMPORAL

Unit = Literal["run", "user"]
BY_ITSELF: Final = "trial"
"""The actor of what a trial does when it is decided."""


@dataclass(frozen=True)
class PromptTrial:
    id: UUID
    tenant: str
    name: str
    control: int
    candidate: int
    share: float
    unit: str
    metric: Metric
    alpha: float
    min_units: int
    max_units: int
    promote: bool
    status: str
    winner: int | None
    verdict: dict[str, Any] | None
    started_by: str | None
    started_at: datetime
    stopped_at: datetime | None
    simulated: bool
    """Whether simulated runs take part and get the result; otherwise real ones. Never both."""

    @property
    def rules(self) -> Rules:
        return Rules(self.metric, self.alpha, self.min_units, self.max_units)


@dataclass(frozen=True)
class TrialConfig:
    """Configuration of a trial."""

    candidate: int
    share: float = 0.5
    unit: Unit = "run"
    metric: Metric = "quality"
    alpha: float = 0.05
    min_units: int = 30
    max_units: int = 2_000
    promote: bool = False


@dataclass(frozen=True)
class ChosenPrompt:
    """The stored prompt that an attempt is made with."""

    content: PromptContent
    ref: str
    """name@3"""
    trial_id: UUID | None = None


_COLUMNS: Final = (
    table.c.id,
    table.c.tenant_id,
    table.c.name,
    table.c.control,
    table.c.candidate,
    table.c.share,
    table.c.unit,
    table.c.metric,
    table.c.alpha,
    table.c.min_units,
    table.c.max_units,
    table.c.promote,
    table.c.status,
    table.c.winner,
    table.c.verdict,
    table.c.started_by,
    table.c.started_at,
    table.c.stopped_at,
    table.c.simulated,
)


async def choose(connection: AsyncConnection, run: Run, prompt: str, *, simulated: bool) -> ChosenPrompt:
    """Resolve `name` or `name@3` for a run: during a trial, its arm. `simulated`: the simulator answers.
    Raises NotFound."""
    tenant = run.tenant
    name, _, number = prompt.partition("@")
    if number:
        return await _pinned(connection, tenant, name, int(number), simulated)
    running = select(*_COLUMNS).where(
        table.c.tenant_id == tenant,
        table.c.name == name,
        table.c.status == "running",
        table.c.simulated == simulated,
    )
    row = (await connection.execute(running)).one_or_none()
    if row is None:
        return await _pinned(connection, tenant, name, None, simulated)
    trial = PromptTrial(*tuple(row))
    if run.started_at < trial.started_at:
        # Its steps before the trial were asked otherwise: it says nothing of either arm.
        return await _pinned(connection, tenant, name, None, simulated)
    unit = await _user(connection, run) if trial.unit == "user" else str(run.id)
    to_candidate = gets_candidate(str(trial.id), unit, trial.share)
    arm = trial.candidate if to_candidate else trial.control
    found = await _pinned(connection, tenant, name, arm, simulated)
    return ChosenPrompt(found.content, found.ref, trial.id)


# Who asked for the outermost run asked for all within it.
_USER: Final = text("""
WITH RECURSIVE lineage AS (
    SELECT parent_id, requested_by FROM collaborations WHERE id = :run
    UNION ALL
    SELECT c.parent_id, c.requested_by FROM collaborations c JOIN lineage ON c.id = lineage.parent_id
)
SELECT nullif(requested_by, CAST(:nobody AS text)) FROM lineage WHERE parent_id IS NULL
""")


async def _user(connection: AsyncConnection, run: Run) -> str:
    return await connection.scalar(_USER, {"run": run.id, "nobody": BY_TEMPORAL}) or str(run.id)


async def _pinned(
    connection: AsyncConnection, tenant: str, name: str, number: int | None, simulated: bool
) -> ChosenPrompt:
    found = await prompts.find(connection, tenant, name, number, simulated=simulated)
    return ChosenPrompt(found.content, found.ref)


async def start(
    connection: AsyncConnection, tenant: str, name: str, wanted: TrialConfig, actor: str, *, simulated: bool
) -> PromptTrial:
    """Compare a version with what the bare name means, in real runs or in simulated ones. Raises NotFound,
    and Refused where it cannot be."""
    await prompts.take_turn(connection, tenant, name)
    control = await prompts.find(connection, tenant, name, simulated=simulated)
    candidate = await prompts.find(connection, tenant, name, wanted.candidate)
    if candidate.number == control.number:
        raise Refused(
            "trial_pointless",
            f"found {candidate.ref} as the candidate, which {name!r} means already; expected another "
            "version.",
        )
    await require_none(connection, tenant, name)
    row = (
        await connection.execute(
            insert(table)
            .values(
                id=uuid4(),
                tenant_id=tenant,
                name=name,
                control=control.number,
                candidate=candidate.number,
                share=wanted.share,
                unit=wanted.unit,
                metric=wanted.metric,
                alpha=wanted.alpha,
                min_units=wanted.min_units,
                max_units=wanted.max_units,
                promote=wanted.promote,
                status="running",
                started_by=actor,
                started_at=func.clock_timestamp(),
                simulated=simulated,
            )
            .returning(*_COLUMNS)
        )
    ).one()
    trial = PromptTrial(*tuple(row))
    await audit.append(
        connection,
        tenant,
        actor,
        "trial.start",
        name,
        trial=str(trial.id),
        control=trial.control,
        candidate=trial.candidate,
        metric=trial.metric,
        share=trial.share,
        simulated=simulated,
    )
    return trial


async def require_none(connection: AsyncConnection, tenant: str, name: str) -> None:
    """Raises Refused while a trial of the prompt goes on."""
    running = await find(connection, tenant, name)
    if running is not None and running.status == "running":
        raise Refused(
            "trial_running",
            f"found a trial of {name}@{running.candidate} against {name}@{running.control}; expected none. "
            f"End it first: `facilitair prompts trial stop {name}`.",
        )


async def find(connection: AsyncConnection, tenant: str, name: str) -> PromptTrial | None:
    """The latest trial of a prompt."""
    row = (
        await connection.execute(
            select(*_COLUMNS)
            .where(table.c.tenant_id == tenant, table.c.name == name)
            .order_by(desc(table.c.started_at))
            .limit(1)
        )
    ).one_or_none()
    return PromptTrial(*tuple(row)) if row else None


async def latest(connection: AsyncConnection, tenant: str, name: str) -> PromptTrial:
    """Raises NotFound."""
    found = await find(connection, tenant, name)
    if found is None:
        await prompts.find(connection, tenant, name)
        raise NotFound(
            "trial_unknown",
            f"found no trial of the prompt {name!r}. `facilitair prompts trial start {name} --candidate N` "
            "starts one.",
        )
    return found


async def running(
    connection: AsyncConnection, *, after: UUID | None = None, limit: int = 100
) -> list[PromptTrial]:
    """Return running trials of all tenants, ordered by id."""
    query = select(*_COLUMNS).where(table.c.status == "running").order_by(table.c.id).limit(limit)
    if after is not None:
        query = query.where(table.c.id > after)
    return [PromptTrial(*tuple(row)) for row in await connection.execute(query)]


async def stop(connection: AsyncConnection, tenant: str, name: str, actor: str) -> PromptTrial:
    """End a trial undecided; the bare name means what it meant. Raises NotFound."""
    await prompts.take_turn(connection, tenant, name)
    trial = await latest(connection, tenant, name)
    if trial.status != "running":
        return trial
    return await _end(connection, trial, "stopped", await measure(connection, trial), actor)


async def look(connection: AsyncConnection, trial: PromptTrial) -> tuple[PromptTrial, TrialReading]:
    """Read a trial's figures now, and end it if they decide it."""
    await prompts.take_turn(connection, trial.tenant, trial.name)
    row = (await connection.execute(select(*_COLUMNS).where(table.c.id == trial.id))).one_or_none()
    trial = PromptTrial(*tuple(row)) if row else trial
    reading = await measure(connection, trial)
    if row is None or trial.status != "running" or reading.verdict == "running":
        return trial, reading
    return await _end(connection, trial, reading.verdict, reading, BY_ITSELF), reading


async def _end(
    connection: AsyncConnection, trial: PromptTrial, status: str, reading: TrialReading, actor: str
) -> PromptTrial:
    winner = {"won": trial.candidate, "lost": trial.control}.get(status)
    row = (
        await connection.execute(
            update(table)
            .where(table.c.id == trial.id)
            .values(
                status=status, winner=winner, verdict=reading.as_json(), stopped_at=func.clock_timestamp()
            )
            .returning(*_COLUMNS)
        )
    ).one()
    await audit.append(
        connection,
        trial.tenant,
        actor,
        f"trial.{status}",
        trial.name,
        trial=str(trial.id),
        winner=winner,
        difference=reading.difference,
        p=reading.p,
    )
    if status == "won" and trial.promote:
        name, candidate = trial.name, trial.candidate
        await prompts.point(
            connection, trial.tenant, name, candidate, BY_ITSELF, trial.control, simulated=trial.simulated
        )
    return PromptTrial(*tuple(row))


# One run is one observation, and one user is one: of several runs their mean. Forks are left out: a person
# chose them by how the first run went.
_MEASURE: Final = text("""
WITH RECURSIVE used AS (
    SELECT collaboration_id AS run, min(prompt) AS prompt FROM agent_executions
    WHERE trial_id = :trial GROUP BY collaboration_id
), lineage AS (
    SELECT run, c.parent_id, requested_by FROM used JOIN collaborations c ON c.id = run
    WHERE CAST(:unit AS text) = 'user'
    UNION ALL
    SELECT run, c.parent_id, c.requested_by FROM lineage JOIN collaborations c ON c.id = lineage.parent_id
), ended AS (
    SELECT used.prompt, coalesce(nullif(asked.requested_by, CAST(:nobody AS text)), run.id::text) AS unit,
        CASE CAST(:metric AS text)
            WHEN 'success' THEN (run.status = 'completed')::int::float
            WHEN 'quality' THEN CASE WHEN run.status = 'failed' THEN 0 ELSE run.quality_score END
            ELSE CASE WHEN run.status = 'completed' THEN (
                SELECT coalesce(sum(cost_usd), 0)::float FROM agent_executions
                WHERE collaboration_id = run.id) END
        END AS value
    FROM used JOIN collaborations AS run ON run.id = used.run
        LEFT JOIN lineage AS asked ON asked.run = used.run AND asked.parent_id IS NULL
    WHERE run.status IN ('completed', 'failed') AND run.sub_state <> 'cancelled' AND run.forked_from IS NULL
        AND run.simulated = :simulated
), units AS (
    SELECT prompt, unit, avg(value) AS value FROM ended GROUP BY prompt, unit
)
SELECT prompt, count(value) AS units, coalesce(avg(value), 0) AS mean,
    coalesce(var_samp(value), 0) AS variance, count(*) - count(value) AS unmeasured
FROM units GROUP BY prompt
""")


async def measure(connection: AsyncConnection, trial: PromptTrial) -> TrialReading:
    """The figures of both arms, of the runs that have ended."""
    values = {
        "trial": trial.id,
        "unit": trial.unit,
        "metric": trial.metric,
        "nobody": BY_TEMPORAL,
        "simulated": trial.simulated,
    }
    arms = {
        row.prompt: Arm(row.units, row.mean, row.variance, row.unmeasured)
        for row in await connection.execute(_MEASURE, values)
    }
    control, candidate = (
        arms.get(f"{trial.name}@{number}", Arm()) for number in (trial.control, trial.candidate)
    )
    return read(trial.rules, control, candidate)
