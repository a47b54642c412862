"""Addresses of runs, whose ids may hold a slash: that of `order/123` ends in `order%2F123`.

Servers hand applications the path decoded, and then a slash of an id divides the path as any other does.
"""

from typing import Final
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIXES: Final = (b"/v1/collaborations/", b"/console/runs/")
_SLASH: Final = "\ufdd0"
"""An id's slash on its way to the route. Unicode says that it is no character, so no id has it."""
_ESCAPED: Final = quote(_SLASH).encode()


class RunPaths:
    """Keeps the escaped slashes of a run's id apart from the path's own until the route is found."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if raw.startswith(_PREFIXES) and b"%2f" in raw.lower():
            kept = raw.replace(b"%2F", _ESCAPED).replace(b"%2f", _ESCAPED)
            scope = {**scope, "path": unquote(kept.decode("ascii", "replace"))}
        await self._app(scope, receive, send)


def whole(id: str) -> str:
    """Return a run's id from its segment of a path."""
    return id.replace(_SLASH, "/")
