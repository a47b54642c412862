"""Begin and end what a user's own activity does for a step. Local activities."""

import json
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.runs.context import (
    Scope,
    load,
)
from activities.runs.failures import recorded
from activities.runs.undo import how_to_undo
from activities.values import as_promised, checked_output, output_fault, storable
from db.engine import transaction
from db.runs import executions
from db.runs.compensations import UNDO
from db.runs.executions import Assignment, AttemptOutcome
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language.steps import Compensate, Step, ToolStep
from schema.language.templates import render
from schema.temporal.queues import PLATFORM_QUEUES
from schema.temporal.steps import (
    OwnActivityCall,
    OwnActivityReturn,
    StepRequest,
    StepResult,
)

MAX_ARGS_BYTES: Final = 256 * 1024


class UserCallActivity:
    """Records around a user's own activity."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="begin_call")
    async def begin_call(self, request: StepRequest) -> OwnActivityCall:
        """Begin a step that a user's own activity will do, and give it its arguments."""
        async with recorded(self._engine, request), transaction(self._engine) as connection:
            context = await load(connection, request, later=bool(request.purpose))
            worker, call = _call_of(context.step, request)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return OwnActivityCall(str(begun.execution), done=begun.done)
            return OwnActivityCall(str(begun.execution), args=_arguments(call, context.scope))

    @activity.defn(name="end_call")
    async def end_call(self, request: OwnActivityReturn) -> StepResult | None:
        """Record what a user's own activity returned, or that it failed."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request.request)
            worker, _ = _call_of(context.step, request.request)
            begun = await executions.begun(connection, request.request, UUID(request.execution))
            if begun.done:
                return begun.done
            if request.error_code:
                await executions.fail(
                    connection, request.request, begun, request.error_code, request.error_message or ""
                )
                return None
            output, fault = storable(checked_output(request.output)), None
            if isinstance(context.step, ToolStep):
                output = as_promised(context.step, output)
                fault = output_fault(context.step, output)
            if fault is None:
                return await executions.complete(
                    connection, request.request, worker, begun, AttemptOutcome(output)
                )
            await executions.fail(connection, request.request, begun, "output_invalid", fault)
        raise StepError("output_invalid", fault)


def _call_of(step: Step, request: StepRequest) -> tuple[Assignment, ToolStep | Compensate]:
    """(who does it, how it is called) of a step that a user's own activity does, or of its undoing."""
    call = how_to_undo(step) if request.purpose == UNDO else step
    assert isinstance(call, (ToolStep, Compensate))
    return Assignment("tool", call.activity or ""), call


def _arguments(call: ToolStep | Compensate, scope: Scope) -> Json:
    """Render the arguments of a user's own activity. Raises StepError."""
    if call.task_queue in PLATFORM_QUEUES:
        # Uploads are refused for it; definitions of an older release may still hold it.
        raise StepError(
            "queue_reserved",
            f"found the platform's own queue {call.task_queue!r}; expected the queue of a worker of yours. "
            "Serve the activity on a queue of your own and upload the definition with its name.",
        )
    args = render(call.args, scope)
    if (size := len(json.dumps(args))) > MAX_ARGS_BYTES:
        raise StepError(
            "tool_args_too_large",
            f"found arguments of {size:,} bytes; expected at most {MAX_ARGS_BYTES:,}, since they go "
            "through Temporal's history. Pass a reference instead.",
        )
    return args
