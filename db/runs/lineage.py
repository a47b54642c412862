"""Runs that a collaboration comes from, and runs that come from it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables.definitions import workflows
from schema.tables.runs import collaborations

MAX_SHOWN = 200


@dataclass(frozen=True)
class RelatedRun:
    uuid: UUID
    id: str
    """The Temporal workflow id: what a person calls it."""
    name: str
    version: int
    status: str
    path: str | None
    """The step that runs it, if it is a sub-collaboration."""


@dataclass(frozen=True)
class RunLineage:
    forked_from: RelatedRun | None
    forked_at: list[str]
    forks: list[RelatedRun]
    parent: RelatedRun | None
    children: list[RelatedRun]


async def of(connection: AsyncConnection, tenant: str, collaboration: UUID) -> RunLineage:
    """The relatives of a run; of many forks or children the first ones."""
    c = collaborations.c
    own = (
        await connection.execute(
            select(c.forked_from, c.forked_at, c.parent_id).where(
                c.id == collaboration, c.tenant_id == tenant
            )
        )
    ).one()

    async def found(query: Select[Any]) -> list[RelatedRun]:
        return [RelatedRun(*row) for row in await connection.execute(query)]

    async def one(id: UUID | None) -> RelatedRun | None:
        return next(iter(await found(_relatives(tenant).where(c.id == id))), None) if id else None

    return RunLineage(
        forked_from=await one(own.forked_from),
        forked_at=own.forked_at or [],
        forks=await found(_relatives(tenant).where(c.forked_from == collaboration)),
        parent=await one(own.parent_id),
        children=await found(_relatives(tenant).where(c.parent_id == collaboration)),
    )


def _relatives(tenant: str) -> Select[Any]:
    c = collaborations.c
    return (
        select(c.id, c.temporal_workflow_id, workflows.c.name, workflows.c.version, c.status, c.parent_path)
        .join(workflows, workflows.c.id == c.workflow_id)
        .where(c.tenant_id == tenant)
        .order_by(c.started_at, c.id)
        .limit(MAX_SHOWN)
    )
