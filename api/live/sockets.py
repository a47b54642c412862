"""A run over a WebSocket: its events in one direction, steering in the other."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final, assert_never

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.dialects import frames
from api.dialects.frames import Cursor
from api.dialects.socket import SOCKET
from api.http.auth import SUBPROTOCOL
from api.http.bodies import MAX_JSON_BYTES
from api.http.problems import BadRequest, from_database
from api.live import socket_messages, subscription
from api.live.socket_messages import Ack, Adjust, Decide, Feedback, Message, Pause, Start, Stop, Watch
from api.live.subscription import Subscription, follow
from api.people import routes as people_routes
from api.runs import routes, start_and_watch
from api.runs.steering_service import steer_run
from api.state import Actor, ApiState, StateOf, Tenant
from db.runs import people
from schema.bugs import bug
from schema.errors import FacilitairError, Refused
from schema.language.steps import REF
from schema.rules.people import unnamed
from schema.temporal.runs import Steer

router = APIRouter(tags=["streams"])

_GOING_AWAY: Final = 1001
_POLICY_VIOLATION: Final = 1008

_log = logging.getLogger("facilitair.api")


@router.websocket("/ws/collaborate")
async def collaborate_by_socket(
    socket: WebSocket,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
    definition: Annotated[str, Query(pattern=rf"{REF}|^$")] = "",
) -> None:
    """The first message is a task in plain words, or says `start` or `watch`; the others are for its run."""
    offered = socket.scope.get("subprotocols") or []
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    session = _Session(socket, state, tenant, actor, definition)
    with suppress(WebSocketDisconnect):  # the run goes on without a watcher
        await session.serve()


class _Session:
    def __init__(self, socket: WebSocket, state: ApiState, tenant: str, actor: str, definition: str) -> None:
        self._socket, self._state = socket, state
        self._tenant, self._actor, self._definition = tenant, actor, definition
        self._obeying = asyncio.Lock()

    async def serve(self) -> None:
        try:
            followed, cursor = await self._begin()
        except TimeoutError:
            await self._say(_error(self._late()))
            await self._socket.close(_POLICY_VIOLATION)
            return
        watching = asyncio.create_task(self._watch(followed, cursor))
        listening = asyncio.create_task(self._listen(followed.id))
        both = (watching, listening)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            async with self._obeying:  # the answer to what ended the run still goes out
                pass
        finally:
            for task in both:
                task.cancel()
            found = await asyncio.gather(*both, return_exceptions=True)
        for one in found:
            if isinstance(one, Exception):
                raise one
        await self._socket.close()

    async def _begin(self) -> tuple[Subscription, Cursor]:
        """Read the subscription, asking again until it is valid.

        Raises TimeoutError if the client is too slow: a silent client must not hold its place for ever.
        """
        until = asyncio.get_running_loop().time() + self._state.settings.first_message_seconds
        while True:
            async with asyncio.timeout_at(until):
                text = await self._receive()
            try:
                return await self._begun(text)
            except Exception as error:
                await self._say(_error(error))

    def _late(self) -> Refused:
        return Refused(
            "first_message_late",
            f"found no message that begins anything within {self._state.settings.first_message_seconds:g} s; "
            'expected a task in plain words, {"type": "start", …} or {"type": "watch", …}.',
        )

    async def _begun(self, text: str) -> tuple[Subscription, Cursor]:
        _check_size(text)
        message = await self._parse(text, socket_messages.parse_first)
        if isinstance(message, Watch):
            run = await subscription.find(self._state, self._tenant, message.id)
            cursor = subscription.checked(frames.parse(message.starting_after), run)
            await self._say({"type": "started", "id": message.id, "run_id": str(run), "found": True})
            return Subscription(self._tenant, message.id, run), cursor
        if not isinstance(message, Start):
            raise BadRequest(
                "request_invalid",
                f"found {message.type!r} before there is a run; expected a task in plain words, "
                '{"type": "start", …} or {"type": "watch", …}.',
            )
        begun = await start_and_watch.begin(
            self._socket,
            self._state,
            self._tenant,
            self._actor,
            message.definition or self._definition,
            message.input,
            id=message.id,
            route="/ws/collaborate",
        )
        await self._say(
            {
                "type": "started",
                "id": begun.id,
                "run_id": str(begun.run),
                "found": begun.found,
                "warnings": begun.warnings,
            }
        )
        return Subscription(self._tenant, begun.id, begun.run), Cursor()

    async def _watch(self, followed: Subscription, cursor: Cursor) -> None:
        async with aclosing(follow(self._state, followed, SOCKET, cursor)) as told:
            async for some in told:
                # By this one character: text holds others that some take for a line's end.
                for message in some.decode().split("\n")[:-1]:
                    await self._socket.send_text(message)

    async def _listen(self, id: str) -> None:
        while True:
            text = await self._receive()
            async with self._obeying:
                try:
                    message = await self._parse(text, socket_messages.parse)
                    await self._obey(id, message)
                except Exception as error:
                    await self._say(_error(error))
                else:
                    await self._say({"type": "ack", "of": message.type, "ok": True})

    async def _obey(self, id: str, message: Message) -> None:
        match message:
            case Start() | Watch():
                raise BadRequest(
                    "request_invalid",
                    f"found {message.type!r} on a socket that has its run; expected it on another one.",
                )
            case Pause():
                await self._steer(id, message.type, Steer(message.actor or ""))
            case Feedback():
                told = Steer(message.actor or "", message.feedback, message.step or "", message.agent)
                await self._steer(id, message.type, told)
            case Adjust():
                changes = message.changes.model_dump(exclude_unset=True)
                steer = Steer(message.actor or "", agent=message.agent, changes=changes)
                await self._steer(id, message.type, steer)
            case Stop():
                await routes.cancel(id, self._state, self._tenant, self._actor)
            case Decide():
                await self._decide(id, message)
            case Ack():
                pass
            case _:
                assert_never(message)

    async def _steer(self, id: str, action: Any, steer: Steer) -> None:
        await steer_run(self._state, self._tenant, self._actor, id, action, steer)

    async def _decide(self, id: str, message: Decide) -> None:
        if message.type == "decide" and not message.action:
            raise BadRequest("request_invalid", "found `decide` without an `action`; expected which one.")
        task = message.task_id
        if task is None:
            async with self._state.transaction() as connection:
                found = await people.page(connection, self._tenant, status=people.OPEN, collaboration=id)
            asked = [one for one in found if message.path in (None, one.path)]
            if len(asked) != 1:
                paths = ", ".join(one.path for one in found) or "none"
                raise Refused(
                    "human_not_waiting",
                    f"found {len(asked)} open questions that are meant; expected one. Open are: {paths}.",
                )
            if asked[0].asking > 1:
                raise unnamed(str(asked[0].id), asked[0].path)
            task = asked[0].id
        await people_routes.take_decision(self._state, self._tenant, self._actor, task, message.as_request())

    async def _parse(self, text: str, parse: Callable[[str], Message]) -> Message:
        # A hostile message takes a while to be refused.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._state.checking, parse, text)

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", _GOING_AWAY))
        text: str | None = message.get("text")
        return text if text is not None else message.get("bytes", b"").decode("utf-8", "replace")

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message, ensure_ascii=False))


def _check_size(text: str) -> None:
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_JSON_BYTES:
        raise Refused(
            "body_too_large",
            f"found a message of {size:,} bytes; expected at most {MAX_JSON_BYTES:,}. Pass large texts by "
            "reference.",
        )


def _error(error: Exception) -> dict[str, Any]:
    """An error frame. Of a bug it tells the type only, and where the rest stands."""
    if isinstance(error, WebSocketDisconnect):
        raise error
    if isinstance(error, (DBAPIError, PoolTimeout)):
        error = from_database(error) or error
    if not isinstance(error, FacilitairError):
        error = bug(error, _log, path="/ws/collaborate")
    return {"type": "error", "code": error.code, "message": error.message}
