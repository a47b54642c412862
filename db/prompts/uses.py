"""Uses of a prompt and the quality of their runs, for optimisation."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit
from schema.errors import Refused
from schema.tables.log import audit_log

MAX_SCORED: Final = 1_000
"""Collaborations below which an optimisation would only learn noise (S3-35)."""


@dataclass(frozen=True)
class PromptUse:
    """A step that one version of a prompt was used for, in a collaboration that was judged."""

    collaboration: UUID
    step: str
    path: str
    model: str
    output: Any
    quality: float


_OF_PROMPT: Final = """
    execution.tenant_id = :tenant AND execution.kind = 'agent' AND execution.status = 'completed'
    AND execution.reused_from IS NULL AND starts_with(execution.prompt, CAST(:name AS text) || '@')
    -- Turns and rounds of tools are no answers.
    AND strpos(execution.path, '~') = 0
    AND run.status = 'completed' AND run.quality_score IS NOT NULL AND run.simulated = :simulated
"""
_COUNT: Final = text(f"""
SELECT count(DISTINCT execution.collaboration_id) FROM agent_executions AS execution
JOIN collaborations AS run ON run.id = execution.collaboration_id WHERE {_OF_PROMPT}
""")
# One of each run, its last: what was judged in the end. Runs are in the order of their ids, not of chance.
_NEWEST: Final = text(f"""
WITH last AS (
    SELECT DISTINCT ON (execution.collaboration_id) execution.*, run.quality_score AS run_quality,
        run.completed_at AS ended_at
    FROM agent_executions AS execution
    JOIN collaborations AS run ON run.id = execution.collaboration_id WHERE {_OF_PROMPT}
    ORDER BY execution.collaboration_id, execution.completed_at DESC
)
SELECT collaboration_id, step_id, path, coalesce(requested_model, model_id), output, run_quality FROM last
ORDER BY ended_at DESC, collaboration_id LIMIT :limit
""")


def require_enough(found: int, name: str) -> None:
    """The gate."""
    if found < MAX_SCORED:
        raise Refused(
            "too_few_examples",
            f"found {found:,} scored collaborations that used the prompt {name!r}; expected "
            f"{MAX_SCORED:,}. Only steps whose output has a `quality` from 0 to 1 score a run.",
        )


async def count(connection: AsyncConnection, tenant: str, name: str, *, simulated: bool) -> int:
    """Count the judged collaborations that used the prompt, real or simulated ones."""
    values = {"tenant": tenant, "name": name, "simulated": simulated}
    found: int = (await connection.execute(_COUNT, values)).scalar_one()
    return found


async def newest(
    connection: AsyncConnection, tenant: str, name: str, limit: int, *, simulated: bool
) -> list[PromptUse]:
    """One use of each judged collaboration, the newest first."""
    values = {"tenant": tenant, "name": name, "limit": limit, "simulated": simulated}
    return [PromptUse(*row) for row in await connection.execute(_NEWEST, values)]


async def note_optimized(
    connection: AsyncConnection, tenant: str, name: str, id: str, actor: str, figures: dict[str, Any]
) -> None:
    """Record the figures of an optimisation with the version that it stored."""
    await audit.append(connection, tenant, actor, "prompt.optimize", name, optimization=id, figures=figures)


async def optimized(connection: AsyncConnection, tenant: str, name: str, id: str) -> dict[str, Any] | None:
    """Return the figures of an optimisation that has stored its version; None before."""
    found: dict[str, Any] | None = await connection.scalar(
        select(audit_log.c.detail["figures"]).where(
            audit_log.c.tenant_id == tenant,
            audit_log.c.subject == name,
            audit_log.c.action == "prompt.optimize",
            audit_log.c.detail["optimization"].astext == id,
        )
    )
    return found
