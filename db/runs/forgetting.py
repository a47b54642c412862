"""Everything that simulated runs left, forgotten: the runs, and what was learned from them."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import outbox
from schema.events import CollaborationForgotten
from schema.tables.log import outbox as log
from schema.tables.log import spans
from schema.tables.prompts import prompt_trials
from schema.tables.router import quarantines, trainings
from schema.tables.runs import collaborations

BATCH: Final = 100
"""Runs of one transaction: with each go its executions and their tokens."""


@dataclass(frozen=True)
class SimulatedLeftovers:
    """Counts of what simulated runs have left behind."""

    runs: int
    running: int
    """Runs still going, not counted in `runs`: they are not forgotten."""
    trainings: int
    prompt_versions: int


_RUNNING: Final = text("""
SELECT count(*) FROM collaborations AS run WHERE tenant_id = :tenant AND status = 'running'
    AND EXISTS (SELECT 1 FROM agent_executions WHERE collaboration_id = run.id AND simulated)
""")
# A version that a name means, or that a definition pins, is somebody's prompt by now.
_UNUSED: Final = """
FROM prompt_versions AS made WHERE made.tenant_id = :tenant AND made.simulated
    AND NOT EXISTS (SELECT 1 FROM prompts WHERE tenant_id = made.tenant_id AND name = made.name
        AND current = made.version)
    AND NOT EXISTS (SELECT 1 FROM workflows AS stored WHERE stored.tenant_id = made.tenant_id
        AND jsonb_path_exists(stored.definition, '$.agents.*.prompt ? (@ == $pinned)',
            jsonb_build_object('pinned', made.name || '@' || made.version)))
"""


async def count(connection: AsyncConnection, tenant: str) -> SimulatedLeftovers:
    """Count what `runs` and `lessons` would forget."""
    of_tenant = {"tenant": tenant}
    runs = select(func.count()).select_from(collaborations).where(*_ended(tenant))
    learned = select(func.count()).select_from(trainings).where(*_of(trainings, tenant))
    return SimulatedLeftovers(
        runs=int(await connection.scalar(runs) or 0),
        running=int(await connection.scalar(_RUNNING, of_tenant) or 0),
        trainings=int(await connection.scalar(learned) or 0),
        prompt_versions=int(await connection.scalar(text(f"SELECT count(*) {_UNUSED}"), of_tenant) or 0),
    )


async def runs(connection: AsyncConnection, tenant: str, limit: int = BATCH) -> int:
    """Forget simulated runs that have ended, with all that hangs on them; how many. The copies are told."""
    found = list(await connection.scalars(select(collaborations.c.id).where(*_ended(tenant)).limit(limit)))
    if found:
        await connection.execute(delete(log).where(log.c.aggregateid.in_(map(str, found))))
        await connection.execute(delete(spans).where(spans.c.collaboration_id.in_(found)))
        await connection.execute(delete(collaborations).where(collaborations.c.id.in_(found)))
        told = [outbox.row(tenant, str(id), CollaborationForgotten(str(id))) for id in found]
        await connection.execute(insert(log), told)
    return len(found)


async def lessons(connection: AsyncConnection, tenant: str) -> None:
    """Forget what was learned from simulated runs: checkpoints, quarantines, trials, prompts, edges."""
    for table in (trainings, quarantines, prompt_trials):
        await connection.execute(delete(table).where(*_of(table, tenant)))
    for statement in _LESSONS:
        await connection.execute(statement, {"tenant": tenant})


_LESSONS: Final = (
    text("UPDATE prompts SET current_simulated = NULL WHERE tenant_id = :tenant"),
    text(f"DELETE {_UNUSED}"),
    # People's wishes for an edge stay; what the evidence or the network said goes.
    text("""
    UPDATE edges SET effect = NULL, low = NULL, high = NULL, runs = 0,
        state = CASE WHEN set_by IS NULL OR set_by = 'network' THEN 'kept' ELSE state END,
        set_by = NULLIF(set_by, 'network')
    WHERE tenant_id = :tenant AND simulated
    """),
)


def _ended(tenant: str) -> tuple[Any, ...]:
    return *_of(collaborations, tenant), collaborations.c.status != "running"


def _of(table: Any, tenant: str) -> tuple[Any, ...]:
    return table.c.tenant_id == tenant, table.c.simulated
