"""A web server of one's own on loopback, which answers with whatever bytes it likes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Answer = Callable[[str, bytes, asyncio.StreamWriter], Awaitable[None]]
"""Gets method and path, the body, and where to write."""


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve until left, one request to a connection. Yields host:port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):  # who asked has gone
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await answer(first.rpartition(" ")[0], body, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, reuse_port=True)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
