"""Go on from a run: from chosen steps, or from where it failed."""

import json
import shlex
from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.runs import idempotency, starts
from api.runs.fork_models import Forked, ForkRequest, RerunRequest
from api.runs.routes import Id
from api.state import Actor, ApiState, StateOf, Tenant
from db.definitions import definitions
from db.runs import collaborations, forks
from plan.compile import compiled
from schema.errors import Refused
from schema.language import json_schemas
from schema.temporal.runs import Fork

router = APIRouter(prefix="/collaborations", tags=["collaborations"])

MAX_OUTPUTS_BYTES: Final = 256 * 1024
"""They go through Temporal, beside the input."""


@router.post(
    "/{id}/fork", status_code=202, openapi_extra=body_of(ForkRequest), responses=errors(404, 409, 413, 415)
)
async def fork(
    id: Id, request: Request, response: Response, state: StateOf, tenant: Tenant, actor: Actor
) -> Forked:
    """Start a run that keeps what this one has finished, apart from some steps and all that depends on them.

    Kept results cost nothing. The run itself may be finished, failed or still running.
    """
    wanted = await read_json(request, state, ForkRequest)
    if (size := len(json.dumps(wanted.outputs).encode())) > MAX_OUTPUTS_BYTES:
        raise Refused(
            "fork_outputs_too_large",
            f"found outputs of {size:,} bytes; expected at most {MAX_OUTPUTS_BYTES:,} together. "
            "Pass large texts by reference.",
        )
    source = await _source(state, tenant, id)
    given = wanted.input if "input" in wanted.model_fields_set else source.input
    how = Fork(str(source.id), wanted.from_steps, wanted.outputs)
    definition = _name(source, wanted.definition)
    forked = await _begin(
        request,
        state,
        source,
        definition,
        given,
        how,
        route="/v1/collaborations/{id}/fork",
        id=wanted.id,
        tenant=tenant,
        actor=actor,
    )
    response.headers["Location"] = forked.links["self"]
    return forked


@router.post(
    "/{id}/rerun", status_code=202, openapi_extra=body_of(RerunRequest), responses=errors(404, 409, 413, 415)
)
async def rerun(
    id: Id, request: Request, response: Response, state: StateOf, tenant: Tenant, actor: Actor
) -> Forked:
    """Start a run that goes on where this one failed. What it had finished is kept and costs nothing."""
    wanted = await read_json(request, state, RerunRequest)
    source = await _source(state, tenant, id)
    if source.status != "failed":
        raise Refused(
            "collaboration_not_failed",
            f"found {id!r} {source.status}; expected one that failed or was cancelled. "
            f"To run some steps of it again: `facilitair fork {shlex.quote(id)} --from STEP`.",
        )
    forked = await _begin(
        request,
        state,
        source,
        _name(source, wanted.definition),
        source.input,
        Fork(str(source.id), []),
        route="/v1/collaborations/{id}/rerun",
        id=wanted.id,
        tenant=tenant,
        actor=actor,
    )
    response.headers["Location"] = forked.links["self"]
    return forked


async def _source(state: ApiState, tenant: str, id: str) -> forks.Source:
    async with state.transaction() as connection:
        found = await collaborations.find(connection, tenant, id)
        return await forks.source(connection, tenant, found.uuid)


def _name(source: forks.Source, wanted: str | int | None) -> str:
    if isinstance(wanted, str):
        return wanted
    return f"{source.name}@{wanted or source.version}"


async def _begin(
    request: Request,
    state: ApiState,
    source: forks.Source,
    definition: str,
    given: Any,
    how: Fork,
    *,
    route: str,
    id: str | None,
    tenant: str,
    actor: str,
) -> Forked:
    """Start the run, unless the same request with its id has started it before; what cannot go on is refused
    here, before anything has begun."""
    asked = {"definition": definition, "input": given, "fork": asdict(how)}
    wanted = await idempotency.identify(state, tenant, definition, asked, id=id)
    begun = await idempotency.find(state, tenant, wanted) is not None
    warnings = await starts.check(state, tenant, definition, given)
    async with state.transaction() as connection:
        version = await definitions.find(connection, tenant, *definitions.split_type(definition))
        found = compiled(version.sha256, version.source)
        full = json_schemas.with_defaults(found.definition.input, given)
        parts = await forks.division(connection, source, found, full, how)
    # By its number: what an alias means may change before the run is pinned.
    pinned = f"{version.name}@{version.number}"
    if not begun:
        _, begun = await idempotency.start(
            request, state, wanted, pinned, given, route=route, tenant=tenant, actor=actor, fork=how
        )
    answer = starts.accepted(wanted.id, "repeated" if begun else "running")
    return Forked(
        id=answer.id,
        status=answer.status,
        links=answer.links,
        warnings=warnings,
        definition=pinned,
        kept=parts.kept,
        resumed=parts.resumed,
        again=parts.again,
    )
