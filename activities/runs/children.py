"""Steps that run another collaboration: a stored one, or one that an agent planned. Local activities."""

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.runs.context import StepContext, load, worker_of
from activities.values import checked_output, storable
from db.definitions import definitions
from db.definitions.definitions import Version
from db.engine import transaction
from db.runs import children, executions
from db.runs.admission import Admission
from db.runs.executions import AttemptOutcome
from plan.compile import compiled
from plan.progress import COMPLETED
from schema.cel.expressions import Json
from schema.errors import InvalidDefinition, StepError
from schema.language import document, json_schemas
from schema.language.catalogue import Catalogue
from schema.language.definition import Definition
from schema.language.json_numbers import as_declared
from schema.language.steps import CollaborationStep
from schema.language.templates import render
from schema.rules.validate import validate
from schema.temporal.memo import started_by
from schema.temporal.runs import ChildEnd, ChildFailure, ChildRun, Fork
from schema.temporal.signing import Signer
from schema.temporal.steps import StepEnd, StepRequest

MAX_INPUT_BYTES: Final = 256 * 1024
"""A sub-collaboration's input goes through Temporal's history."""
MAX_PLANNED_LEVELS: Final = 3
MAX_NAME: Final = 63
MAX_ID: Final = 900
"""Temporal refuses workflow ids of more than 1,000 bytes."""
MAX_SHOWN: Final = 20


