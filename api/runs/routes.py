"""Start, list, read and cancel collaborations."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator

from api.http import cursors, run_paths
from api.http.audited_acts import audited
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.http.shapes import Moment
from api.http.shared_models import (
    Accepted,
    CollaborationDetail,
    CollaborationPage,
    EventFact,
    EventPage,
    MemoryHit,
    Routing,
    SpanFact,
    StartRequest,
    StepDetails,
    StepOutput,
    Trace,
)
from api.runs import idempotency, service, starts
from api.state import Actor, Connection, StateOf, Tenant
from db import outbox, spans
from db.runs import children, collaborations, executions, lineage, steps
from db.runs.collaborations import RunFilter
from schema.errors import NotFound, Refused
from schema.language.steps import NAME, STEP_PATH

router = APIRouter(prefix="/collaborations", tags=["collaborations"])

Id = Annotated[
    str,
    AfterValidator(run_paths.whole),
    Path(pattern=r"^[^\x00-\x1f]{1,1000}$", examples=["code-review-k3p7q2xa"]),
]
Status = Literal["running", "completed", "failed"]
Limit = Annotated[int, Query(ge=1, le=1_000)]
MAX_PAGE: Final = 1_000
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bound on spans per page, whose attributes may hold prompts and answers."""


@router.post("", status_code=202, openapi_extra=body_of(StartRequest), responses=errors(404, 409, 413, 415))
async def start(
    request: Request,
    response: Response,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
    idempotency_key: idempotency.Key = None,
) -> Accepted:
    """Start a collaboration. What cannot run is refused here, before anything has begun.

    The same request again, with its `id` or its `Idempotency-Key`, starts nothing, also after the run has
    ended; `status` then is `repeated`. Another request with that id is refused with 409, with that key 422.
    """
    wanted = await read_json(request, state, StartRequest)
    begun = await idempotency.begin(
        request,
        state,
        tenant,
        actor,
        wanted.definition,
        wanted.input,
        id=wanted.id,
        key=idempotency_key,
        route="/v1/collaborations",
    )
    answer = starts.accepted(begun.id, "repeated" if begun.found else "running")
    response.headers["Location"] = answer.links["self"]
    return answer.model_copy(update={"warnings": begun.warnings})


