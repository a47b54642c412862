"""The local activities of runs that began on engine 1; see workflows/engine1.py."""

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.runs import frames
from activities.runs.context import facts_of, load, worker_of
from activities.values import checked_output
from db.engine import transaction
from db.runs import executions
from db.runs.executions import Outcome
from schema.language.steps import TransformStep
from schema.language.templates import render
from schema.temporal.steps import StepRequest, StepResult


class Engine1:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="decide")
    async def decide(self, request: StepRequest) -> bool:
        """Whether the step's condition holds; when it does not, the step is recorded as skipped."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            assert context.step.when is not None
            holds = frames.holds(context.step.when, context.scope)
            if not holds:
                await executions.skip(connection, request, worker_of(context.definition, context.step))
            return holds

    @activity.defn(name="skip")
    async def skip(self, request: StepRequest) -> None:
        """Record a step that cannot run because one it needs was skipped."""
        async with transaction(self._engine) as connection:
            _, found = await facts_of(connection, request.collaboration)
            await executions.skip(connection, request, worker_of(found.definition, found.steps[request.step]))

    @activity.defn(name="transform")
    async def transform(self, request: StepRequest) -> StepResult:
        """Compute a value from what is already there."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            assert isinstance(context.step, TransformStep)
            worker = worker_of(context.definition, context.step)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return begun.done
            output = checked_output(render(context.step.value, context.scope))
            result = await executions.complete(connection, request, worker, begun, Outcome(output))
            assert result is not None  # one transaction: nobody else can have given it up
            return result
