"""Begin and end maps, loops and waits, and record caught errors. Local activities."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.runs import frames
from activities.runs.context import (
    facts_of,
    iteration,
    load,
    scope,
    worker_of,
)
from activities.runs.failures import recorded
from activities.runs.frames import IterationResult
from activities.values import checked_output, moment_of, storable
from db.engine import transaction
from db.runs import executions
from db.runs.executions import AttemptOutcome
from plan.progress import COMPLETED
from schema.cel.expressions import Json
from schema.language.dependencies import later_expressions
from schema.language.steps import LoopStep, MapStep, WaitStep, seconds
from schema.language.templates import expressions, render
from schema.temporal.steps import (
    CaughtFailure,
    ItemEnd,
    ItemResult,
    RepetitionState,
    StepEnd,
    StepRequest,
)


class RepeatActivity:
    """Records around steps that repeat, wait or are caught."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="open")
    async def open(self, request: StepRequest) -> RepetitionState:
        """Begin a map or loop, or find out how far it has come."""
        async with recorded(self._engine, request), transaction(self._engine) as connection:
            context = await load(connection, request)
            begun = await executions.resume(connection, request, worker_of(context.definition, context.step))
            if begun.done:
                return RepetitionState(ended=StepEnd(request.step, begun.done.status))
            if begun.goes_on:
                items, _ = await executions.input_and_output(connection, context.run.id, request.path)
                count = len(items) if isinstance(context.step, MapStep) else 0
                rows = await executions.items(connection, context.run.id, request.path)
                return frames.resumed(context.step, count, rows)
            value = frames.opening(context.step, context.scope)
            await executions.set_input(connection, begun.execution, value)
        return RepetitionState(count=len(value)) if isinstance(context.step, MapStep) else RepetitionState()

    @activity.defn(name="end_item")
    async def end_item(self, end: ItemEnd) -> ItemResult:
        """Record the end of one repetition."""
        if end.error_code:
            return await self._fail_item(end, end.error_code)
        async with recorded(self._engine, end.request):
            turn = await self._end_item(end.request, end.index)
            if turn.error:
                raise turn.error
        return ItemResult(turn.last)

    async def _end_item(self, request: StepRequest, index: int) -> IterationResult:
        async with transaction(self._engine) as connection:
            run, found = await facts_of(connection, request.collaboration)
            step = found.steps[request.step]
            assert isinstance(step, (MapStep, LoopStep))
            sources = [source for _, source in later_expressions(step)]
            sources += [source for _, source in expressions(found.outputs[request.step])]
            here = await scope(connection, run, found, sources, f"{request.path}[{index}]")
            if isinstance(step, LoopStep):
                here["iter"] = await iteration(connection, run, request.path, index)
            turn = frames.turn(step, found.outputs[request.step], here, index)
            await executions.add_item(
                connection, request, index, output=turn.output, carry=turn.carry, mark=turn.mark
            )
        return turn

    async def _fail_item(self, end: ItemEnd, code: str) -> ItemResult:
        """Close what a failed item left running, and the item."""
        request, message = end.request, storable(end.error_message or "")
        at = f"{request.path}[{end.index}]"
        async with transaction(self._engine) as connection:
            await executions.close_running(
                connection, request, at, code=code, message=message, step=end.error_step
            )
            await executions.add_item(connection, request, end.index, error_code=code, error_message=message)
        return ItemResult()

    @activity.defn(name="close")
    async def close(self, request: StepRequest) -> StepEnd:
        """Record the end of a map or loop."""
        async with recorded(self._engine, request), transaction(self._engine) as connection:
            run, found = await facts_of(connection, request.collaboration)
            step = found.steps[request.step]
            worker = worker_of(found.definition, step)
            begun = await executions.resume(connection, request, worker)
            if begun.done is None:
                rows = await executions.items(connection, run.id, request.path)
                output: Json = [row.output for row in rows]
                if isinstance(step, LoopStep):
                    output = rows[-1].output if rows else None
                await executions.complete(
                    connection, request, worker, begun, AttemptOutcome(checked_output(output))
                )
        return StepEnd(request.step, COMPLETED)

    @activity.defn(name="caught")
    async def caught(self, caught: CaughtFailure) -> StepEnd:
        """Record that a failed step is caught."""
        request = caught.request
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            rule = context.step.catch[caught.rule]
            value = None if rule.then else checked_output(render(rule.value, context.scope))
            await executions.catch(
                connection,
                request,
                worker_of(context.definition, context.step),
                then=rule.then or "",
                output=value,
                code=caught.error_code,
                message=storable(caught.error_message),
                step=caught.error_step,
            )
        return (
            StepEnd(request.step, "caught", f"!{rule.then}")
            if rule.then
            else StepEnd(request.step, COMPLETED)
        )

    @activity.defn(name="begin_wait")
    async def begin_wait(self, request: StepRequest) -> float:
        """Begin to wait; return the seconds that are left."""
        async with recorded(self._engine, request), transaction(self._engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, WaitStep)
            begun = await executions.resume(connection, request, worker_of(context.definition, step))
            if begun.done:
                return 0.0
            if step.duration is not None:
                due = begun.started_at + timedelta(seconds=seconds(step.duration))
            else:
                due = moment_of(render(step.until, context.scope))
        return max(0.0, (due - datetime.now(UTC)).total_seconds())

    @activity.defn(name="end_wait")
    async def end_wait(self, request: StepRequest) -> None:
        """Record that the wait is over."""
        async with transaction(self._engine) as connection:
            _, found = await facts_of(connection, request.collaboration)
            worker = worker_of(found.definition, found.steps[request.step])
            begun = await executions.resume(connection, request, worker)
            if begun.done is None:
                outcome = AttemptOutcome({"until": datetime.now(UTC).isoformat()})
                await executions.complete(connection, request, worker, begun, outcome)
