"""A response that goes on until its source ends or its reader leaves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

RETRY: Final = b"retry: 1000\n\n"
_ALIVE: Final = b": \n\n"
_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class EventStream(Response):
    """Server-sent events. Sending waits for a slow reader, and nothing is read for them meanwhile."""

    media_type = "text/event-stream"

    def __init__(
        self, source: AsyncGenerator[bytes], *, first: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(None, 200, _HEADERS | (headers or {}))
        del self.headers["content-length"]
        self._source, self._first = source, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_leaves(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait((sending, leaving))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": RETRY + self._first, "more_body": True})
        async with aclosing(self._source) as source:
            async for some in source:
                await send({"type": "http.response.body", "body": some or _ALIVE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
