"""Bind a run to a version, check its input, and run what can be run at once. A local activity."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.runs.context import (
    definition_of,
    keep,
    known_run,
    source_of,
)
from activities.runs.finish import close_run, output_of
from activities.runs.segment import SegmentActivity
from activities.values import storable
from db.definitions import definitions
from db.engine import transaction
from db.money import spending
from db.runs import children, collaborations, control, executions, forks
from db.runs.admission import SCHEDULE, Admission
from db.runs.collaborations import Run
from db.runs.journal import Journal, MeantVersion
from infra.disk import Disk
from plan.compile import CompiledDefinition, compiled
from plan.progress import COMPLETED, OPEN, FrameProgress
from schema import names
from schema.cel.expressions import Json
from schema.errors import Refused, StepError, TryLater
from schema.language import json_schemas
from schema.language.json_numbers import as_declared
from schema.language.steps import JsonSchema, seconds
from schema.language.tasks import task_of
from schema.temporal.memo import BY_TEMPORAL, MEMO_FORK
from schema.temporal.plan import Plan
from schema.temporal.runs import ENGINE, REVISION, Finish, Fork, PinnedRun, PinRequest
from schema.temporal.signing import Signer
from schema.temporal.steps import (
    SegmentRequest,
    StepEnd,
)

_FULL_DISK_TIMEOUT: Final = timedelta(seconds=30)

_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")


def run_context(request: PinRequest, parent: Run | None) -> tuple[str, str | None, str | None]:
    """(traceparent of the run's own span, id of the span above it, traceparent that it links to).

    Every run has a trace of its own, and a sub-collaboration is part of its parent's. What a caller came with
    is linked: a caller who names somebody else's trace neither writes into it nor reads it.
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


class PinActivity:
    """Binds runs to a version at their first moment."""

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
        """`signer`: without one, anyone who reaches Temporal may start runs. `searchable`: whether Temporal
        has the search attributes that runs set."""
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
            output, sub_state = output_of(found, here)
            finish = Finish(pinned.collaboration, pinned.tenant, pinned.traceparent, COMPLETED, sub_state)
            told, _ = await close_run(self._journal, run, finish, output)
            return replace(pinned, plan=Plan([]), over=True, output=told)
        except StepError as error:
            return replace(pinned, error_code=error.code, error_message=error.message, error_step=error.step)


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


async def _ended(connection: AsyncConnection, run: Run, found: CompiledDefinition) -> list[StepEnd]:
    """Return the ends of those top-level steps that have ended."""
    rows = await executions.ended(connection, run.id, [step.id for step in found.plan.steps])
    return [StepEnd(path, status, branch or "") for path, status, branch in rows]


def _seconds_left(run: Run, found: CompiledDefinition) -> float | None:
    budget = found.definition.budget
    if budget is None or budget.time is None:
        return None
    return max(0.0, seconds(budget.time) - (datetime.now(UTC) - run.started_at).total_seconds())
