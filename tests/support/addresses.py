"""Places that requests of the platform must not reach, or may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class PrivateServer:
    """A server in the private network, and what reached it."""

    port: int
    asked: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def inside(
    reply: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret",
) -> AsyncIterator[PrivateServer]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    found = PrivateServer(server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()
