"""Runs as chat clients start and watch them, at the addresses and in the words of their own documentation."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from api.dialects.agui import AGUI
from api.dialects.frames import Cursor, Dialect
from api.dialects.vercel import VERCEL
from api.http.bodies import body_of, read_json
from api.http.event_stream import EventStream
from api.http.problems import errors
from api.live.chat_models import CHAT_ID, AgentRunRequest, ChatRequest, input_of
from api.live.streams import STREAM
from api.live.subscription import Subscription, follow
from api.runs import start_and_watch
from api.state import Actor, ApiState, StateOf, Tenant
from db.runs import collaborations
from schema.errors import Refused
from schema.language.steps import REF

router = APIRouter(tags=["streams"])

MAX_TURNS: Final = 1_000
Definition = Annotated[str, Path(pattern=REF, examples=["code-review"])]
_STARTED: Final = errors(404, 409, 413, 415)


@router.post(
    "/chat/{definition}",
    status_code=200,
    response_class=EventStream,
    openapi_extra=body_of(ChatRequest),
    responses={200: STREAM[200], **_STARTED},
)
async def chat(
    definition: Definition, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> Response:
    """Start a run on the last message of a chat and answer with its UI message stream: what `sendMessage` of
    Vercel's AI SDK asks for. Every message of a chat starts a run of its own."""
    asked = await read_json(request, state, ChatRequest)
    input = input_of(asked.messages, asked.input)
    turns = await _turns(state, tenant, asked.id)
    if len(turns) >= MAX_TURNS:
        raise Refused(
            "request_invalid", f"found a chat of {MAX_TURNS:,} messages; expected that another is begun."
        )
    run_id = _turn(asked.id, len(turns))
    begun = await start_and_watch.begin(
        request, state, tenant, actor, definition, input, id=run_id, route="/v1/chat/{definition}"
    )
    return _stream(state, Subscription(tenant, begun.id, begun.run), VERCEL)


@router.get(
    "/chat/{definition}/{id}/stream",
    status_code=200,
    response_class=EventStream,
    responses={**STREAM, **errors()},
)
async def resume_chat(
    definition: Definition, id: Annotated[str, Path(pattern=CHAT_ID)], state: StateOf, tenant: Tenant
) -> Response:
    """The run that a chat waits for, from its beginning: what `resumeStream` of Vercel's AI SDK asks for. 204
    where none is under way."""
    turns = await _turns(state, tenant, id)
    if not turns or turns[-1].status != "running":
        return Response(status_code=204)
    return _stream(state, Subscription(tenant, turns[-1].id, turns[-1].uuid), VERCEL)


@router.post(
    "/agui/{definition}",
    status_code=200,
    response_class=EventStream,
    openapi_extra=body_of(AgentRunRequest),
    responses={200: STREAM[200], **_STARTED},
)
async def run_agent(
    definition: Definition, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> Response:
    """Start a run on the last message of a user and answer with its AG-UI events: what `runAgent` of AG-UI's
    `HttpAgent` asks for."""
    asked = await read_json(request, state, AgentRunRequest)
    input = input_of(asked.messages, asked.forwarded_props.input if asked.forwarded_props else {})
    begun = await start_and_watch.begin(
        request,
        state,
        tenant,
        actor,
        definition,
        input,
        id=f"agui-{asked.run_id}",
        route="/v1/agui/{definition}",
    )
    return _stream(state, Subscription(tenant, begun.id, begun.run), AGUI)


def _turn(chat: str, number: int) -> str:
    """Return the id of the run that a chat's message starts, counted from 0."""
    return f"chat-{chat}.{number + 1}"


async def _turns(state: ApiState, tenant: str, chat: str) -> list[collaborations.ChatRun]:
    ids = [_turn(chat, number) for number in range(MAX_TURNS)]
    async with state.transaction() as connection:
        return await collaborations.turns(connection, tenant, ids)


def _stream(state: ApiState, followed: Subscription, dialect: Dialect) -> EventStream:
    return EventStream(follow(state, followed, dialect, Cursor()), headers=dialect.headers)
