"""A log that tests know by heart, written the way the platform writes it."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.upkeep.projections import Copy, copy_batch
from db.definitions import definitions
from db.engine import transaction
from db.runs import collaborations, executions
from db.runs.collaborations import Run
from db.runs.executions import Assignment, AttemptOutcome
from schema.rules.validate import validate
from schema.temporal.runs import ENGINE, Finish
from schema.temporal.steps import StepRequest
from tests.support.lifecycle import journal

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Work:
    """One finished execution."""

    step: str
    role: str | None
    model: str
    found_issues: bool | None = None
    quality: float | None = None
    iteration: int = 0
    kind: str = "agent"
    simulated: bool = True


def definition_of(name: str, recall: bool = False) -> dict[str, Any]:
    step = {"kind": "agent", "agent": "coder", "prompt": "${input.task}"}
    return {
        "name": name,
        "agents": {
            "coder": {"role": "coder", "model": {"among": ["openai/gpt-4", "deepseek/deepseek-chat"]}}
        },
        "steps": {"code": step | ({"recall": {"limit": 3, "threshold": 0.6}} if recall else {})},
    }


async def begin(
    engine: AsyncEngine,
    task: str,
    *,
    name: str = "pair",
    tenant: str = "default",
    recall: bool = False,
    forked_from: str | None = None,
) -> StepRequest:
    """A run that has begun; the key of its step `code`."""
    run = str(uuid.uuid4())
    async with transaction(engine) as connection:
        definition = validate(definition_of(name, recall)).definition
        version, _ = await definitions.save(connection, tenant, definition, "test")
        new = Run(
            UUID(run),
            f"wf-{run}",
            tenant,
            {"task": task},
            task,
            TRACEPARENT,
            None,
            datetime.now(UTC),
            version.id,
            name,
            version.number,
            version.sha256,
            ENGINE,
        )
        await collaborations.create(connection, new, None, None, forked_from)
    return StepRequest(run, tenant, "code", TRACEPARENT)


async def work(engine: AsyncEngine, request: StepRequest, done: Work) -> None:
    key = StepRequest(
        request.collaboration,
        request.tenant,
        done.step,
        TRACEPARENT,
        done.iteration,
        frame=f"again[{done.iteration}]" if done.iteration else "",
    )
    worker = Assignment(done.kind, done.role or "helper", done.role, done.model)
    judged = {"found_issues": done.found_issues, "severity": "high" if done.found_issues else None}
    output: dict[str, Any] = {name: value for name, value in judged.items() if value is not None}
    if done.quality is not None:
        output["quality"] = done.quality
    outcome = AttemptOutcome(
        output or "text", done.model, "openai", 10, 20, Decimal("0.001500"), 5, done.simulated
    )
    async with transaction(engine) as connection:
        begun = await executions.claim(connection, key, worker)
        await executions.complete(connection, key, worker, begun, outcome)


async def end(
    engine: AsyncEngine, request: StepRequest, output: Any = "done", status: str = "completed"
) -> None:
    finish = Finish(request.collaboration, request.tenant, TRACEPARENT, status)
    async with journal(engine) as writing:
        await writing.finish(finish, output)


async def run(engine: AsyncEngine, task: str, *works: Work, output: Any = "done", **begun: Any) -> str:
    """A whole completed run; its id."""
    request = await begin(engine, task, **begun)
    for done in works:
        await work(engine, request, done)
    await end(engine, request, output)
    return request.collaboration


async def catch_up(engine: AsyncEngine, copy: Copy) -> int:
    """Copy until nothing is left; how many events that were.

    Other databases of the server share its transaction ids, so what is committed may still wait a moment.
    """
    await copy.prepare()
    applied = 0
    async with asyncio.timeout(30):
        while True:
            copied = await copy_batch(engine, "test", copy)
            applied += copied
            if not copied and await settled(engine):
                return applied + await copy_batch(engine, "test", copy)
            await asyncio.sleep(0.01)


_SETTLED = text("SELECT NOT EXISTS (SELECT FROM outbox WHERE xid >= pg_snapshot_xmin(pg_current_snapshot()))")


async def settled(engine: AsyncEngine) -> bool:
    """Whether every committed event can be read."""
    async with engine.connect() as connection:
        return bool((await connection.execute(_SETTLED)).scalar())
