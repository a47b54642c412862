"""A simulator of its own for a test module, without delays, and what its calls are made through; and a
provider that answers with the bytes it is given."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from gateway.destinations import Destinations
from schema.settings import Settings


@contextmanager
def running_simulator(speed: str = "inf") -> Iterator[str]:
    """The address of a simulator that answers at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "infra.simulator", "--port", str(port), "--speed", speed]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"{url}/health").raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise


def only_simulated(simulator_url: str, **more: str) -> Settings:
    """Settings without any provider's key, apart from those in `more`."""
    keys = (
        "openai_api_key",
        "anthropic_api_key",
        "openrouter_api_key",
        "deepseek_api_key",
        "ollama_host",
        "openai_base_url",
        "anthropic_base_url",
        "provider_hosts",
        "provider_limits",
        "keys_dir",
    )
    values = dict.fromkeys(keys, "") | {"simulator_url": simulator_url} | more
    return Settings.model_validate(values)


SIMULATOR: Final = Destinations(only_simulated("http://127.0.0.1:9"))
"""The simulator answers for every model."""


@dataclass
class Provider:
    """A server in any provider's words, or in none: it writes what it is given."""

    url: str = ""
    host: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """(path, headers, body) of the calls so far."""
    connections: int = 0


@asynccontextmanager
async def answering(*replies: bytes | Sequence[bytes | float]) -> AsyncIterator[Provider]:
    """A provider that answers with these, the last one for ever. A number within one is a pause in seconds;
    one that announces no length leaves its connection open."""
    provider = Provider()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        provider.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = [line.split(": ", 1) for line in head[1:] if line]
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                reply = replies[min(len(provider.asked), len(replies) - 1)]
                provider.asked.append((head[0].split(" ")[1], headers, json.loads(body or b"{}")))
                pieces = [reply] if isinstance(reply, bytes) else reply
                for piece in pieces:
                    if isinstance(piece, bytes):
                        writer.write(piece)
                        await writer.drain()
                    else:
                        await asyncio.sleep(piece)
                head_sent = pieces[0] if isinstance(pieces[0], bytes) else b""
                if b"\r\nconnection: close" in head_sent or b"\r\n" not in head_sent:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider.url = f"http://{provider.host}"
    async with server:
        yield provider


def json_reply(body: object, status: str = "200 OK", **headers: str) -> bytes:
    """An HTTP response in one piece."""
    return _reply(json.dumps(body).encode(), "application/json", status, headers)


def event_reply(events: Iterable[object], **headers: str) -> bytes:
    """An HTTP response of server-sent events; mappings with a type are named by it, like Anthropic's."""
    text = "".join(_frame(event) for event in events)
    return _reply(text.encode(), "text/event-stream", "200 OK", headers)


def open_reply(events: Iterable[object]) -> bytes:
    """A response of server-sent events whose end is never told."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    return head + "".join(_frame(event) for event in events).encode()


def _frame(event: object) -> str:
    if isinstance(event, str):
        return f"data: {event}\n\n"
    name = f"event: {event['type']}\n" if isinstance(event, Mapping) and "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n"


def _reply(body: bytes, kind: str, status: str, headers: Mapping[str, str]) -> bytes:
    named = {"content-type": kind, "content-length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
