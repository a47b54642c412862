"""Who may ask: with a key set, who carries it; without one, this machine's own programs."""

import base64
import binascii
import hashlib
import ipaddress
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api import problems
from schema.errors import FacilitairError, Refused

_OPEN_PATHS = (
    "/health", "/health/live", "/health/ready", "/v1/health", "/v1/health/live", "/v1/health/ready",
)  # fmt: skip
# Their addresses are secrets themselves: no web page can guess one, and who was given one has no key.
_SECRET_PATHS = "/hooks/"
SUBPROTOCOL: Final = "facilitair"
"""Of WebSockets. A browser, which cannot set their headers, offers `facilitair.key.<base64url>` beside it."""
_KEY_PROTOCOL: Final = f"{SUBPROTOCOL}.key."
# It asks for the key itself, once, and knows who gave it by a cookie.
_CONSOLE = "/console"


def is_open(path: str) -> bool:
    """Whether whoever knows the address may ask."""
    return path in _OPEN_PATHS or path.startswith(_SECRET_PATHS)


def is_console(path: str) -> bool:
    return path in ("/", _CONSOLE) or path.startswith(f"{_CONSOLE}/")


def without_secret(path: str) -> str:
    """A path as logs may hold it."""
    return f"{_SECRET_PATHS}…" if path.startswith(_SECRET_PATHS) else path


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def actor(api_key: str) -> str:
    """The name under which a caller stands in the audit log: never the key itself."""
    return f"key:{hashlib.sha256(api_key.encode()).hexdigest()[:8]}" if api_key else "local"


class Guard:
    """ASGI middleware that refuses a request before anything of it is read."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not self._passes(scope["path"]):
            refusal = self._refusal(Headers(scope=scope))
            if refusal is not None:
                await _refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _passes(self, path: str) -> bool:
        return is_open(path) or (bool(self._key) and is_console(path))

    def _refusal(self, headers: Headers) -> FacilitairError | None:
        if self._key:
            given = (
                headers.get("x-api-key")
                or headers.get("authorization", "").removeprefix("Bearer ")
                or _offered(headers)
            )
            # As bytes: compare_digest refuses text that is not ASCII.
            if secrets.compare_digest(given.encode(), self._key.encode()):
                return None
            return Refused(
                "api_key_wrong",
                f"found {'a wrong' if given else 'no'} API key; expected the value of FACILITAIR_API_KEY in "
                "`Authorization: Bearer …` or `X-API-Key: …`.",
            )
        return _foreign(headers)


async def _refuse(refusal: FacilitairError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    await problems.response(refusal, scope["path"])(scope, receive, send)


def _offered(headers: Headers) -> str:
    """The key among the subprotocols of a WebSocket."""
    for one in headers.get("sec-websocket-protocol", "").split(","):
        name = one.strip()
        if name.startswith(_KEY_PROTOCOL):
            coded = name.removeprefix(_KEY_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""


def _foreign(headers: Headers) -> FacilitairError | None:
    """Without a key, a web page that a person visits must not reach the platform through their browser:
    neither under a name that it points at loopback (DNS rebinding), nor by a form that it submits."""
    host = host_of("//" + headers.get("host", ""))
    origin = headers.get("origin")
    named = [host] if origin is None else [host, host_of(origin)]
    strangers = [name for name in named if name is None or not is_loopback(name)]
    if not strangers:
        return None
    return Refused(
        "origin_refused",
        f"found the host or origin {strangers[0]!r}; expected this machine's own name for itself "
        "(127.0.0.1 or localhost). Set FACILITAIR_API_KEY to be reached under any other.",
    )


def host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
