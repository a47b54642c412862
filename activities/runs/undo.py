"""Compensation: undo what a run that failed or was cancelled had done, the last done first."""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.guard import describe, given_up
from activities.runs.context import facts_of, load
from activities.runs.segment import Tool
from activities.spans import span
from activities.values import checked_output, storable
from db.engine import transaction
from db.runs import compensations, executions
from db.runs.compensations import UNDO, CompensableStep
from db.runs.executions import Assignment, AttemptOutcome
from plan.compile import CompiledDefinition, retry_rule
from schema import telemetry
from schema.language.steps import AgentStep, CollaborationStep, Compensate, Step, ToolStep, seconds
from schema.language.templates import render
from schema.temporal.steps import StepRequest, StepResult, Undo

MAX_AT_ONCE: Final = 200
"""Steps undone per message: they go through Temporal's history, and a map may have 10,000 items."""


class UndoActivity:
    def __init__(self, engine: AsyncEngine, tool: Tool) -> None:
        self._engine = engine
        self._tool = tool

    @activity.defn(name="compensations")
    async def compensations(self, behind: StepRequest) -> list[Undo]:
        """The next steps to undo, behind the one that `behind` undoes; with no step in it, the first ones.

        A local activity.
        """
        async with transaction(self._engine) as connection:
            _, found = await facts_of(connection, behind.collaboration)
            steps = [step.id for step in found.plan_steps.values() if step.compensates]
            after = behind.path.removesuffix(f"~{UNDO}") if behind.step else ""
            done = await compensations.to_undo(
                connection, UUID(behind.collaboration), steps, after=after, limit=MAX_AT_ONCE
            )
        return [_undo(behind, found, one) for one in done]

    @activity.defn(name="compensate")
    async def compensate(self, request: StepRequest) -> StepResult:
        """Undo one step with a built-in tool, or return the result of the attempt that already did."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request, later=True)
            how = how_to_undo(context.step)
            assert how.tool is not None
            worker = Assignment("tool", how.tool)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return begun.done
        with span(
            f"{telemetry.EXECUTE_TOOL} {how.tool}",
            request,
            {
                telemetry.OPERATION: telemetry.EXECUTE_TOOL,
                telemetry.TOOL_NAME: how.tool,
                telemetry.STEP: request.path,
                telemetry.ATTEMPT: begun.attempt,
            },
        ):
            try:
                output = storable(checked_output(await self._tool(how.tool, render(how.args, context.scope))))
            except Exception as error:
                async with transaction(self._engine) as connection:
                    await executions.fail(connection, request, begun, *describe(error))
                raise
            async with transaction(self._engine) as connection:
                result = await executions.complete(connection, request, worker, begun, AttemptOutcome(output))
        if result is None:
            raise given_up()
        return result


def how_to_undo(step: Step) -> Compensate:
    """Return the compensation of a step that declares one."""
    assert isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and step.compensate
    return step.compensate


def _undo(base: StepRequest, found: CompiledDefinition, done: CompensableStep) -> Undo:
    how, defaults = how_to_undo(found.steps[done.step]), found.definition.defaults
    return Undo(
        request=StepRequest(
            base.collaboration,
            base.tenant,
            done.step,
            base.traceparent,
            done.iteration,
            frame=done.path.removesuffix(done.step).removesuffix("."),
            purpose=UNDO,
        ),
        summary=f"undo {done.path} · {how.tool or how.activity}",
        timeout_seconds=seconds(defaults.timeout),
        retry=retry_rule(defaults.retry),
        activity=how.activity,
        task_queue=how.task_queue,
        priority=defaults.priority,
    )
