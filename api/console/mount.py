"""The console below /console: the gate before it, and NiceGUI behind it, loaded when it is first needed.

Importing NiceGUI takes a second and a half, which the API's start does not wait for.
"""

import asyncio
import importlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.console import login
from api.console.client import Api
from api.console.session import Sessions, forgotten, is_own
from api.state import State
from schema.settings import Settings

PATH: Final = "/console"
STATIC: Final = Path(__file__).parent / "static"
# NiceGUI's own start script and Vue's templates are inline and compiled in the browser.
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
# The addresses of our files change with their content.
_LASTING: Final = ((b"cache-control", b"public, max-age=31536000, immutable"),)
_MAX_FORM_BYTES: Final = 8_192
_WRONG_KEY_SECONDS: Final = 0.5


class Console:
    """An ASGI app. The pages find it in their request's scope, as `facilitair.console`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sessions = Sessions(settings.api_key)
        self._static = StaticFiles(directory=STATIC)
        self._open = AsyncExitStack()
        self._loading: asyncio.Task[ASGIApp] | None = None
        self._root: Any = None
        self._api: Api | None = None

    @property
    def state(self) -> State:
        found: State = self._root.state.facilitair
        return found

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = Api(self._root, self.settings.api_key)
        return self._api

    async def load(self) -> ASGIApp:
        """NiceGUI with our pages; imported once, however many ask."""
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> ASGIApp:
        pages = await asyncio.to_thread(_import_pages)
        gui: ASGIApp = await self._open.enter_async_context(pages.running())
        return gui

    async def close(self) -> None:
        if self._loading is not None:
            await asyncio.wait([self._loading])
        await self._open.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._root = scope["app"]
        path = scope["path"].removeprefix(PATH)
        if scope["type"] == "http":
            send = _with_headers(send, _LASTING if path.startswith("/static/") else ())
        if not is_own(scope, loopback_only=not self._sessions.needed):
            await _refuse(scope, receive, send)
        elif path.startswith("/static/"):
            await self._static(
                {**scope, "path": path.removeprefix("/static"), "root_path": ""}, receive, send
            )
        elif path in ("/login", "/logout"):
            await (await self._log_in(Request(scope, receive), path))(scope, receive, send)
        elif not self._sessions.holds(Headers(scope=scope)):
            await _to_login(scope, receive, send)
        else:
            gui = await self.load()
            # Its own spans would become the parents of the runs that a page starts.
            quiet = {**scope, "facilitair.console": self, "fastapi.telemetry": None}
            await gui(quiet, receive, send)

    async def _log_in(self, request: Request, path: str) -> Response:
        if path == "/logout" or not self._sessions.needed:
            return RedirectResponse(f"{PATH}/", 303, headers={"set-cookie": forgotten()})
        after = _safe(request.query_params.get("next", ""))
        if request.method != "POST":
            return HTMLResponse(login.page(after))
        if self._sessions.is_key(await _given_key(request)):
            cookie = self._sessions.new(secure=request.url.scheme == "https")
            return RedirectResponse(after, 303, headers={"set-cookie": cookie})
        await asyncio.sleep(_WRONG_KEY_SECONDS)
        return HTMLResponse(login.page(after, wrong=True), 401)


def _import_pages() -> Any:
    # Where NiceGUI would keep what we never ask it to keep: a place where nothing can be.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(Path(os.devnull) / "nicegui"))
    return importlib.import_module("api.console.pages")


def _safe(address: str) -> str:
    """Where to go after the login: a page of the console, whatever the address says."""
    return address if address.startswith(f"{PATH}/") and "\\" not in address else f"{PATH}/"


async def _given_key(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            return ""
    return parse_qs(body.decode(errors="replace")).get("key", [""])[0]


async def _to_login(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    after = quote(scope["path"], safe="/")
    # 303 only where a person reads it: a script that was refused must not take a page for its answer.
    wants_page = "text/html" in Headers(scope=scope).get("accept", "")
    answer = RedirectResponse(f"{PATH}/login?next={after}", 303) if wants_page else Response(status_code=401)
    await answer(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403})
        return
    await Response("Another web page asked; open the console itself.", 403)(scope, receive, send)


def _with_headers(send: Send, more: Sequence[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS, *more]
        await send(message)

    return sending
