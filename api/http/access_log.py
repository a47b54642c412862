"""One JSON line per request, and the last catch of a bug."""

import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import problems
from api.http.auth import without_secret
from schema.bugs import bug

_log = logging.getLogger("facilitair.access")
_errors = logging.getLogger("facilitair.api")


class AccessLog:
    """ASGI middleware around all that can fail. Logs no query and no body: people wrote what they hold."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        method = scope.get("method", "WEBSOCKET")

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # a client that left in the middle of a body, or was too slow with it, reads no answer
        except Exception as error:
            told = bug(error, _errors, method=method, path=without_secret(scope["path"]))
            if status == 0 and scope["type"] == "http":
                await problems.response(told, scope["path"])(scope, receive, watched)
        finally:
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            _log.info(
                "request",
                extra={
                    "method": method,
                    "path": without_secret(scope["path"]),
                    "status": status,
                    "milliseconds": milliseconds,
                    "client": (scope.get("client") or ("",))[0],
                },
            )
