"""The record of steps that fail around their work: where their own expressions or values are wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import ApplicationError

from activities.guard import translate
from activities.runs.context import facts_of, worker_of
from activities.runs.undo import how_to_undo
from activities.values import storable
from db.engine import transaction
from db.runs import executions
from db.runs.compensations import UNDO
from db.runs.executions import Assignment
from schema.temporal.steps import StepRequest


@asynccontextmanager
async def recorded(engine: AsyncEngine, request: StepRequest) -> AsyncIterator[None]:
    """Record a failed attempt at the step when what is done within fails for good: a transaction in which
    that happens takes back all that it wrote."""
    try:
        yield
    except Exception as error:
        told = translate(error)
        if isinstance(told, ApplicationError) and told.non_retryable:
            await _record(engine, request, told.type or "step_failed", told.message)
        raise


async def _record(engine: AsyncEngine, request: StepRequest, code: str, message: str) -> None:
    async with transaction(engine) as connection:
        _, found = await facts_of(connection, request.collaboration)
        step = found.steps[request.step]
        undo = how_to_undo(step) if request.purpose == UNDO else None
        worker = Assignment("tool", undo.activity or "") if undo else worker_of(found.definition, step)
        message = storable(message)
        if await executions.failed_with(connection, request, code, message):
            return  # by the same call, whose result was lost
        begun = await executions.resume(connection, request, worker)
        if begun.done is None:
            await executions.fail(connection, request, begun, code, message)
