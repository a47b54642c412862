"""Completed executions that an unfinished run can undo."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.runs import agent_executions

UNDO = "undo"
"""`StepRequest.purpose` of a compensation: the execution that undoes `ship` has the path `ship~undo`."""


@dataclass(frozen=True)
class CompensableStep:
    """A completed execution of a step that can be undone."""

    path: str
    step: str
    iteration: int


async def to_undo(
    connection: AsyncConnection, collaboration: UUID, steps: Collection[str], *, after: str = "", limit: int
) -> list[CompensableStep]:
    """Return the steps to undo, last done first, after path `after`.

    Only what the run did itself: not what came from a cache, another run or a person, and not what failed and
    was caught.
    """
    done, undone, last = (agent_executions.alias(name) for name in ("done", "undone", "last"))
    query = (
        select(done.c.path, done.c.step_id, done.c.iteration)
        .where(
            done.c.collaboration_id == collaboration,
            done.c.step_id.in_(steps),
            done.c.status == "completed",
            done.c.error_code.is_(None),
            done.c.reused_from.is_(None),
            func.strpos(done.c.path, "~") == 0,
            ~select(undone.c.id)
            .where(
                undone.c.collaboration_id == collaboration,
                undone.c.path == done.c.path + f"~{UNDO}",
                undone.c.status == "completed",
            )
            .exists(),
        )
        .order_by(done.c.completed_at.desc(), done.c.path.desc())
        .limit(limit)
    )
    if after:
        place = select(last.c.completed_at, last.c.path).where(
            last.c.collaboration_id == collaboration, last.c.path == after, last.c.status == "completed"
        )
        query = query.where(tuple_(done.c.completed_at, done.c.path) < place.scalar_subquery())
    return [CompensableStep(*row) for row in await connection.execute(query)]