class ChildrenActivity:
    def __init__(self, engine: AsyncEngine, admission: Admission, signer: Signer | None = None) -> None:
        """`signer`: what proves to the child's pin that the platform started it."""
        self._engine = engine
        self._admission = admission
        self._signer = signer

    @activity.defn(name="begin_child")
    async def begin_child(self, request: StepRequest) -> ChildRun:
        """Begin a step that runs a collaboration: which version, under which id, with which input."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            begun = await executions.resume(connection, request, worker_of(context.definition, context.step))
            if begun.done:
                return ChildRun(ended=StepEnd(request.step, begun.done.status))
            assert isinstance(context.step, CollaborationStep)
            given = render(context.step.input, context.scope)
            if context.step.ref is None:
                version = await _planned(
                    connection, context, request, self._admission.settings.max_definition_bytes
                )
            else:
                version = await _pinned(connection, context, context.step.ref)
            before = await children.begun_elsewhere(connection, begun.execution) if begun.goes_on else None
            full = _checked_input(request, version, given)
            # A retry finds the execution that the first try began and counted in this same transaction.
            if not begun.goes_on:
                await self._admission.child(connection, request.tenant)
                await children.count(
                    connection, context.run.id, self._admission.settings.max_sub_collaborations
                )
        same = before is not None and (before.version, before.input) == (version.id, full)
        child = ChildRun(
            workflow=f"{version.name}@{version.number}",
            workflow_id=child_id(context.run.temporal_workflow_id, request.path),
            input=given,
            fork=Fork(str(before.id), []) if before and same else None,
        )
        if self._signer is None:
            return child
        by = started_by(context.run.temporal_workflow_id)
        proof = self._signer.start(request.tenant, by, child.workflow_id, child.workflow, child.fork)
        return replace(child, proof=proof)

    @activity.defn(name="end_child")
    async def end_child(self, end: ChildEnd) -> StepEnd:
        """Take over the output of a completed sub-collaboration. Its cost stands with its own steps."""
        request = end.request
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            worker = worker_of(context.definition, context.step)
            begun = await executions.resume(connection, request, worker)
            if begun.done is None:
                child = await children.end_of(connection, request.tenant, UUID(end.first_run_id))
                outcome = AttemptOutcome(checked_output(child.output))
                await executions.complete(connection, request, worker, begun, outcome)
        return StepEnd(request.step, COMPLETED)

    @activity.defn(name="fail_child")
    async def fail_child(self, failed: ChildFailure) -> None:
        """Record that a sub-collaboration failed, was cancelled, or could not be begun."""
        request = failed.request
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            message = storable(failed.error_message)
            if await executions.failed_with(connection, request, failed.error_code, message):
                return  # by the same call, whose result was lost
            begun = await executions.resume(connection, request, worker_of(context.definition, context.step))
            if begun.done is None:
                await executions.fail(connection, request, begun, failed.error_code, message)


def child_id(parent: str, path: str) -> str:
    """The workflow id of a sub-collaboration. `~` needs no escape in an address and is in no id that the API
    takes, so that nobody can have it before."""
    id = f"{parent}~{path}"
    if len(id) <= MAX_ID:
        return id
    return f"{id[: MAX_ID - 33]}~{hashlib.sha256(id.encode()).hexdigest()[:32]}"


async def _pinned(connection: AsyncConnection, context: StepContext, ref: str) -> Version:
    """The version that the ref was bound to when the parent was uploaded."""
    run = context.run
    parent = await definitions.find(connection, run.tenant, run.name, run.version)
    name, _ = definitions.split_type(ref)
    return await definitions.startable(connection, run.tenant, name, parent.pins[ref])


async def _planned(
    connection: AsyncConnection, context: StepContext, request: StepRequest, max_bytes: int
) -> Version:
    """The definition that an earlier step wrote, checked like an upload and stored.

    Raises StepError("plan_invalid") with everything that is wrong with it.
    """
    assert isinstance(context.step, CollaborationStep)
    run = context.run
    if await children.planned_levels(connection, run.id) >= MAX_PLANNED_LEVELS:
        raise StepError(
            "plan_too_deep",
            f"found a plan within {MAX_PLANNED_LEVELS} plans at step {request.path!r}; expected at most "
            f"{MAX_PLANNED_LEVELS} within each other. Tell the planner to write the steps themselves.",
        )
    value = render(context.step.definition, context.scope)
    try:
        # Checking a long definition takes a second, and the loop has other steps' work to do.
        name = f"{run.name}-{request.step}"[:MAX_NAME]
        checked = await asyncio.to_thread(_read, value, name, context.catalogue)
        version, _ = await definitions.save(
            connection, run.tenant, checked, f"collaboration:{run.temporal_workflow_id}", planned_by=run.id
        )
        await definitions.check_room(connection, run.tenant, max_bytes)
    except InvalidDefinition as error:
        raise StepError("plan_invalid", _all_of(request, error)) from error
    return version


def _read(value: Json, name: str, catalogue: Catalogue) -> Definition:
    """The definition in a value or in text; it gets the given name whatever it calls itself."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    plan = document.load(text.encode("utf-8", "replace"))
    named = {**plan, "name": name} if isinstance(plan, dict) else plan
    return validate(named, name=name, catalogue=catalogue, planned=True).definition


def _all_of(request: StepRequest, error: InvalidDefinition) -> str:
    problems = error.problems
    shown = "; ".join(f"{one.pointer or '/'}: {one.message}" for one in problems[:MAX_SHOWN])
    more = f"; and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
    return f"the plan for step {request.path!r} cannot be run: {shown}{more}"


def _checked_input(request: StepRequest, version: Version, given: Json) -> Json:
    """The input with its defaults, as the sub-collaboration will keep it."""
    schema = compiled(version.sha256, version.source).definition.input
    full = as_declared(schema, storable(json_schemas.with_defaults(schema, given)))
    if shown := json_schemas.faults(schema, full):
        raise StepError(
            "input_invalid",
            f"step {request.path!r} gives what does not fit {version.name}@{version.number}: {shown}",
        )
    if (size := len(json.dumps(given).encode())) > MAX_INPUT_BYTES:
        raise StepError(
            "input_too_large",
            f"step {request.path!r} gives {version.name} an input of {size:,} bytes; expected at most "
            f"{MAX_INPUT_BYTES:,}, since it goes through Temporal's history. Pass a reference instead.",
        )
    return full
