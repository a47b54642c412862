"""The short steps around the work: pin, decide, transform, skip, finish. They run as local activities."""

import hashlib
import json
import re
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.context import definition_of, load, output_scope, worker_of
from db import collaborations, definitions, executions
from db.collaborations import Run
from db.engine import transaction
from db.executions import Outcome
from db.telemetry import chosen_ids, context_of
from schema import json_schemas, telemetry
from schema.compile import compiled, dependencies
from schema.definition import Definition
from schema.errors import Refused, StepError
from schema.expressions import Json, compile_expression, evaluate
from schema.messages import Finish, Pinned, PinRequest, StepRequest, StepResult, ToolCall, ToolReturn
from schema.steps import ToolStep, TransformStep
from schema.templates import as_text, render

INLINE_OUTPUT_BYTES: Final = 128 * 1024
"""Largest output that a workflow returns itself; for a larger one it returns a reference."""
MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024
MAX_ARGS_BYTES: Final = 256 * 1024

_TYPE: Final = re.compile(r"^([^@]+)(?:@(\d{1,9}))?$")
_TRACEPARENT: Final = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$")


def checked_output(output: Json) -> Json:
    """The output, if Postgres and readers can hold it; raises StepError("output_too_large")."""
    size = len(json.dumps(output, ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_OUTPUT_BYTES:
        raise StepError(
            "output_too_large",
            f"found an output of {size:,} bytes; expected at most {MAX_OUTPUT_BYTES:,}. "
            "Let the step return a reference to where the data is.",
        )
    return output


def storable(value: Json) -> Json:
    """The value without what Postgres cannot hold: NUL and half surrogate pairs in text."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value


def task_of(input: Json) -> str:
    """What a run is about, in words: its task, else its first text, else its input as JSON."""
    if isinstance(input, dict):
        texts = [value for value in input.values() if isinstance(value, str)]
        chosen = input.get("task") if isinstance(input.get("task"), str) else (texts[0] if texts else None)
        if chosen:
            return str(chosen)[:10_000]
    return as_text(input)[:10_000]


def run_context(first_run_id: str, given: str | None) -> tuple[str, str | None]:
    """(traceparent of the run's own span, parent span id). Both follow from the run id and the request."""
    run = UUID(first_run_id).hex
    match = _TRACEPARENT.match(given or "")
    trace_id, parent = (match.group(1), match.group(2)) if match else (run, None)
    # A hash, because the run id itself is the trace id when no request brought one.
    span_id = hashlib.sha256(run.encode()).hexdigest()[:16]
    return f"00-{trace_id}-{span_id}-01", parent


class Record:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="pin")
    async def pin(self, request: PinRequest) -> Pinned:
        """Bind a run to a version and check its input. Done again, it returns the same version."""
        async with transaction(self._engine) as connection:
            version = await collaborations.pinned_version(connection, UUID(request.first_run_id))
            if version is None:
                match = _TYPE.match(request.name)
                name, number = (match.group(1), match.group(2)) if match else (request.name, None)
                version = await definitions.find(
                    connection, request.tenant, name, int(number) if number else None
                )
            definition, plan = compiled(version.sha256, version.source)
            given = json_schemas.with_defaults(definition.input, request.input)
            if wrong := json_schemas.violations(definition.input, given):
                shown = "; ".join(f"{pointer or '/'}: {message}" for pointer, message in wrong[:5])
                raise Refused(
                    "input_invalid",
                    f"the input does not fit {version.name}@{version.number}: {shown}. "
                    f"Expected: {json.dumps(definition.input)[:1_000]}",
                )
            traceparent, parent = run_context(request.first_run_id, request.traceparent)
            await collaborations.create(
                connection, replace(request, input=storable(given)), version,
                task=storable(task_of(given)), traceparent=traceparent, parent_span_id=parent,
            )  # fmt: skip
        return Pinned(
            collaboration=request.first_run_id, tenant=request.tenant, version=str(version.id),
            version_number=version.number, traceparent=traceparent, plan=plan,
        )  # fmt: skip

    @activity.defn(name="decide")
    async def decide(self, request: StepRequest) -> bool:
        """Whether the step's condition holds; when it does not, the step is recorded as skipped."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            assert context.step.when is not None
            holds = evaluate(compile_expression(context.step.when), context.scope)
            if not isinstance(holds, bool):
                raise StepError(
                    "expression_failed",
                    f"the condition {context.step.when!r} came to {as_text(holds)[:100]}; "
                    "expected true or false. Compare it with something.",
                )
            if not holds:
                await executions.skip(connection, request, worker_of(context.definition, context.step))
            return holds

    @activity.defn(name="skip")
    async def skip(self, request: StepRequest) -> None:
        """Record a step that cannot run because one it needs was skipped."""
        async with transaction(self._engine) as connection:
            run = await collaborations.run(connection, UUID(request.collaboration))
            definition, _ = await definition_of(connection, run)
            await executions.skip(connection, request, worker_of(definition, definition.steps[request.step]))

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

    @activity.defn(name="begin_call")
    async def begin_call(self, request: StepRequest) -> ToolCall:
        """Begin a step that a user's own activity will do, and give it its arguments."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            assert isinstance(context.step, ToolStep)
            begun = await executions.claim(connection, request, worker_of(context.definition, context.step))
            if begun.done:
                return ToolCall(str(begun.execution), done=begun.done)
            args = render(context.step.args, context.scope)
            if (size := len(json.dumps(args))) > MAX_ARGS_BYTES:
                raise StepError(
                    "tool_args_too_large",
                    f"found arguments of {size:,} bytes; expected at most {MAX_ARGS_BYTES:,}, since they go "
                    "through Temporal's history. Pass a reference instead.",
                )
            return ToolCall(str(begun.execution), args=args)

    @activity.defn(name="end_call")
    async def end_call(self, request: ToolReturn) -> StepResult | None:
        """Record what a user's own activity returned, or that it failed."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request.request)
            assert isinstance(context.step, ToolStep)
            worker = worker_of(context.definition, context.step)
            begun = await executions.begun(connection, request.request, UUID(request.execution))
            if begun.done:
                return begun.done
            if request.error_code:
                await executions.fail(
                    connection, request.request, begun, request.error_code, request.error_message or ""
                )
                return None
            output = checked_output(storable(request.output))
            if fault := output_fault(context.step, output):
                await executions.fail(connection, request.request, begun, "output_invalid", fault)
                raise StepError("output_invalid", fault)
            return await executions.complete(connection, request.request, worker, begun, Outcome(output))

    @activity.defn(name="finish")
    async def finish(self, request: Finish) -> Any:
        """Close a run: render its output, tell the outbox, end its span. Returns the output."""
        async with transaction(self._engine) as connection:
            run = await collaborations.run(connection, UUID(request.collaboration))
            output: Json = None
            if request.status == "completed":
                definition, _ = await definition_of(connection, run)
                template = output_template(definition)
                output = checked_output(render(template, await output_scope(connection, run, template)))
            closed = await collaborations.finish(connection, run, request, output)
        if closed:
            _end_run_span(run, request)
        text = json.dumps(output, ensure_ascii=False)
        if len(text.encode("utf-8", "replace")) <= INLINE_OUTPUT_BYTES:
            return output
        return {
            "output_reference": f"/v1/collaborations/{run.temporal_workflow_id}?include=output",
            "bytes": len(text),
        }  # fmt: skip


def output_fault(step: ToolStep, output: Json) -> str | None:
    """Why a tool's output breaks its promise, or None."""
    if step.output_schema is None:
        return None
    wrong = json_schemas.violations(step.output_schema, output)
    return f"the output does not fit its schema: {wrong[0][0] or '/'}: {wrong[0][1]}" if wrong else None


def output_template(definition: Definition) -> Json:
    """What a run comes to: as written, else the output of the steps that no other step uses."""
    if definition.output is not None:
        return definition.output
    links = [dependencies(step) for step in definition.steps.values()]
    used = {name for link in links for name in (*link.needs, *link.waits)}
    last = [name for name in definition.steps if name not in used]
    if len(last) == 1:
        return f"${{steps[?'{last[0]}'].?output.orValue(null)}}"
    return {name: f"${{steps[?'{name}'].?output.orValue(null)}}" for name in last}


def _end_run_span(run: Run, request: Finish) -> None:
    """The run's own span, written once at its end under the ids that its children already point to."""
    _, trace_id, span_id, _ = run.traceparent.split("-")
    parent = f"00-{trace_id}-{run.parent_span_id}-01" if run.parent_span_id else None
    with chosen_ids(trace_id, span_id):
        span = trace.get_tracer("facilitair").start_span(
            f"{telemetry.INVOKE_WORKFLOW} {run.name}",
            context=context_of(parent) or trace.set_span_in_context(trace.INVALID_SPAN),
            start_time=int(run.started_at.timestamp() * 1e9),
            attributes={
                telemetry.OPERATION: telemetry.INVOKE_WORKFLOW,
                telemetry.WORKFLOW_NAME: run.name,
                telemetry.VERSION: run.version,
                telemetry.COLLABORATION: run.temporal_workflow_id,
                telemetry.STATUS: request.sub_state or request.status,
            },
        )
    if request.error_code:
        span.set_attribute(telemetry.ERROR_TYPE, request.error_code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, request.error_code))
    span.end()
