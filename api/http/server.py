"""The API on a socket: uvicorn, with times within which a client must have spoken."""

import asyncio
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.addresses import address_of
from api.http.bodies import MAX_JSON_BYTES
from api.http.security_headers import ALWAYS
from api.http.silent_connections import SilentConnections
from schema.settings import Settings

# Above what we refuse with a message of our own; the rest of it is never read.
_MAX_SOCKET_MESSAGE_BYTES: Final = 4 * MAX_JSON_BYTES
_GRACEFUL_SECONDS: Final = 5


def config(app: ASGIApp, settings: Settings, *, host: str, port: int) -> uvicorn.Config:
    """Return how the API is served, wherever it is."""
    silent = SilentConnections(settings.max_silent_connections, settings.max_silent_per_address)
    protocol = partial(TimedHttpProtocol, settings=settings, silent=silent)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=cast(type[asyncio.Protocol], protocol),
        ws_max_size=_MAX_SOCKET_MESSAGE_BYTES,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )


class TimedHttpProtocol(HttpToolsProtocol):
    """HTTP whose requests must come in time: uvicorn itself waits for headers and bodies for ever."""

    def __init__(self, *args: Any, settings: Settings, silent: SilentConnections, **more: Any) -> None:
        super().__init__(*args, **more)
        self._header_seconds, self._body_seconds = settings.header_seconds, settings.body_seconds
        self._silent = silent
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silent.add(transport, address_of(self.client[0]) if self.client else "")
        self._expect_within(self._header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._silent.discard(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Line breaks between requests end uvicorn's own time for an idle connection and begin none of ours.
        idle = self.cycle is not None and self.cycle.response_complete
        if idle and self._deadline is None and not self.transport.is_closing():
            self._expect_within(self._header_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._expect_within(self._header_seconds)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._silent.discard(self.transport)
        self._expect_within(self._body_seconds)

    def on_message_complete(self) -> None:
        self._expect_nothing()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._expect_nothing()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", msg)

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._timed_out)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _timed_out(self) -> None:
        self._deadline = None
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse("408 Request Timeout", "The request did not come in time.")

    def _refuse(self, status: str, message: str) -> None:
        """Answer for the parser, before there is a request that the app could answer."""
        self._expect_nothing()
        headers = (
            *ALWAYS,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(message)).encode()),
            (b"connection", b"close"),
        )
        lines = b"".join(b"%s: %s\r\n" % one for one in headers)
        self.transport.write(b"HTTP/1.1 %s\r\n%s\r\n%s" % (status.encode(), lines, message.encode()))
        self.transport.close()