@router.get("", responses=errors())
async def list_collaborations(
    connection: Connection,
    tenant: Tenant,
    status: Status | None = None,
    name: Annotated[str | None, Query(pattern=NAME)] = None,
    q: Annotated[
        str | None,
        Query(max_length=200, pattern=r"^[^\x00]*$", description="Words of the id, the name or the task."),
    ] = None,
    since: Annotated[Moment | None, Query(description="Started then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Started before. Without a zone UTC is meant.")] = None,
    least_usd: Annotated[
        Decimal | None, Query(ge=0, le=1_000_000, description="Cost at least so many dollars.")
    ] = None,
    simulated: Annotated[
        bool | None, Query(description="Only those that the simulator answered, or only the others.")
    ] = None,
    after: Annotated[str | None, cursors.query(cursors.MOMENT_AND_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CollaborationPage:
    """Runs, newest first."""
    wanted = RunFilter(
        status=status,
        name=name,
        words=q,
        since=_in_utc(since),
        until=_in_utc(until),
        least_usd=least_usd,
        simulated=simulated,
    )
    place = cursors.moment_and_id(after) if after else None
    found = await collaborations.recent(connection, tenant, wanted, before=place, limit=limit + 1)
    page = found[:limit]
    more = cursors.encode_moment(page[-1].started_at, page[-1].uuid) if len(found) > limit else None
    return CollaborationPage(items=[service.summary(one) for one in page], next=more)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


@router.get("/{id}", responses=errors(404), response_model_exclude_unset=True)
async def read(
    id: Id,
    state: StateOf,
    tenant: Tenant,
    include: Annotated[
        str,
        Query(
            pattern=r"^((input|output|lineage)(,(input|output|lineage)){0,2})?$",
            description="input,output,lineage",
        ),
    ] = "",
    after: Annotated[str | None, cursors.query(cursors.MOMENT_AND_ID)] = None,
    limit: Limit = MAX_PAGE,
) -> CollaborationDetail:
    """One run with the attempts at its steps: those of ordinary runs all at once, of larger ones by pages."""
    place = cursors.moment_and_id(after) if after else None
    try:
        async with state.transaction() as connection:
            found = await collaborations.find(connection, tenant, id)
            attempts = await executions.page(connection, found.uuid, after=place, limit=limit + 1)
            contents: dict[str, Any] = {"sub_collaborations": await children.counted(connection, found.uuid)}
            if "lineage" in include:
                contents["lineage"] = service.lineage(await lineage.of(connection, tenant, found.uuid))
            if "input" in include or "output" in include:
                input, output = await collaborations.input_and_output(connection, found.uuid)
                contents |= {"input": input} if "input" in include else {}
                contents |= {"output": output} if "output" in include else {}
    except NotFound:
        return await service.not_in_postgres(state.temporal, tenant, id)
    page = attempts[:limit]
    detail = CollaborationDetail(
        **service.summary(found).model_dump(),
        steps=[service.attempt(row) for row in page],
        next=cursors.encode_moment(page[-1].started_at, page[-1].id) if len(attempts) > limit else None,
        **contents,
    )
    return await service.checked_with_temporal(state.temporal, tenant, detail)


@router.get("/{id}/steps/{step}", responses=errors(404))
async def step_output(
    id: Id,
    step: Annotated[str, Path(pattern=STEP_PATH, examples=["review", "per_file[17].review"])],
    connection: Connection,
    tenant: Tenant,
) -> StepOutput:
    """Return the output of a completed step."""
    found = await collaborations.find(connection, tenant, id)
    done = (await executions.known(connection, found.uuid, [step])).get(step)
    if done is None or done.status != "completed":
        raise NotFound(
            "step_output_unknown",
            f"found no output of step {step!r} in {id!r}; expected a step that has completed. "
            f"`GET /v1/collaborations/{id}` lists them.",
        )
    return StepOutput(step=step, output=done.output, status=done.status, model=done.model)


@router.get("/{id}/steps/{step}/details", responses=errors(404))
async def step_details(
    id: Id,
    step: Annotated[str, Path(pattern=STEP_PATH, examples=["review", "per_file[17].review"])],
    connection: Connection,
    tenant: Tenant,
) -> StepDetails:
    """Return everything recorded about one step: attempts, output, recalled work and routing."""
    found = await collaborations.find(connection, tenant, id)
    known = await steps.known(connection, found.uuid, step)
    if not known.attempts:
        raise NotFound("step_not_begun", f"found no attempt at step {step!r} in {id!r}; it may yet begin.")
    completed = next((row for row in known.attempts if row.status == "completed"), None)
    recall, routing = known.recall, known.routing
    return StepDetails(
        step=step,
        attempts=[service.attempt(row) for row in known.attempts],
        output=completed.output if completed is not None else None,
        memory=[MemoryHit(**hit) for hit in recall.hits] if recall is not None else [],
        memory_source=recall.source if recall is not None else None,
        routing=None
        if routing is None
        else Routing(
            policy=routing.policy,
            model=routing.chosen_model,
            propensity=routing.propensity,
            candidates=routing.candidates,
            fallback=routing.fallback,
        ),
    )


@router.post("/{id}/cancel", status_code=202, responses=errors(404, 409))
async def cancel(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """Ask a run to stop. Steps under way are cancelled, and the run ends as failed (cancelled)."""
    now = await read(id, state, tenant)
    if now.status != "running":
        raise Refused(
            "collaboration_ended",
            f"found {id!r} {now.sub_state or now.status}; expected one that is still running.",
        )
    async with audited(state, tenant, actor, "run.cancel", now.id):
        await state.temporal.cancel(now.id, now.run_id)
    return starts.accepted(now.id, "cancelling")


@router.get("/{id}/trace", responses=errors(404))
async def trace_of(
    id: Id,
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str | None, cursors.query(cursors.MOMENT_AND_SPAN)] = None,
    limit: Limit = MAX_PAGE,
) -> Trace:
    """The spans of a run and of its sub-collaborations; where an OTLP endpoint is set, it is sent them too. A
    trace of the caller's is linked."""
    place = cursors.moment_and_span(after) if after else None
    found = await collaborations.find(connection, tenant, id)
    trace_id = service.trace_id(found)
    kept, more = await spans.of_run(
        connection, tenant, found.uuid, trace_id, after=place, limit=limit, max_bytes=MAX_PAGE_BYTES
    )
    return Trace(
        next=cursors.encode_moment(kept[-1].started_at, kept[-1].span_id) if more else None,
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
    after: Annotated[str | None, cursors.query(cursors.TWO_NUMBERS)] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> EventPage:
    """Return a run's events, oldest first, in an order in which nothing appears later before an event already
    read."""
    found = await collaborations.find(connection, tenant, id)
    position = outbox.Position(*cursors.two_numbers(after)) if after else outbox.Position()
    logged = await outbox.of_aggregate(connection, tenant, "collaboration", str(found.uuid), position, limit)
    items = [
        EventFact(
            cursor=cursors.encode(one.position.xid, one.position.seq),
            id=one.id,
            type=one.type,
            payload=one.payload,
            created_at=one.created_at,
        )
        for one in logged
    ]
    return EventPage(
        items=items, next=items[-1].cursor if items else cursors.encode(position.xid, position.seq)
    )
