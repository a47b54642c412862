"""Connections to providers: none is left open, however a call ends."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from gateway.http import Http
from gateway.request import Timeouts
from gateway.timeouts import CallDeadlines


@asynccontextmanager
async def provider(status: str) -> AsyncIterator[tuple[Http, Callable[[], CallDeadlines], str]]:
    """It begins an answer, and never ends it."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 100\r\n\r\nthe beginning".encode())
        await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = Http(lambda _: "anywhere")
    try:
        yield http, lambda: CallDeadlines(Timeouts(), streamed=True), f"http://127.0.0.1:{port}/"
    finally:
        await http.close()
        over.set()
        server.close()
        await server.wait_closed()
        # What is collected open warns, and a warning fails the test.
        gc.collect()


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_closing_gives_back_what_an_answers_end_is_awaited_on(pause: float) -> None:
    async with provider("200 OK") as (http, patience, url):
        exchange = await http.open(url, {}, b"{}", patience())
        assert await exchange.packet() == b"the beginning"
        exchange.end(complete=True)
        await asyncio.sleep(pause)
        [connection] = [exchange._response.connection]
        assert connection is not None
        await http.close()
        assert exchange._response.connection is None


async def test_a_refusal_that_is_cancelled_leaves_nothing_open() -> None:
    async with provider("500 Internal Server Error") as (http, patience, url):
        asking = asyncio.create_task(http.open(url, {}, b"{}", patience()))
        await asyncio.sleep(0.1)
        assert len(http._outbound.session(URL(url)).connector._acquired) == 1  # type: ignore[union-attr]
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not http._outbound.session(URL(url)).connector._acquired  # type: ignore[union-attr]
