"""Connections that say nothing keep nobody out, and end."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest

from api.http.silent_connections import SilentConnections
from schema.settings import Settings
from tests.support.api_server import served
from tests.support.cli import ROOT


@dataclass(frozen=True)
class _Process:
    address: str
    port: int


@asynccontextmanager
async def _api(**settings: str) -> AsyncIterator[_Process]:
    """`python -m api`, whose servers are away."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"FACILITAIR_PORT": str(port), "DATABASE_URL": "postgresql://postgres@127.0.0.1:9/none", **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api",
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while not await _is_up(http, address):
                await asyncio.sleep(0.1)
        yield _Process(address, port)
    finally:
        process.terminate()
        await process.wait()


async def _is_up(http: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await http.get(f"{address}/health/live")).is_success
    except httpx.TransportError:
        return False


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends a connection within the test's patience."""
    try:
        while await asyncio.wait_for(reader.read(1_000), 20):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_health_answers_while_a_thousand_connections_say_nothing_and_these_end() -> None:
    async with _api(FACILITAIR_HEADER_SECONDS="3") as api:
        silent = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(1_000)]
        async with httpx.AsyncClient(base_url=api.address, timeout=2) as http:
            for path in ("/health/live", "/v1/health/live"):
                assert (await http.get(path)).json() == {"live": True}
            # Not the health check alone: whoever asks something is let in.
            assert (await http.get("/openapi.json", timeout=90)).status_code == 200
        assert await asyncio.gather(*(_is_closed(reader) for reader, _ in silent)) == [True] * 1_000
        for _, writer in silent:
            await _close(writer)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b"HTTP/1.1 408 "),
        (b"GET /health/live HTTP/1.1\r\nHost: 127", b"HTTP/1.1 408 "),
        (
            b"POST /v1/definitions/validate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
            b"Content-Type: application/json\r\n\r\n{",
            b"HTTP/1.1 408 ",
        ),
        (b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "half a header", "half a body", "a request and nothing more"],
)
async def test_a_connection_that_stays_behind_is_closed(sent: bytes, answer: bytes) -> None:
    times = {"header_seconds": 0.3, "body_seconds": 0.3}
    async with served(Settings().model_copy(update=times)) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(sent)
        found = await asyncio.wait_for(reader.read(), 20)
        await _close(writer)
    assert found.startswith(answer)


async def test_line_breaks_keep_no_connection_open() -> None:
    async with served(Settings().model_copy(update={"header_seconds": 0.3})) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        closing = asyncio.create_task(_is_closed(reader))
        while not closing.done():
            writer.write(b"\r\n")
            await asyncio.wait({closing}, timeout=0.05)
        assert closing.result()
        await _close(writer)


class _Line(asyncio.Transport):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_above_the_limit_the_oldest_of_an_address_is_closed_and_no_new_one() -> None:
    now = 0.0
    silent = SilentConnections(10, 2, clock=lambda: now)
    lines = [_Line() for _ in range(4)]
    for line in lines[:3]:
        silent.add(line, "10.0.0.1")  # all at once: honest clients do so too
    assert [line.closed for line in lines] == [False] * 4
    now = 2.0
    other = _Line()
    silent.add(other, "10.0.0.2")
    silent.add(lines[3], "10.0.0.1")
    assert [line.closed for line in lines] == [True, True, False, False]
    assert (other.closed, len(silent)) == (False, 3)
    silent.discard(lines[2])
    silent.discard(lines[0])
    assert len(silent) == 2


def test_above_the_limit_of_all_the_oldest_is_closed_whosever_it_is() -> None:
    now = 0.0
    silent = SilentConnections(2, 10, clock=lambda: now)
    lines = [_Line() for _ in range(3)]
    for at, line in enumerate(lines):
        now = at * 2.0
        silent.add(line, f"10.0.0.{at}")
    assert [line.closed for line in lines] == [True, False, False]
