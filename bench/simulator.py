"""How much one core of the simulator carries: `python -m bench.simulator [--streams 2000] [--seconds 10]`.

Starts simulators of its own and prints one JSON object. `late_*_ms` is how much later than the timetable a
token was read by the client, which is a second process's work on the same machine and counted in;
`server_cpu` is the share of one core that the simulator used while the streams ran.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httpx
import uvloop

_TOKEN: Final = b"data: "
_FIRST_AFTER_SECONDS: Final = 1.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    url: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        with open(f"/proc/{self.pid}/stat") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


@asynccontextmanager
async def _server(speed: str) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "infra.simulator", "--port", str(port), "--speed", speed]
    process = subprocess.Popen(command)  # noqa: ASYNC220
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"{url}/health")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield Server(url, port, process.pid)
    finally:
        process.terminate()
        process.wait(10)


@dataclass(eq=False)
class Listener(asyncio.Protocol):
    """A caller that counts events and looks at the clock, and does nothing else."""

    request: bytes
    per_second: float
    tokens: int
    began: float = 0.0
    events: int = 0
    packets: int = 0
    late: list[float] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by class.
        self.transport = cast(asyncio.Transport, transport)
        self.began = time.monotonic()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.packets += 1
        first, found = self.events, data.count(_TOKEN)
        self.events += found
        # The first event opens the answer, those after the last token close it.
        for number in range(max(0, first - 1), min(self.tokens, self.events - 1)):
            due = self.began + _FIRST_AFTER_SECONDS + number / self.per_second
            self.late.append(now - due)
        if b"[DONE]" in data:
            self.done.set()
            self.transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self.done.set()


def _request(stream: bool, content: str) -> bytes:
    body = json.dumps(
        {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": content}], "stream": stream}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: simulator\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + body


async def streams(count: int, seconds: float, per_second: float) -> dict[str, Any]:
    """`count` streams at once, token by token."""
    tokens = int(seconds * per_second)
    rule = {
        "kind": "pace",
        "times": None,
        "text": " ".join(["word"] * tokens),
        "tokens_per_second": per_second,
        "delay_seconds": _FIRST_AFTER_SECONDS,
    }
    loop = asyncio.get_running_loop()
    async with _server("1") as server, httpx.AsyncClient(base_url=server.url, timeout=60) as control:
        (await control.post("/_simulator/faults", json=rule)).raise_for_status()
        listeners: list[Listener] = []
        request = _request(True, "Speak.")
        for number in range(count):
            listener = Listener(request, per_second, tokens)
            await loop.create_connection(lambda one=listener: one, "127.0.0.1", server.port)  # type: ignore[misc]
            listeners.append(listener)
            if number % 20 == 19:
                await asyncio.sleep(20 / 1000)
        cpu, began = server.cpu_seconds(), time.monotonic()
        read = sum(len(listener.late) for listener in listeners)
        await asyncio.sleep(seconds / 2)
        cpu, took = server.cpu_seconds() - cpu, time.monotonic() - began
        read = sum(len(listener.late) for listener in listeners) - read
        await asyncio.gather(*(listener.done.wait() for listener in listeners))
        late = sorted(each for listener in listeners for each in listener.late)
        total = (await control.get("/_simulator/calls", params={"limit": 0})).json()["total"]
    return {
        "streams": count,
        "tokens_per_second_each": per_second,
        "tokens_read": len(late),
        "tokens_billed": total["output_tokens"],
        "finished": total["finished"],
        "late_p50_ms": round(late[len(late) // 2] * 1000, 1),
        "late_p95_ms": round(late[int(len(late) * 0.95)] * 1000, 1),
        "late_p99_ms": round(late[int(len(late) * 0.99)] * 1000, 1),
        "packets": sum(listener.packets for listener in listeners),
        "server_cpu": round(cpu / took, 2),
        "server_us_per_token": round(cpu / max(1, read) * 1e6, 1),
    }


async def instant(seconds: float, stream: bool, connections: int = 32) -> dict[str, Any]:
    """Answers without delay, one after the other on each connection, every prompt another."""
    end = time.monotonic() + seconds
    done = 0

    async def ask(number: int, port: int) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = 0
        while time.monotonic() < end:
            asked += 1
            writer.write(_request(stream, f"Write about request {asked} of caller {number}."))
            head = await reader.readuntil(b"\r\n\r\n")
            if stream:
                await reader.readuntil(b"0\r\n\r\n")
            else:
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
            done += 1
        writer.close()

    async with _server("inf") as server:
        end = time.monotonic() + seconds
        cpu, began = server.cpu_seconds(), time.monotonic()
        await asyncio.gather(*(ask(number, server.port) for number in range(connections)))
        took, cpu = time.monotonic() - began, server.cpu_seconds() - cpu
    return {
        "calls": done,
        "calls_per_second": round(done / took),
        "calls_per_core_second": round(done / cpu),
        "server_cpu": round(cpu / took, 2),
    }


async def _main(arguments: argparse.Namespace) -> None:
    found = {
        "streams": await streams(arguments.streams, arguments.seconds, arguments.rate),
        "instant_streamed": await instant(arguments.instant_seconds, True),
        "instant_whole": await instant(arguments.instant_seconds, False),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.simulator", description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=20.0, help="tokens per second of each stream")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each stream speaks")
    parser.add_argument("--instant-seconds", type=float, default=5.0)
    uvloop.run(_main(parser.parse_args()))
