"""Close a run: render its output, tell the outbox, end its span. A local activity."""

import json
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.runs.context import (
    Scope,
    definition_of,
    run_of,
    scope,
)
from activities.values import checked_output
from db.engine import transaction
from db.runs.collaborations import Run
from db.runs.journal import Journal
from db.telemetry import chosen_ids, context_of, links_to
from plan.compile import CompiledDefinition
from plan.progress import COMPLETED
from schema import telemetry
from schema.cel.expressions import Json
from schema.endings import NO_OUTPUT
from schema.errors import StepError
from schema.language.dependencies import steps_read
from schema.language.templates import expressions, render
from schema.temporal.runs import Finish

INLINE_OUTPUT_BYTES: Final = 128 * 1024
"""Largest output that a workflow returns itself; for a larger one it returns a reference."""


class FinishActivity:
    """Closes runs."""

    def __init__(self, engine: AsyncEngine, journal: Journal) -> None:
        self._engine, self._journal = engine, journal

    @activity.defn(name="finish")
    async def finish(self, request: Finish) -> Any:
        """Close a run: render its output, tell the outbox, end its span. Returns the output."""
        output: Json = None
        sub_state = request.sub_state
        async with transaction(self._engine) as connection:
            run = await run_of(connection, request.collaboration)
            if request.status == COMPLETED:
                found = await definition_of(connection, run)
                sources = [source for _, source in expressions(found.outputs[""])]
                output, sub_state = output_of(found, await scope(connection, run, found, sources))
        told, cost_usd = await close_run(self._journal, run, replace(request, sub_state=sub_state), output)
        return {"output": told, "cost_usd": cost_usd} if request.with_cost else told


async def close_run(journal: Journal, run: Run, request: Finish, output: Json) -> tuple[Any, float | None]:
    """Close a run once; return its output or a reference to it, and its cost if it was not closed before."""
    closed = await journal.finish(request, output)
    if closed:
        end_run_span(run, request)
    return _inline(run, output), float(closed.cost_usd) if closed else None


def _inline(run: Run, output: Json) -> Any:
    """Return the output itself, or a reference to a large one."""
    text = json.dumps(output, ensure_ascii=False)
    if len(text.encode("utf-8", "replace")) <= INLINE_OUTPUT_BYTES:
        return output
    address = f"/v1/collaborations/{quote(run.temporal_workflow_id, safe='')}?include=output"
    return {"output_reference": address, "bytes": len(text)}


def output_of(found: CompiledDefinition, here: Scope) -> tuple[Json, str]:
    """(output, sub_state) of a run whose steps have all ended."""
    template = found.outputs[""]
    try:
        output = checked_output(render(template, here))
    except StepError as error:
        raise StepError(error.code, f"the definition's output: {error.message}") from None
    last = steps_read(source for _, source in expressions(template))
    has_one = any(here["steps"][name]["status"] == COMPLETED for name in last)
    return output, "" if has_one or found.definition.output is not None else NO_OUTPUT


def end_run_span(run: Run, request: Finish) -> None:
    """The run's own span, written once at its end under the ids that its children already point to."""
    _, trace_id, span_id, _ = run.traceparent.split("-")
    parent = f"00-{trace_id}-{run.parent_span_id}-01" if run.parent_span_id else None
    with chosen_ids(trace_id, span_id):
        span = trace.get_tracer("facilitair").start_span(
            f"{telemetry.INVOKE_WORKFLOW} {run.name}",
            context=context_of(parent) or trace.set_span_in_context(trace.INVALID_SPAN),
            start_time=int(run.started_at.timestamp() * 1e9),
            links=links_to(run.linked_traceparent),
            attributes={
                telemetry.OPERATION: telemetry.INVOKE_WORKFLOW,
                telemetry.WORKFLOW_NAME: run.name,
                telemetry.VERSION: run.version,
                telemetry.COLLABORATION: run.temporal_workflow_id,
                telemetry.TENANT: run.tenant,
                telemetry.RUN: str(run.id),
                telemetry.STATUS: request.sub_state or request.status,
            },
        )
    if request.error_code:
        span.set_attribute(telemetry.ERROR_TYPE, request.error_code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, request.error_code))
    span.end()
