"""Decide who may ask: first from where a request comes, then whether it carries the key."""

import base64
import binascii
import math
import secrets
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http import problems
from api.http.addresses import client_address
from api.http.failed_keys import FailedKeys
from api.http.origins import HEALTH_PATHS, HOOKS, Origins, is_console
from schema.errors import FacilitairError, Refused, TryLater

SUBPROTOCOL: Final = "facilitair"
"""WebSocket subprotocol. A browser cannot set headers and offers `facilitair.key.<base64url>` beside it."""
_KEY_PROTOCOL: Final = f"{SUBPROTOCOL}.key."
MIN_KEY_CHARS: Final = 16


def is_open(path: str) -> bool:
    """Return whether an address needs no key: a webhook's is a secret itself."""
    return path in HEALTH_PATHS or path.startswith(HOOKS)


def without_secret(path: str) -> str:
    """Return a path as logs may hold it."""
    return f"{HOOKS}…" if path.startswith(HOOKS) else path


class ApiKey:
    """The key of the API, and who has guessed at it."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._failed = FailedKeys()

    @property
    def is_set(self) -> bool:
        return bool(self._key)

    def refusal(self, scope: Scope, given: str) -> FacilitairError | None:
        """Return why what was given is not taken, None where it is the key."""
        address = client_address(scope)
        # A caller who must wait learns nothing meanwhile, not even that a guess was right.
        if given and (wait := self._failed.wait_seconds(address)):
            seconds = math.ceil(wait)
            return TryLater(
                "too_many_wrong_keys",
                "found many different wrong keys from this address; expected the right one. Wait "
                f"{seconds} s before the next try.",
                seconds,
            )
        # As bytes: compare_digest refuses text that is not ASCII.
        if secrets.compare_digest(given.encode(), self._key.encode()):
            return None
        if given:
            self._failed.add(address, given)
        return Refused(
            "api_key_wrong",
            f"found {'a wrong' if given else 'no'} API key; expected the value of FACILITAIR_API_KEY in "
            "`Authorization: Bearer …` or `X-API-Key: …`.",
        )


class Guard:
    """ASGI middleware that refuses a request before anything of it is read."""

    def __init__(self, app: ASGIApp, origins: Origins, key: ApiKey) -> None:
        self._app = app
        self._origins = origins
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            refusal = self.refusal(scope)
            if refusal is not None:
                await problems.refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def refusal(self, scope: Scope) -> FacilitairError | None:
        """Return why a request of HTTP or a WebSocket is refused, None where it may go on."""
        refused = self._origins.refusal(scope)
        if refused is not None:
            return refused
        path = scope["path"]
        # The console asks for the key itself, once, and knows who gave it by a cookie.
        if not self._key.is_set or is_open(path) or is_console(path):
            return None
        return self._key.refusal(scope, _given_key(Headers(scope=scope)))


def _given_key(headers: Headers) -> str:
    return (
        headers.get("x-api-key")
        or headers.get("authorization", "").removeprefix("Bearer ")
        or _offered(headers)
    )


def _offered(headers: Headers) -> str:
    """Return the key among the subprotocols of a WebSocket."""
    for one in headers.get("sec-websocket-protocol", "").split(","):
        name = one.strip()
        if name.startswith(_KEY_PROTOCOL):
            coded = name.removeprefix(_KEY_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
