"""The API in this process as browsers and programs ask it, without servers behind it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api.app import create_app
from schema.settings import Settings

KEY: Final = "a key of the tests"
HERE: Final = "http://127.0.0.1:8700"


@asynccontextmanager
async def asking(settings: Settings | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose servers are away: what is refused at the door needs none."""
    app = create_app(settings or Settings())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=HERE) as http,
    ):
        yield http


def routes(app: FastAPI) -> Iterator[tuple[str, frozenset[str]]]:
    """Every address of the API as its router writes it, with its methods; WebSockets and mounts have none."""
    for one in iter_route_contexts(app.routes):
        yield str(one.path), frozenset(getattr(one, "methods", None) or ())


async def open_socket(app: FastAPI, path: str, headers: Mapping[str, str]) -> int:
    """The status with which an API that has not been started answers the opening of a WebSocket."""
    sent: list[dict[str, Any]] = []
    given = {"host": HERE.removeprefix("http://"), **headers}
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8700),
        "scheme": "ws",
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0].get("status", 101 if sent[0]["type"] == "websocket.accept" else 403))
