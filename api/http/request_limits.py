"""Bound concurrent requests per API process and per client address."""

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from api.http import problems
from api.http.addresses import IN_PROCESS, client_address
from api.http.origins import HEALTH_PATHS
from schema.errors import TryLater
from schema.settings import Settings


class RequestLimits:
    """ASGI middleware that counts requests, streams and sockets. Health checks always pass, so that a busy
    process is not taken for a dead one."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._by_address: Counter[str] = Counter()
        self._watchers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in HEALTH_PATHS or _is_in_process(scope):
            await self._app(scope, receive, send)
            return
        address = client_address(scope)
        watching = _is_watching(scope)
        if refusal := self._refusal(address, watching):
            await problems.refuse(refusal, scope, receive, send)
            return
        self._by_address[address] += 1
        self._watchers += watching
        try:
            await self._app(scope, receive, send)
        finally:
            self._watchers -= watching
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _refusal(self, address: str, watching: bool) -> TryLater | None:
        limits = self._settings
        if self._by_address[address] >= limits.max_requests_per_address:
            return _too_many(
                "too_many_requests",
                "from this address",
                limits.max_requests_per_address,
                "FACILITAIR_MAX_REQUESTS_PER_ADDRESS",
            )
        if self._by_address.total() >= limits.max_requests:
            return _too_many("api_busy", "under way", limits.max_requests, "FACILITAIR_MAX_REQUESTS")
        if watching and self._watchers >= limits.max_watchers:
            return _too_many("api_busy", "that watch", limits.max_watchers, "FACILITAIR_MAX_WATCHERS")
        return None


def _is_in_process(scope: Scope) -> bool:
    """Return whether a page of the console asks, whose own line is counted."""
    return (scope.get("client") or ("",))[0] == IN_PROCESS


def _is_watching(scope: Scope) -> bool:
    path: str = scope["path"]
    chats = path.startswith(("/v1/chat/", "/v1/agui/"))
    return scope["type"] == "websocket" or chats or path.endswith(("/stream", "/stream/collaborate"))


def _too_many(code: str, which: str, most: int, name: str) -> TryLater:
    return TryLater(
        code,
        f"found {most:,} requests {which} at once; expected fewer. Try again shortly; {name} is the limit.",
        problems.RETRY_AFTER_SECONDS,
    )
