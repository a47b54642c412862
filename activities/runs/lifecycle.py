"""Local activities around the steps: pin a run, begin and end users' activities, repeat, catch, finish."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.runs import frames
from activities.runs.context import (
    Scope,
    definition_of,
    facts_of,
    iteration,
    keep,
    known_run,
    load,
    run_of,
    scope,
    source_of,
    worker_of,
)
from activities.runs.failures import recorded
from activities.runs.frames import IterationResult
from activities.runs.segment import SegmentActivity
from activities.runs.undo import how_to_undo
from activities.values import as_promised, checked_output, moment_of, output_fault, storable
from db.definitions import definitions
from db.engine import transaction
from db.money import spending
from db.money.admission import SCHEDULE, Admission
from db.runs import children, collaborations, control, executions, forks
from db.runs.collaborations import Run
from db.runs.compensations import UNDO
from db.runs.executions import Assignment, Outcome
from db.runs.journal import Journal, MeantVersion
from db.telemetry import chosen_ids, context_of, links_to
from infra.disk import Disk
from plan.compile import CompiledDefinition, compiled
from plan.progress import COMPLETED, OPEN, FrameProgress
from schema import names, telemetry
from schema.cel.expressions import Json
from schema.endings import NO_OUTPUT
from schema.errors import Refused, StepError, TryLater
from schema.language import json_schemas
from schema.language.dependencies import later_expressions, steps_read
from schema.language.json_numbers import as_declared
from schema.language.steps import Compensate, JsonSchema, LoopStep, MapStep, Step, ToolStep, WaitStep, seconds
from schema.language.tasks import task_of
from schema.language.templates import expressions, render
from schema.temporal.memo import BY_TEMPORAL, MEMO_FORK
from schema.temporal.plan import Plan
from schema.temporal.queues import PLATFORM_QUEUES
from schema.temporal.runs import ENGINE, REVISION, Finish, Fork, PinnedRun, PinRequest
from schema.temporal.signing import Signer
from schema.temporal.steps import (
    Caught,
    ItemEnd,
    ItemEnded,
    OwnActivityCall,
    OwnActivityReturn,
    RepetitionState,
    SegmentRequest,
    StepEnd,
    StepRequest,
    StepResult,
)

INLINE_OUTPUT_BYTES: Final = 128 * 1024
"""Largest output that a workflow returns itself; for a larger one it returns a reference."""
MAX_ARGS_BYTES: Final = 256 * 1024
_FULL_DISK_TIMEOUT: Final = timedelta(seconds=30)

_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")


def run_context(request: PinRequest, parent: Run | None) -> tuple[str, str | None, str | None]:
    """(traceparent of the run's own span, id of the span above it, traceparent that it links to).

    Every run has a trace of its own, and a sub-collaboration is part of its parent's. What a caller came with
    is linked: whoever names somebody else's trace neither writes into it nor reads it.
    """
    run = UUID(request.first_run_id).hex
    # A hash, because the run id itself is the trace id.
    span_id = hashlib.sha256(run.encode()).hexdigest()[:16]
    if parent:
        _, trace_id, parent_span, _ = parent.traceparent.split("-")
        return f"00-{trace_id}-{span_id}-01", parent_span, None
    above = request.request_span if _SPAN_ID.fullmatch(request.request_span or "") else None
    linked = request.traceparent if _TRACEPARENT.fullmatch(request.traceparent or "") else None
    return f"00-{run}-{span_id}-01", above, linked


class Record:
    def __init__(
        self,
        engine: AsyncEngine,
        journal: Journal,
        segments: SegmentActivity,
        admission: Admission,
        disk: Disk | None = None,
        signer: Signer | None = None,
        *,
        searchable: bool = False,
    ) -> None:
        """`signer`: without one, whoever reaches Temporal may start runs. `searchable`: whether Temporal has
        the search attributes that runs set."""
        self._searchable = searchable
        self._disk = disk or Disk()
        self._signer = signer
        self._engine = engine
        self._admission = admission
        self._journal = journal
        self._segments = segments

    @activity.defn(name="pin")
    async def pin(self, request: PinRequest) -> PinnedRun:
        """Bind a run to a version, check its input, and run what can be run at once. Done again, it returns
        the same version and what has ended."""
        if request.parent is None and not request.goes_on and (full := self._disk.full):
            # Temporal has accepted it, so it waits. Each try is written to the same disk: not often.
            raise ApplicationError(full, type="disk_full", next_retry_delay=_FULL_DISK_TIMEOUT)
        await self._admit(request)
        with self._journal.crowd.joined():
            if begun := await self._begin(request):
                return await self._start(*begun)
        async with transaction(self._engine) as connection:
            run, found = await self._bind(connection, request)
            pinned = self._pinned(run, found, await _ended(connection, run, found))
            if not request.goes_on:
                return pinned
            steered = await control.state(connection, run.id)
            return replace(pinned, paused=steered.own, paused_above=steered.above)

    async def _admit(self, request: PinRequest) -> None:
        """Count a start that came past the API's doors: from a schedule, a Temporal client or Temporal's UI.

        Raises TryLater, unless it is a retry for a run that has begun.
        """
        scheduled = (request.requested_by or "").startswith(SCHEDULE)
        if request.requested_by and not scheduled:
            return
        # Another workflow may go on as a collaboration, which has not begun then.
        if request.goes_on and await self._has_begun(request):
            return
        if await self._parent(request):  # counted by `begin_child`
            return
        try:
            await self._admission.start(request.tenant)
            if scheduled and request.requested_by:
                await self._admission.scheduled(request.tenant, request.requested_by)
        except TryLater:
            if not await self._has_begun(request):
                raise

    async def _has_begun(self, request: PinRequest) -> bool:
        async with transaction(self._engine) as connection:
            return await collaborations.is_known(connection, UUID(request.first_run_id))

    async def _begin(self, request: PinRequest) -> tuple[Run, CompiledDefinition] | None:
        """A new run, in one statement that it shares with others; None where it takes more."""
        if request.goes_on or request.fork:
            return None
        _check_names(request)
        self._check_proof(request)
        name, selector = definitions.split_type(request.name)
        meant = self._journal.meant(request.tenant, name, selector)
        source = source_of(meant.sha256) if meant else None
        if meant is None or source is None:
            return None
        found = compiled(meant.sha256, source)
        given, fault = _given(found, request.input)
        if found.definition.budget or fault:
            return None
        if names.is_uuid(request.workflow_id):
            async with transaction(self._engine) as connection:
                await _check_uuid(connection, request.workflow_id)
        parent = await self._parent(request)
        run = _new_run(
            request, parent, meant.id, name, meant.number, meant.sha256, given, found.definition.input
        )
        around = request.parent if parent else None
        if not await self._journal.start(run, selector, request.requested_by or BY_TEMPORAL, around):
            return None
        return keep(run), found

    async def _bind(self, connection: AsyncConnection, request: PinRequest) -> tuple[Run, CompiledDefinition]:
        """A run and its definition, whether it is new or not."""
        known = await collaborations.known(connection, UUID(request.first_run_id))
        if known is not None:
            return keep(known), await definition_of(connection, known)
        _check_names(request)
        _check_fork(request)
        self._check_proof(request)
        await _check_uuid(connection, request.workflow_id)
        name, selector = definitions.split_type(request.name)
        version = await definitions.startable(connection, request.tenant, name, selector)
        found = compiled(version.sha256, version.source)
        given, fault = _given(found, request.input)
        if fault:
            raise Refused(
                "input_invalid",
                f"the input does not fit {version.name}@{version.number}: {fault}. "
                f"Expected: {json.dumps(found.definition.input)[:1_000]}",
            )
        parent = await self._parent(request)
        run = _new_run(
            request,
            parent,
            version.id,
            version.name,
            version.number,
            version.sha256,
            given,
            found.definition.input,
        )
        around = request.parent if parent else None
        source = request.fork["collaboration"] if request.fork else None
        by = request.requested_by or BY_TEMPORAL
        run = await collaborations.create(connection, run, by, around, source)
        if found.definition.budget:
            await spending.open(connection, run.id, run.tenant, found.definition.budget)
        if request.fork:
            await forks.keep(connection, run, found, request.fork)
            most = self._admission.settings.max_sub_collaborations
            await children.count_resumed(connection, run.id, most)
        # The next run of the name finds all that at hand.
        await definition_of(connection, run)
        meant = MeantVersion(version.id, version.number, version.sha256)
        self._journal.remember(request.tenant, name, selector, meant)
        return keep(run), found

    def _check_proof(self, request: PinRequest) -> None:
        """Raise Refused("proof_missing") for a start past the API, where a key for the API is set."""
        if self._signer is None:
            return
        by = request.requested_by or ""
        # Temporal puts the time behind the id that a schedule gives its runs.
        id = names.without_time(request.workflow_id) if by.startswith("schedule:") else request.workflow_id
        fork = Fork(**request.fork) if request.fork else None
        self._signer.check_start(request.proof, request.tenant, by, id, request.name, fork)

    def _pinned(self, run: Run, found: CompiledDefinition, ended: list[StepEnd]) -> PinnedRun:
        return replace(_pinned(run, found, ended), searchable=self._searchable)

    async def _parent(self, request: PinRequest) -> Run | None:
        """The run that this one is a step of. Its memo says so, and counts where Temporal says the same: the
        run was begun as a child of that run's workflow."""
        named = str((request.parent or {}).get("collaboration"))
        if request.parent_workflow_id is None or not names.is_uuid(named):
            return None
        parent = known_run(named)
        if parent is None:
            async with transaction(self._engine) as connection:
                parent = await collaborations.known(connection, UUID(named))
        told = (request.parent_workflow_id, request.tenant)
        return parent if parent and (parent.temporal_workflow_id, parent.tenant) == told else None

    async def _start(self, run: Run, found: CompiledDefinition) -> PinnedRun:
        """Run the quick steps at the beginning, and close the run when there are no others: then the whole of
        it costs Temporal one workflow task."""
        pinned = self._pinned(run, found, [])
        quick = [segment for segment in FrameProgress(found.plan).take_units()[0] if not segment.slow]
        if not quick:
            return pinned
        request = SegmentRequest(
            pinned.collaboration, pinned.tenant, pinned.traceparent, "", quick[0].members, quick[0].gates, []
        )
        try:
            ended, here = await self._segments.begin(request, run, found)
            if len(ended) < len(found.plan.steps) or any(one.status == OPEN for one in ended):
                return replace(pinned, ended=ended)
            output, sub_state = _outcome(found, here)
            finish = Finish(pinned.collaboration, pinned.tenant, pinned.traceparent, COMPLETED, sub_state)
            told, _ = await self._close(run, finish, output)
            return replace(pinned, plan=Plan([]), over=True, output=told)
        except StepError as error:
            return replace(pinned, error_code=error.code, error_message=error.message, error_step=error.step)

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
                return await executions.complete(connection, request.request, worker, begun, Outcome(output))
            await executions.fail(connection, request.request, begun, "output_invalid", fault)
        raise StepError("output_invalid", fault)

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
    async def end_item(self, end: ItemEnd) -> ItemEnded:
        """Record what one repetition came to."""
        if end.error_code:
            return await self._fail_item(end, end.error_code)
        async with recorded(self._engine, end.request):
            turn = await self._end_item(end.request, end.index)
            if turn.error:
                raise turn.error
        return ItemEnded(turn.last)

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

    async def _fail_item(self, end: ItemEnd, code: str) -> ItemEnded:
        """Close what a failed item left running, and the item."""
        request, message = end.request, storable(end.error_message or "")
        at = f"{request.path}[{end.index}]"
        async with transaction(self._engine) as connection:
            await executions.close_running(
                connection, request, at, code=code, message=message, step=end.error_step
            )
            await executions.add_item(connection, request, end.index, error_code=code, error_message=message)
        return ItemEnded()

    @activity.defn(name="close")
    async def close(self, request: StepRequest) -> StepEnd:
        """Record what a map or loop came to."""
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
                await executions.complete(connection, request, worker, begun, Outcome(checked_output(output)))
        return StepEnd(request.step, COMPLETED)

    @activity.defn(name="caught")
    async def caught(self, caught: Caught) -> StepEnd:
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
        """Begin to wait; comes to the seconds that are left."""
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
                outcome = Outcome({"until": datetime.now(UTC).isoformat()})
                await executions.complete(connection, request, worker, begun, outcome)

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
                output, sub_state = _outcome(found, await scope(connection, run, found, sources))
        told, cost_usd = await self._close(run, replace(request, sub_state=sub_state), output)
        return {"output": told, "cost_usd": cost_usd} if request.with_cost else told

    async def _close(self, run: Run, request: Finish, output: Json) -> tuple[Any, float | None]:
        """(the output or a reference to it, what the run cost where it was not closed before)"""
        closed = await self._journal.finish(request, output)
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


def _given(found: CompiledDefinition, input: Json) -> tuple[Json, str]:
    """(the input with its defaults, as Postgres can hold it; what is wrong with it, or nothing)"""
    try:
        full = storable(json_schemas.with_defaults(found.definition.input, input))
        given = as_declared(found.definition.input, full)
    except (StepError, RecursionError) as error:
        return None, getattr(error, "message", "it has more levels than can be walked")
    return given, json_schemas.faults(found.definition.input, given)


def _check_names(request: PinRequest) -> None:
    """Raise Refused for a run under a name of the platform's, or one that no door could name, whichever door
    it was started by."""
    names.check_definition(request.name)
    names.check_nameable(request.workflow_id)
    if names.is_reserved(request.workflow_id):
        names.check_id(request.workflow_id)


def _check_fork(request: PinRequest) -> None:
    """Raise Refused for a memo that says to go on from another run, and is none that the platform wrote."""
    try:
        if request.fork is not None:
            UUID(Fork(**request.fork).collaboration)
    except (TypeError, ValueError, AttributeError):
        raise Refused(
            "input_invalid", f"found a memo {MEMO_FORK} that is none of the platform's; fork through the API."
        ) from None


async def _check_uuid(connection: AsyncConnection, id: str) -> None:
    """Raise Refused for an id that is another run's UUID. Temporal's clients make up UUIDs as ids, so that
    others are no fault."""
    if names.is_uuid(id) and await collaborations.is_known(connection, UUID(id)):
        names.check_id(id)


def _new_run(
    request: PinRequest,
    parent: Run | None,
    version: UUID,
    name: str,
    number: int,
    sha256: str,
    given: Json,
    schema: JsonSchema,
) -> Run:
    traceparent, above, linked = run_context(request, parent)
    return Run(
        id=UUID(request.first_run_id),
        temporal_workflow_id=request.workflow_id,
        tenant=request.tenant,
        input=given,
        task=task_of(given, schema),
        traceparent=traceparent,
        parent_span_id=above,
        started_at=datetime.now(UTC),
        version_id=version,
        name=name,
        version=number,
        sha256=sha256,
        engine=ENGINE,
        linked_traceparent=linked,
        request_digest=request.request,
    )


def _pinned(run: Run, found: CompiledDefinition, ended: list[StepEnd]) -> PinnedRun:
    budget = found.definition.budget
    return PinnedRun(
        collaboration=str(run.id),
        tenant=run.tenant,
        version=str(run.version_id),
        version_number=run.version,
        traceparent=run.traceparent,
        plan=found.plan,
        engine=run.engine,
        ended=ended,
        seconds_left=_seconds_left(run, found),
        ask_for_budget=budget is not None and budget.on_exceed == "ask",
        compensates=any(step.compensates for step in found.plan_steps.values()),
        revision=REVISION,
    )


def _outcome(found: CompiledDefinition, here: Scope) -> tuple[Json, str]:
    """(output, sub_state) of a run whose steps have all ended."""
    template = found.outputs[""]
    try:
        output = checked_output(render(template, here))
    except StepError as error:
        raise StepError(error.code, f"the definition's output: {error.message}") from None
    last = steps_read(source for _, source in expressions(template))
    has_one = any(here["steps"][name]["status"] == COMPLETED for name in last)
    return output, "" if has_one or found.definition.output is not None else NO_OUTPUT


async def _ended(connection: AsyncConnection, run: Run, found: CompiledDefinition) -> list[StepEnd]:
    """Return the ends of those top-level steps that have ended."""
    rows = await executions.ended(connection, run.id, [step.id for step in found.plan.steps])
    return [StepEnd(path, status, branch or "") for path, status, branch in rows]


def _seconds_left(run: Run, found: CompiledDefinition) -> float | None:
    budget = found.definition.budget
    if budget is None or budget.time is None:
        return None
    return max(0.0, seconds(budget.time) - (datetime.now(UTC) - run.started_at).total_seconds())


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
