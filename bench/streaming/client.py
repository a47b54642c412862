"""A watcher over HTTP that costs little, so that hundreds of them leave the processor to what is measured."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.stack import Stack


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event."""

    id: str
    data: bytes
    at: float
    """Unix seconds of its arrival."""

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.data))


def door(on: Stack) -> httpx.AsyncClient:
    """The platform's API, for all but streams."""
    address = on.supervisor.addresses["api"]
    return httpx.AsyncClient(base_url=address, timeout=60, limits=httpx.Limits(max_connections=50))


class Stream:
    """An open connection; `async for` gives its events until the server ends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._left = b""

    def cut(self) -> None:
        """Let go without a word, as a train does in a tunnel."""
        self._writer.transport.abort()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while size := int((await self._reader.readuntil(b"\r\n")).strip() or b"0", 16):
            got = self._left + (await self._reader.readexactly(size + 2))[:-2]
            at = time.time()
            *blocks, self._left = got.split(b"\n\n")
            for block in blocks:
                if frame := _frame(block, at):
                    yield frame


def _frame(block: bytes, at: float) -> Frame | None:
    id, data = "", b""
    for line in block.split(b"\n"):
        if line.startswith(b"data: "):
            data = line[6:]
        elif line.startswith(b"id: "):
            id = line[4:].decode()
    return Frame(id, data, at) if data else None


@asynccontextmanager
async def opened(url: str, path: str, last: str = "") -> AsyncIterator[Stream]:
    """GET a stream; `last` is the id of the last event that was seen. Raises OSError when it is refused."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 24)
    try:
        header = f"Last-Event-ID: {last}\r\n" if last else ""
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Accept: text/event-stream\r\n{header}\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise ConnectionRefusedError(head.decode(errors="replace") + str(await reader.read(500)))
        yield Stream(reader, writer)
    finally:
        writer.close()
