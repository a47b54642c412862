"""Runs that have begun, for tests of what one step does."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.notifications import News
from activities.agent.resources import Resources, means
from activities.agent.tokens import TokenLog
from activities.tools.activity import ToolActivity
from activities.tools.http import HttpTool
from db.definitions import catalogue, definitions
from db.engine import transaction
from db.money import spending
from db.runs import collaborations
from db.runs.collaborations import Run
from schema.rules.validate import validate
from schema.temporal.runs import ENGINE
from schema.temporal.steps import StepRequest
from tests.support.providers import only_simulated

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def begin(
    engine: AsyncEngine,
    definition: dict[str, Any],
    *,
    step: str = "ask",
    input: Any = None,
    tenant: str = "default",
    parent: StepRequest | None = None,
    user: str | None = None,
) -> StepRequest:
    """A run of a definition, pinned and with its budget; the key of one of its steps."""
    id = uuid.uuid4()
    async with transaction(engine) as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        found = validate({"name": "one", **definition}, catalogue=known).definition
        version, _ = await definitions.save(connection, tenant, found, "test")
        run = Run(
            id=id,
            temporal_workflow_id=f"wf-{id}",
            tenant=tenant,
            input=input or {},
            task="t",
            traceparent=TRACEPARENT,
            parent_span_id=None,
            started_at=datetime.now(UTC),
            version_id=version.id,
            name=version.name,
            version=version.number,
            sha256=version.sha256,
            engine=ENGINE,
        )
        around = {"collaboration": parent.collaboration, "path": parent.path} if parent else None
        await collaborations.create(connection, run, user, around)
        if found.budget:
            await spending.open(connection, id, tenant, found.budget)
    return StepRequest(str(id), tenant, step, TRACEPARENT)


@asynccontextmanager
async def means_of(
    engine: AsyncEngine, simulator_url: str, tokens: TokenLog, *, news: News | None = None, **more: str
) -> AsyncIterator[Resources]:
    """What agent steps work with whose models the simulator plays; `more` are settings."""
    http = HttpTool("")
    settings = only_simulated(simulator_url, **more)
    async with means(engine, settings, tokens, ToolActivity(engine, http).run, news) as found:
        yield found
    await http.close()


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
