"""The API behind a real socket, in this process: what is cut must be a line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from api.app import create_app
from api.http.server import config
from api.live.readers import Hub
from schema.settings import Settings


@dataclass(frozen=True)
class ApiServer:
    hub: Hub
    http: httpx.AsyncClient
    port: int


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[ApiServer]:
    app = create_app(settings)
    server = uvicorn.Server(config(app, settings, host="127.0.0.1", port=0))
    serving = asyncio.create_task(server._serve())  # without its signal handlers
    try:
        while not server.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield ApiServer(app.state.facilitair.hub, http, port)
    finally:
        server.should_exit = True
        await serving


@dataclass(frozen=True)
class ServerEvent:
    """A server-sent event."""

    id: str
    event: str
    data: str


def blocks_of(stream: bytes) -> list[ServerEvent]:
    """Those that have come whole."""
    found = []
    *whole, _ = stream.split(b"\n\n")
    for part in map(bytes.decode, whole):
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        if "data" in fields:
            found.append(ServerEvent(fields["id"], fields.get("event", ""), fields["data"]))
    return found


async def read(
    http: httpx.AsyncClient, address: str, *, bytes: int | None = None, **more: str
) -> list[ServerEvent]:
    """What a stream says until its end, or until the line is cut behind so many bytes."""
    said = b""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    async with http.stream("GET", address, headers=headers) as answer:
        if answer.status_code == 204:
            return []
        assert answer.status_code == 200, await answer.aread()
        async for some in answer.aiter_raw():
            said += some
            if bytes is not None and len(said) >= bytes:
                said = said[:bytes]
                break
    return blocks_of(said)
