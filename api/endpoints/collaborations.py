"""Start, list, read and cancel collaborations."""

import base64
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from opentelemetry import trace

from api import cursors, runs
from api.bodies import body_of, read_json
from api.models import (
    Accepted,
    CollaborationDetail,
    CollaborationPage,
    EventFact,
    EventPage,
    SpanFact,
    StartRequest,
    StepOutput,
    Trace,
)
from api.problems import BadRequest, errors
from api.state import Actor, Connection, State, StateOf, Tenant
from db import collaborations, definitions, executions, outbox, spans
from db.telemetry import context_of, current_traceparent
from schema import json_schemas
from schema.compile import compiled
from schema.errors import NotFound, Problem, Refused
from schema.steps import NAME, STEP_ID

router = APIRouter(prefix="/collaborations", tags=["collaborations"])

Id = Annotated[str, Path(pattern=r"^[^\x00-\x1f]{1,1000}$", examples=["code-review-k3p7q2xa"])]
Status = Literal["running", "completed", "failed"]

_tracer = trace.get_tracer("facilitair.api")


@router.post("", status_code=202, openapi_extra=body_of(StartRequest), responses=errors(404, 409, 413, 415))
async def start(
    request: Request, response: Response, state: StateOf, tenant: Tenant, actor: Actor
) -> Accepted:
    """Start a collaboration. What cannot run is refused here, before anything has begun."""
    wanted = await read_json(request, state, StartRequest)
    await _check(state, tenant, wanted)
    name = wanted.definition.partition("@")[0]
    id = wanted.id or f"{name}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"
    with _tracer.start_as_current_span(
        "POST /v1/collaborations",
        context_of(request.headers.get("traceparent")),
        trace.SpanKind.SERVER,
        {"http.request.method": "POST", "http.route": "/v1/collaborations"},
    ):
        await state.temporal.start(
            wanted.definition, wanted.input, id=id, tenant=tenant, actor=actor,
            traceparent=current_traceparent(),
        )  # fmt: skip
    links = _links(id)
    response.headers["Location"] = links["self"]
    return Accepted(id=id, links=links)


async def _check(state: State, tenant: str, wanted: StartRequest) -> None:
    """Raises unless the definition exists and the input fits it."""
    name, _, number = wanted.definition.partition("@")
    async with state.transaction() as connection:
        version = await definitions.find(connection, tenant, name, int(number) if number else None)
    definition, _ = compiled(version.sha256, version.source)
    wrong = json_schemas.violations(definition.input, wanted.input)
    if wrong:
        fix = f"See the `input` of `GET /v1/definitions/{name}`."
        problems = [
            Problem("input_invalid", f"/input{pointer}", message, "input that fits the schema", fix)
            for pointer, message in wrong
        ]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadRequest(
            "input_invalid", f"the input of {name!r} at {wrong[0][0] or '/'}: {wrong[0][1]}{more}", problems
        )


def _links(id: str) -> dict[str, str]:
    own = f"/v1/collaborations/{id}"
    return {"self": own, **{part: f"{own}/{part}" for part in ("cancel", "trace", "events")}}


@router.get("", responses=errors())
async def list_collaborations(
    connection: Connection,
    tenant: Tenant,
    status: Status | None = None,
    name: Annotated[str | None, Query(pattern=NAME)] = None,
    after: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CollaborationPage:
    """Runs, newest first."""
    found = await collaborations.recent(
        connection, tenant, before=cursors.moment_and_id(after) if after else None, limit=limit + 1,
        status=status, name=name,
    )  # fmt: skip
    page = found[:limit]
    more = cursors.encode(page[-1].started_at.isoformat(), page[-1].uuid) if len(found) > limit else None
    return CollaborationPage(items=[runs.summary(one) for one in page], next=more)


@router.get("/{id}", responses=errors(404), response_model_exclude_unset=True)
async def read(
    id: Id,
    state: StateOf,
    tenant: Tenant,
    include: Annotated[
        str, Query(pattern=r"^((input|output)(,(input|output))?)?$", description="input,output")
    ] = "",
) -> CollaborationDetail:
    """One run with every attempt at its steps."""
    try:
        async with state.transaction() as connection:
            found = await collaborations.find(connection, tenant, id)
            attempts = await executions.of_collaboration(connection, found.uuid)
            contents: dict[str, Any] = {}
            if include:
                values = await collaborations.input_and_output(connection, found.uuid)
                contents = dict(zip(("input", "output"), values, strict=True))
    except NotFound:
        return await runs.not_in_postgres(state.temporal, tenant, id)
    detail = CollaborationDetail(
        **runs.summary(found).model_dump(),
        steps=[runs.attempt(row) for row in attempts],
        **{key: value for key, value in contents.items() if key in include.split(",")},
    )
    return await runs.checked_with_temporal(state.temporal, tenant, detail)


@router.get("/{id}/steps/{step}", responses=errors(404))
async def step_output(
    id: Id, step: Annotated[str, Path(pattern=STEP_ID)], connection: Connection, tenant: Tenant
) -> StepOutput:
    """What a completed step came to."""
    found = await collaborations.find(connection, tenant, id)
    done = (await executions.outputs(connection, found.uuid, [step])).get(step)
    if done is None:
        raise NotFound(
            "step_output_unknown",
            f"found no output of step {step!r} in {id!r}; expected a step that has completed. "
            f"`GET /v1/collaborations/{id}` lists them.",
        )
    return StepOutput(step=step, **done)


@router.post("/{id}/cancel", status_code=202, responses=errors(404, 409))
async def cancel(id: Id, state: StateOf, tenant: Tenant) -> Accepted:
    """Ask a run to stop. Steps under way are cancelled, and the run ends as failed (cancelled)."""
    now = await read(id, state, tenant)
    if now.status != "running":
        raise Refused(
            "collaboration_ended",
            f"found {id!r} {now.sub_state or now.status}; expected one that is still running.",
        )
    await state.temporal.cancel(now.id, now.run_id)
    return Accepted(id=now.id, status="cancelling", links=_links(now.id))


@router.get("/{id}/trace", responses=errors(404))
async def trace_of(id: Id, connection: Connection, tenant: Tenant) -> Trace:
    """The spans of a run, while no OTLP endpoint is set; with one they are kept there."""
    found = await collaborations.find(connection, tenant, id)
    trace_id = runs.trace_id(found)
    kept = await spans.of_trace(connection, trace_id)
    return Trace(
        trace_id=trace_id,
        spans=[
            SpanFact(**vars(span), seconds=round((span.ended_at - span.started_at).total_seconds(), 6))
            for span in kept
        ],
    )


@router.get("/{id}/events", responses=errors(404))
async def events(
    id: Id,
    connection: Connection,
    tenant: Tenant,
    after: Annotated[
        str | None, Query(max_length=200, description="The `next` of an earlier answer.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> EventPage:
    """What happened to a run, oldest first, in an order that never gains a past."""
    found = await collaborations.find(connection, tenant, id)
    position = outbox.Position(*cursors.two_numbers(after)) if after else outbox.Position()
    logged = await outbox.of_aggregate(connection, tenant, "collaboration", str(found.uuid), position, limit)
    items = [
        EventFact(
            cursor=cursors.encode(one.position.xid, one.position.seq), id=one.id, type=one.type,
            payload=one.payload, created_at=one.created_at,
        )
        for one in logged
    ]  # fmt: skip
    return EventPage(
        items=items, next=items[-1].cursor if items else cursors.encode(position.xid, position.seq)
    )
