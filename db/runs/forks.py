"""Going on from another run: what it finished is kept, at no cost, apart from what is to run again."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.runs.collaborations import Run
from db.runs.executions import EXHAUSTED, FINISHED
from plan.compile import CompiledDefinition, compiled
from plan.fork import Division, StepBefore, divide
from schema.errors import NotFound
from schema.language.json_numbers import as_declared
from schema.language.steps import AgentStep, SwitchStep, ToolStep
from schema.tables.definitions import workflows
from schema.tables.runs import agent_executions, collaborations
from schema.temporal.runs import Fork

GIVEN: Final = "given"
"""`agent_name` of a step whose output a person wrote."""


@dataclass(frozen=True)
class Source:
    """The run to go on from."""

    id: UUID
    name: str
    version: int
    input: Any
    status: str
    compiled: CompiledDefinition


async def source(connection: AsyncConnection, tenant: str, collaboration: UUID) -> Source:
    """Raises NotFound, also for a run of another tenant."""
    c = collaborations.c
    row = (
        await connection.execute(
            select(
                c.id,
                workflows.c.name,
                workflows.c.version,
                c.input,
                c.status,
                workflows.c.sha256,
                workflows.c.source,
            )
            .join(workflows, workflows.c.id == c.workflow_id)
            .where(c.id == collaboration, c.tenant_id == tenant)
        )
    ).one_or_none()
    if row is None:
        raise NotFound("collaboration_unknown", f"found no collaboration {collaboration} to go on from.")
    return Source(*row[:5], compiled(row.sha256, row.source))


async def division(
    connection: AsyncConnection, before: Source, found: CompiledDefinition, input: Any, fork: Fork
) -> Division:
    """Divide the steps of a fork with that input into those taken over from `before` and those to run. Raises
    Refused."""
    left = await _left(connection, before)
    return divide(found, before.compiled, left, fork, same_input=input == before.input)


async def keep(
    connection: AsyncConnection, run: Run, found: CompiledDefinition, fork: dict[str, Any]
) -> None:
    """Give a new run the finished executions of the run it goes on from. Raises NotFound and Refused."""
    wanted = Fork(**fork)
    before = await source(connection, run.tenant, UUID(wanted.collaboration))
    parts = await division(connection, before, found, run.input, wanted)
    await connection.execute(
        _COPY, {"run": run.id, "source": before.id, "kept": parts.kept, "resumed": parts.resumed}
    )
    if parts.given:
        await connection.execute(insert(agent_executions), list(_given(run, found, wanted)))
    await connection.execute(
        update(collaborations)
        .where(collaborations.c.id == run.id)
        .values(forked_from=before.id, forked_at=[*parts.resumed, *parts.again])
    )


async def _left(connection: AsyncConnection, before: Source) -> dict[str, StepBefore]:
    """Top-level step → how the run left it, as far as it had begun."""
    e = agent_executions.c
    rows = await connection.execute(
        select(e.step_id, e.kind, e.status, e.branch)
        .where(
            e.collaboration_id == before.id,
            e.path.in_([step.id for step in before.compiled.plan.steps]),
        )
        .order_by(e.status.in_(FINISHED), e.attempt)
    )
    marked = await connection.execute(
        select(func.split_part(func.split_part(e.path, "~", 1), "[", 1), e.kind == "item").where(
            e.collaboration_id == before.id,
            (e.path.like("%~undo") & (e.status == "completed"))
            | ((e.kind == "item") & (e.branch == EXHAUSTED) & (func.strpos(e.path, ".") == 0)),
        )
    )
    marks = {(root, exhausted) for root, exhausted in marked}
    return {
        step: StepBefore(kind, status in FINISHED, branch, (step, False) in marks, (step, True) in marks)
        for step, kind, status, branch in rows
    }


def _given(run: Run, found: CompiledDefinition, fork: Fork) -> Iterable[dict[str, Any]]:
    now = datetime.now(UTC)
    for name, output in fork.outputs.items():
        id, step = uuid4(), found.steps[name]
        if isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
            output = as_declared(step.output_schema, output)
        yield {
            "id": id,
            "tenant_id": run.tenant,
            "collaboration_id": run.id,
            "path": name,
            "step_id": name,
            "kind": step.kind,
            "attempt": 1,
            "agent_name": GIVEN,
            "model_id": "",
            "status": "completed",
            "input_tokens": 0,
            "output_tokens": 0,
            "latency_ms": 0,
            "cost_usd": 0,
            "output": output,
            "branch": output if isinstance(step, SwitchStep) else None,
            # Nobody did it, so there is nothing to undo either: it reuses itself.
            "reused_from": id,
            "started_at": now,
            "completed_at": now,
        }


# One statement sees one moment of a run that may still be going on.
#   kept     finished steps with all that is within them
#   resumed  maps, loops and sub-collaborations: what is finished within them, and they themselves as running;
#            of a map without the items that had failed, or in which something was undone since
# Times keep the order of the originals, and lie before whatever the new run does itself.
_COPY: Final = text(r"""
WITH found AS (
    SELECT e.*, split_part(e.path, '[', 1) AS root,
        e.status IN ('completed', 'skipped', 'caught') AS finished
    FROM agent_executions e
    WHERE e.collaboration_id = :source AND strpos(e.path, '~') = 0
), undone AS (
    SELECT DISTINCT substring(path from '^[a-z0-9_]+\[\d+\]') AS item
    FROM agent_executions
    WHERE collaboration_id = :source AND path LIKE '%~undo' AND status = 'completed'
), chosen AS (
    SELECT found.*, false AS open FROM found
    WHERE root = ANY(:kept) AND (finished OR kind = 'item')
    UNION ALL
    SELECT found.*, false FROM found
    WHERE root = ANY(:resumed) AND path <> root AND finished
        AND NOT EXISTS (SELECT 1 FROM undone WHERE item = substring(path from '^[a-z0-9_]+\[\d+\]'))
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (path) found.*, true FROM found
        WHERE root = ANY(:resumed) AND kind IN ('map', 'loop', 'collaboration')
            AND (path = root OR path NOT IN (SELECT path FROM found WHERE finished))
            AND NOT EXISTS (SELECT 1 FROM undone WHERE item = substring(path from '^[a-z0-9_]+\[\d+\]'))
        ORDER BY path, attempt DESC
    ) AS latest
), placed AS (
    SELECT chosen.*, count(*) OVER () - row_number() OVER (ORDER BY completed_at, started_at, path) AS behind
    FROM chosen
)
INSERT INTO agent_executions (
    id, tenant_id, collaboration_id, path, step_id, kind, iteration, attempt, agent_name, role, model_id,
    requested_model, provider, status, error_code, error_message, input_tokens, output_tokens, latency_ms,
    cost_usd, simulated, input, output, branch, reused_from, quality_score, found_issues, severity,
    finish_reason, repaired, started_at, completed_at
)
SELECT gen_random_uuid(), tenant_id, :run, path, step_id, kind, iteration, 1, agent_name, role, model_id,
    requested_model, provider, CASE WHEN open THEN 'running' ELSE status END,
    CASE WHEN NOT open THEN error_code END, CASE WHEN NOT open THEN error_message END, 0, 0, 0, 0, simulated,
    input, CASE WHEN NOT open THEN output END, branch,
    CASE WHEN NOT open THEN coalesce(reused_from, id) WHEN kind = 'collaboration' THEN id END,
    quality_score, found_issues, severity, finish_reason, repaired,
    clock_timestamp() - behind * interval '1 microsecond',
    CASE WHEN NOT open THEN clock_timestamp() - behind * interval '1 microsecond' END
FROM placed
""")
