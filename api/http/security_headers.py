"""Security headers of every answer: no sniffing, no framing, no foreign sources."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Pages, which need more, bring a policy of their own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_HTTPS_ONLY: Final = ((b"strict-transport-security", b"max-age=31536000"),)
_STARTS: Final = ("http.response.start", "websocket.http.response.start")


class SecurityHeaders:
    """The outermost ASGI middleware: refusals and faults carry the headers too."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = (*ALWAYS, *(_HTTPS_ONLY if https else ()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] in _STARTS:
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [one for one in self._headers if one[0] not in names]
            await send(message)

        await self._app(scope, receive, sending)
