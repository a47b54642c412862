"""Hostile addresses, headers, JSON, errors and texts at the platform's ways out: what is sent, and what must
come of each. They need no platform: the doors themselves are called in this process."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from activities.guard import describe
from activities.tools.http import HttpTool
from activities.values import checked_output, storable
from cli.terminal import Terminal
from gateway.keys import variable_of
from schema.errors import FacilitairError
from schema.hosts import is_public
from schema.values.foreign_json import NotJson, read_json


@dataclass(frozen=True)
class Case:
    """Something hostile, and what must come of it."""

    name: str
    sent: str
    expected: str
    play: Callable[[], Awaitable[str]]
    """Sends it; what came of it, to be compared with `expected`."""


def cases() -> Iterator[Case]:
    """More than 50 cases, always the same ones."""
    yield from _addresses()
    yield from _urls()
    yield from _headers()
    yield from _json()
    yield from _values()
    yield from _bugs()
    yield from _keys()
    yield from _texts()


async def play_all() -> list[str]:
    """The names of the cases of which something else came than must."""
    return [one.name for one in cases() if await one.play() != one.expected]


_PRIVATE: Final = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "192.0.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "fe80::1",
    "fe80::1%lo",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2606:4700::5efe:192.168.0.1",
    "2606:4700::1%lo",
)


def _addresses() -> Iterator[Case]:
    for address in _PRIVATE:

        async def play(address: str = address) -> str:
            return "called" if is_public(address) else "refused"

        yield Case(f"address {address}", address, "refused", play)


_URLS: Final = (
    "http://127.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://localhost:{port}/",
    "http://user:x@localhost:{port}/",
    "http://localhost\\@x:{port}/",
    "http://localhost:{port}\r\nx: y/",
    "http://lo calhost:{port}/",
    "http://localhost:99999/",
    "http://[::1:{port}/",
    "file:///etc/passwd",
    "gopher://localhost:{port}/",
    "//localhost:{port}/",
    "http://elsewhere.test:{port}/",
    "http://localhost.:{port}/",
    "http://ｌocalhost:{port}/",
    "",
    "\ud800",
)
_NAMES: Final = "127.0.0.1, ::1, localhost, 2130706433, 0x7f.1, 0177.0.0.1, 127.1, ::ffff:127.0.0.1"
"""Allowed without their ports, and so only where they lead to public addresses."""


def _urls() -> Iterator[Case]:
    for url in _URLS:

        async def play(url: str = url) -> str:
            async with _inside() as (port, asked):
                code = await _called(_NAMES, url.replace("{port}", str(port)), {})
                return f"{code}, {len(asked)} requests"

        yield Case(f"url {url!r}", url, "tool_not_allowed, 0 requests", play)


_FRAMING: Final = (
    "Host",
    "Transfer-Encoding",
    "Content-Length",
    "Connection",
    "Upgrade",
    "TE",
    "Trailer",
    "Keep-Alive",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Expect",
    "HTTP2-Settings",
    "hOST",
)
_BROKEN: Final = {"x y": "1", ":path": "/", "": "1", "x\r\ny": "1", "x": "a\r\nhost: b", "z": "\0", "é": "1"}


def _headers() -> Iterator[Case]:
    refused = [({name: "3"}, "tool_not_allowed") for name in _FRAMING]
    refused += [({name: value}, "tool_args_wrong") for name, value in _BROKEN.items()]
    refused.append(({"x": "a" * 20_000}, "tool_args_wrong"))
    for headers, code in refused:

        async def play(headers: dict[str, str] = headers) -> str:
            async with _inside() as (port, asked):
                code = await _called(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/", headers)
                return f"{code}, {len(asked)} requests"

        shown = repr(headers)[:60]
        yield Case(f"header {shown}", shown, f"{code}, 0 requests", play)


_DEEP: Final = "[" * 50_000 + "]" * 50_000
_TEXTS_OF_JSON: Final = (
    "NaN",
    "-Infinity",
    '{"a": NaN}',
    "1e999",
    "[-1e999]",
    _DEEP,
    _DEEP[:40_000],
    "9" * 5_000,
    "",
    "{",
    "[1,]",
    "{'a': 1}",
    '{"a":' * 3_000 + "1" + "}" * 3_000,
)


def _json() -> Iterator[Case]:
    for number, text in enumerate(_TEXTS_OF_JSON):

        async def play(text: str = text) -> str:
            try:
                read_json(text)
            except NotJson:
                return "refused"
            return "read"

        yield Case(f"json {number}: {text[:20]!r}", text[:80], "refused", play)


def _values() -> Iterator[Case]:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    for door in (storable, checked_output):
        for name, value in (("nan", float("nan")), ("infinity", {"a": [float("inf")]}), ("deep", deep)):

            async def play(door: Callable[[Any], Any] = door, value: Any = value) -> str:
                return _code_of(lambda: door(value))

            yield Case(f"value {name} at {door.__name__}", name, "output_invalid", play)


_SECRET: Final = "hunter2"


def _bugs() -> Iterator[Case]:
    for error in (
        ValueError(_SECRET),
        KeyError(_SECRET),
        OSError(2, "no", f"/{_SECRET}"),
        TypeError(_SECRET),
    ):

        async def play(error: Exception = error) -> str:
            code, message = describe(error)
            return f"{code}, {'told' if _SECRET in message else 'kept'}"

        code = "io_error" if isinstance(error, OSError) else "internal_error"
        yield Case(f"bug {type(error).__name__}", repr(error), f"{code}, kept", play)


def _keys() -> Iterator[Case]:
    own = variable_of("team-1", "main")
    for tenant, reference in (("team", "1-main"), ("TEAM", "1.main"), ("team_1", "main"), ("team", "1_main")):

        async def play(tenant: str = tenant, reference: str = reference) -> str:
            return "shared" if variable_of(tenant, reference) == own else "apart"

        yield Case(f"key {tenant}/{reference}", f"{tenant}/{reference}", "apart", play)


_SEQUENCES: Final = (
    "\x1b]0;owned\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\",
    "\x1b[2J",
    "\x1bc",
    "\x9b2J",
    "\x9d0;x\x9c",
    "good\revil",
    "a\b",
    "\x00",
    "\x7f",
    "\u202eevil",
    "\u2066x",
    "\u2028",
    "\ud800",
    "\U000e0041",
    "[link=http://x]y[/link]",
)
_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0041]"
)


def _texts() -> Iterator[Case]:
    for text in _SEQUENCES:

        async def play(text: str = text) -> str:
            terminal = Terminal()
            terminal.file = written = io.StringIO()
            terminal.print(text)
            return "steered" if _STEERING.search(written.getvalue()) else "clean"

        yield Case(f"text {text!r}", text, "clean", play)


async def _called(allow: str, url: str, headers: dict[str, str]) -> str:
    tool = HttpTool(allow)
    try:
        await tool.call(url, headers=headers)
    except FacilitairError as error:
        return error.code
    finally:
        await tool.close()
    return "answered"


def _code_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except FacilitairError as error:
        return error.code
    return "taken"


@asynccontextmanager
async def _inside() -> AsyncIterator[tuple[int, list[bytes]]]:
    """(port, what reached it) of a server in the private network."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(65_536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await server.wait_closed()
