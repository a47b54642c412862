"""Runs that have begun, for tests of what one step does."""

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import budgets, collaborations, definitions
from db.collaborations import Run
from db.engine import transaction
from schema.messages import ENGINE, StepRequest
from schema.validate import validate

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def begin(
    engine: AsyncEngine, definition: dict[str, Any], *, step: str = "ask", input: Any = None,
    tenant: str = "default", parent: StepRequest | None = None,
) -> StepRequest:  # fmt: skip
    """A run of a definition, pinned and with its budget; the key of one of its steps."""
    id = uuid.uuid4()
    async with transaction(engine) as connection:
        found = validate({"name": "one", **definition}).definition
        version, _ = await definitions.save(connection, tenant, found, "test")
        run = Run(
            id=id, temporal_workflow_id=f"wf-{id}", tenant=tenant, input=input or {}, task="t",
            traceparent=TRACEPARENT, parent_span_id=None, started_at=datetime.now(UTC),
            version_id=version.id, name=version.name, version=version.number, sha256=version.sha256,
            engine=ENGINE,
        )  # fmt: skip
        around = {"collaboration": parent.collaboration, "path": parent.path} if parent else None
        await collaborations.create(connection, run, None, around)
        if found.budget:
            await budgets.open(connection, id, tenant, found.budget)
    return StepRequest(str(id), tenant, step, TRACEPARENT)


async def rows(engine: AsyncEngine, query: str, **values: Any) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query), values)]


async def attempts(engine: AsyncEngine, request: StepRequest) -> list[tuple[Any, ...]]:
    """(attempt, status, error code, whether it cost something) of a step, in order."""
    query = (
        "SELECT attempt, status, error_code, coalesce(cost_usd, 0) > 0 FROM agent_executions"
        " WHERE collaboration_id = :run AND path = :path ORDER BY attempt"
    )
    return await rows(engine, query, run=request.collaboration, path=request.path)
