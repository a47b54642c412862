"""Runs as they happen, over server-sent events."""

import asyncio
import time
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from api.dialects.agui import AGUI
from api.dialects.frames import POSITION, POSITION_OF_RUN, Cursor, parse
from api.dialects.seed import SEED, started
from api.dialects.vercel import VERCEL
from api.http.event_stream import EventStream
from api.http.problems import errors
from api.http.shared_models import START_ID
from api.live import subscription
from api.live.subscription import Subscription, follow
from api.runs import idempotency, start_and_watch
from api.runs.routes import Id
from api.state import Actor, ApiState, StateOf, Tenant
from db.runs import collaborations
from schema.errors import NotFound, Refused
from schema.language.steps import REF
from schema.live import MAX_PLACE_CHARS

router = APIRouter(tags=["streams"])
seed_router = APIRouter(tags=["streams"])

_DIALECTS: Final = {"agui": AGUI, "vercel": VERCEL, "seed": SEED}
_EVENT: Final = {
    "type": "object",
    "description": "Each event.",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
}
STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {"text/event-stream": {"schema": _EVENT}},
        "description": "Events, until the run has ended.",
    },
    204: {"description": "All was told before: an EventSource that comes back stays away."},
}

_ACCEPTED_SECONDS: Final = 10.0
"""Longest time from a run's start until Postgres knows it, if only its number is known."""
_LOOK_SECONDS: Final = 0.1

_WHERE: Final = "Where to go on: the last `id` that came."
LastEventId = Annotated[
    str,
    Header(max_length=MAX_PLACE_CHARS, description=_WHERE, json_schema_extra={"pattern": f"{POSITION}|^$"}),
]
LastEventIdOfRun = Annotated[
    str,
    Header(
        max_length=MAX_PLACE_CHARS, description=_WHERE, json_schema_extra={"pattern": f"{POSITION_OF_RUN}|^$"}
    ),
]


_ADDRESS: Final = "/collaborations/{id}/stream"
_ANY_BODY: Final[dict[str, Any]] = {"requestBody": {"content": {"application/json": {"schema": {}}}}}
_READ: Final[dict[str, Any]] = {
    "status_code": 200,
    "response_class": EventStream,
    "responses": {**STREAM, **errors(404)},
}


# AG-UI's HttpAgent posts its `RunAgentInput`; a run that has begun takes nothing from it, so it is not read.
@router.post(_ADDRESS, name="stream_for_agent", openapi_extra=_ANY_BODY, **_READ)
@router.get(_ADDRESS, **_READ)
async def stream(
    id: Id,
    state: StateOf,
    tenant: Tenant,
    dialect: Literal["agui", "vercel", "seed"] = "agui",
    starting_after: Annotated[
        str,
        Query(
            max_length=MAX_PLACE_CHARS,
            description="An `id` of this stream: only what came after it, for one who was told nothing yet.",
            json_schema_extra={"pattern": f"{POSITION}|^$"},
        ),
    ] = "",
    last_event_id: LastEventId = "",
    playback: Annotated[
        float | None,
        Query(
            ge=0, le=1_000, description="From its beginning, at 1: its own speed, 10: ten times, 0: at once."
        ),
    ] = None,
) -> Response:
    """A run from its beginning until it has ended: in AG-UI events, as a UI message stream of Vercel's AI
    SDK, or plainly what agents say. Who leaves stops nothing; who comes back goes on where they were."""
    run = await subscription.find(state, tenant, id)
    cursor = parse(last_event_id or starting_after)
    subscription.checked(cursor, run, played=playback is not None)
    if cursor.ended:
        return Response(status_code=204)
    followed = Subscription(tenant, id, run, playback)
    found = _DIALECTS[dialect]
    source = follow(state, followed, found, cursor, join=not last_event_id)
    return EventStream(source, headers=found.headers)


@seed_router.get(
    "/stream/collaborate",
    status_code=200,
    response_class=EventStream,
    responses={**STREAM, **errors(404, 409)},
)
async def stream_collaborate(
    request: Request,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
    task: Annotated[str, Query(max_length=100_000, description="What is to be done: the input's `task`.")],
    definition: Annotated[
        str,
        Query(
            pattern=rf"{REF}|^$",
            description="`name`, `name@2` or `name@alias`. Without one a team of four works on the task.",
        ),
    ] = "",
    id: Annotated[
        str | None, Query(pattern=START_ID, description="The run's id: asked again, it is the same run.")
    ] = None,
    idempotency_key: idempotency.Key = None,
    last_event_id: LastEventIdOfRun = "",
) -> Response:
    """Start a collaboration on a task and watch what its agents say. A client that comes back with
    `Last-Event-ID`, as every EventSource does, goes on in the same run, and never starts a second one. An
    EventSource of the API's own origin may ask, and any program; another page, an image or an opened
    address may not."""
    if last_event_id:
        return await _resumed(state, tenant, last_event_id)
    # Whatever else is asked with is for the input too: a definition may want more than a task.
    extra = {
        key: value for key, value in request.query_params.items() if key not in ("task", "definition", "id")
    }
    begun = await start_and_watch.begin(
        request,
        state,
        tenant,
        actor,
        definition,
        {"task": task, **extra},
        id=id,
        key=idempotency_key,
        route="/stream/collaborate",
    )
    first = SEED.write(f"{begun.run}:", started(begun.id, str(begun.run), begun.warnings))
    followed = Subscription(tenant, begun.id, begun.run)
    return EventStream(follow(state, followed, SEED, Cursor()), first=first)


async def _resumed(state: ApiState, tenant: str, last_event_id: str) -> Response:
    cursor = parse(last_event_id)
    if cursor.run is None:
        raise Refused(
            "stream_place_invalid",
            f"found the Last-Event-ID {last_event_id[:60]!r}; expected one with its run, as it was sent.",
        )
    run = await _known(state, tenant, cursor.run)
    subscription.checked(cursor, run)
    if cursor.ended:
        return Response(status_code=204)
    return EventStream(follow(state, Subscription(tenant, str(run), run), SEED, cursor))


async def _known(state: ApiState, tenant: str, run: UUID) -> UUID:
    """The run, which may have been accepted a moment ago; raises NotFound."""
    until = time.monotonic() + _ACCEPTED_SECONDS
    while True:
        async with state.transaction() as connection:
            if found := await collaborations.uuid_of(connection, tenant, str(run)):
                return found
        if time.monotonic() > until:
            raise NotFound(
                "collaboration_unknown", f"found no collaboration {run}; expected one that still is stored."
            )
        await asyncio.sleep(_LOOK_SECONDS)
