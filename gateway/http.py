"""HTTP to providers: one session for all calls of a process, our own timeouts, bounded reading.

Import it late: aiohttp takes a fifth of a second.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL

from gateway.failures import ConnectionLost, Refusal
from gateway.outbound import HostNotAllowed, Outbound, PrivateAddress, Reach
from gateway.timeouts import CallDeadlines
from schema.values.foreign_json import read_json

MAX_CONNECTIONS: Final = 2_000
MAX_REFUSAL_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
REFUSAL_SECONDS: Final = 5.0
REST_SECONDS: Final = 1.0
# Ours count, per phase; aiohttp's would count a slow reader of ours, too.
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


class Http:
    """The connections of a process. Make it where the loop runs."""

    def __init__(self, reach: Callable[[str], Reach]) -> None:
        async def sent(_session: object, context: SimpleNamespace, _params: object) -> None:
            context.trace_request_ctx.note_sent()

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(sent)
        self._outbound = Outbound(
            reach,
            connections=MAX_CONNECTIONS,
            timeout=NO_TIMEOUT,
            traces=[trace],
            # Compressed events wait for each other.
            headers={"accept-encoding": "identity", "user-agent": "facilitair"},
        )
        self._proxies: dict[tuple[str, str | None, int | None], dict[str, Any]] = {}
        self._resting: set[asyncio.Task[None]] = set()

    async def open(
        self, url: str, headers: Mapping[str, str], body: bytes, patience: CallDeadlines
    ) -> "Exchange":
        """Send a request and read the head of its answer.

        Raises Refusal for any status but 200, ConnectionLost, or TimedOut.
        """
        address = URL(url)
        try:
            async with patience.head() as limit:
                response = await self._outbound.session(address).post(
                    address,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=patience,
                    **self._proxy(address),
                )
        except TimeoutError:
            if not limit.expired():
                raise ConnectionLost(patience.sent, "the connection timed out") from None
            raise patience.timed_out() from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectionLost(patience.sent, _reason(error)) from None
        if response.status != 200:
            raise await _refusal(response)
        return Exchange(response, patience, self._rest)

    async def get_json(self, url: str, headers: Mapping[str, str], seconds: float) -> tuple[int, Any]:
        """(status, what stands there); status 0 where nobody answers as expected."""
        address = URL(url)
        patience = SimpleNamespace(note_sent=lambda: None)
        with suppress(aiohttp.ClientError, OSError, ValueError):
            async with (
                asyncio.timeout(seconds),
                self._outbound.session(address).get(
                    address,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=patience,
                    **self._proxy(address),
                ) as response,
            ):
                if response.status != 200:
                    return response.status, None
                return 200, read_json(await _bounded(response, MAX_REFUSAL_BYTES))
        return 0, None

    async def close(self) -> None:
        resting = tuple(self._resting)
        for task in resting:
            task.cancel()
        # Each gives its connection back, which would else be found open by the collector.
        await asyncio.gather(*resting, return_exceptions=True)
        await self._outbound.close()

    def _proxy(self, address: URL) -> dict[str, Any]:
        if self._outbound.reach(address) != "anywhere":
            return {}  # a proxy would look the name up by itself, and go where it leads
        # By ourselves and once per host: aiohttp would go through a thread for it, for every call.
        place = (address.scheme, address.host, address.port)
        if place not in self._proxies:
            found: dict[str, Any] = {}
            with suppress(LookupError):
                proxy, login = get_env_proxy_for_url(address)
                found = {"proxy": proxy}
                if login is not None:
                    found["proxy_headers"] = {"Proxy-Authorization": login.encode()}
            self._proxies[place] = found
        return self._proxies[place]

    def _rest(self, response: aiohttp.ClientResponse) -> None:
        """Give the connection back, once the end of the answer has come through."""
        if response.content.at_eof():
            response.release()
            return
        task = asyncio.get_running_loop().create_task(_read_rest(response))
        self._resting.add(task)
        # Not by the task: one that is cancelled before it begins does nothing at all.
        task.add_done_callback(lambda _: response.release())
        task.add_done_callback(self._resting.discard)


class Exchange:
    """An answer that has begun."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        patience: CallDeadlines,
        rest: Callable[[aiohttp.ClientResponse], None],
    ) -> None:
        self.simulated = "x-facilitair-simulated" in response.headers
        kind = response.headers.get("content-type", "")
        self.is_json, self.is_events = "json" in kind, "event-stream" in kind
        self._response, self._patience, self._rest = response, patience, rest
        self._read = 0
        patience.watch(response.content.set_exception)

    async def packet(self) -> bytes:
        """Return the next packet, b"" at the end. Raises TimedOut or ConnectionLost."""
        try:
            packet = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectionLost(True, _reason(error), begun=True) from None
        self._read += len(packet)
        if self._read > MAX_ANSWER_BYTES:
            raise ConnectionLost(True, f"its answer is longer than {MAX_ANSWER_BYTES:,} bytes", begun=True)
        return packet

    async def whole(self) -> bytes:
        """Return the rest of the body."""
        packets = []
        while packet := await self.packet():
            packets.append(packet)
        return b"".join(packets)

    def end(self, *, complete: bool) -> None:
        """Let go of the connection; for further calls if the answer is complete."""
        self._patience.stop()
        if complete:
            self._rest(self._response)
        else:
            self._response.close()


async def _read_rest(response: aiohttp.ClientResponse) -> None:
    with suppress(Exception):
        async with asyncio.timeout(REST_SECONDS):
            while await response.content.readany():
                pass


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body; raises ValueError where it is longer than `most` bytes."""
    body = b""
    while packet := await response.content.readany():
        body += packet
        if len(body) > most:
            raise ValueError(f"more than {most:,} bytes")
    return body


async def _refusal(response: aiohttp.ClientResponse) -> Refusal:
    body = b""
    try:
        with suppress(aiohttp.ClientError, OSError, ValueError):
            async with asyncio.timeout(REFUSAL_SECONDS):
                while len(body) < MAX_REFUSAL_BYTES and (packet := await response.content.readany()):
                    body += packet
    finally:
        response.release()
    return Refusal(response.status, response.headers, body[:MAX_REFUSAL_BYTES])


def _reason(error: BaseException) -> str:
    """Return why a connection failed, without the request: it carries the key."""
    if isinstance(error, HostNotAllowed):
        return f"{error}; expected one in FACILITAIR_PROVIDER_HOSTS"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PrivateAddress):
        place = f"{error.host}:{error.port}"
        return (
            f"{error.os_error} ({error.host}); where that is meant, the operator allows it as {place} in "
            "FACILITAIR_PROVIDER_HOSTS"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return f"the connection broke ({type(error).__name__})"
