"""The console below /console: the gate before it, and NiceGUI behind it, loaded when it is first needed.

Importing NiceGUI takes a second and a half, which the API's start does not wait for.
"""

import asyncio
import importlib
import os
import secrets
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
from api.console.client import ConsoleApi
from api.console.session import Sessions
from api.http import problems, temporal_codec
from api.http.auth import ApiKey
from api.http.public_address import PublicAddress
from api.state import ApiState, tenant
from schema.errors import TryLater
from schema.settings import Settings

PATH: Final = "/console"
STATIC: Final = Path(__file__).parent / "static"
# NiceGUI compiles Vue's templates and runs what the server tells a page in the browser, hence eval; and its
# elements carry their styles. Its scripts in the page have a nonce, which nothing that users wrote is given.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{more}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# The addresses of our files change with their content.
_LASTING: Final = ((b"cache-control", b"public, max-age=31536000, immutable"),)
_MAX_FORM_BYTES: Final = 8_192


class Console:
    """An ASGI app. The pages find it in their request's scope, as `facilitair.console`."""

    def __init__(self, settings: Settings, key: ApiKey, public: PublicAddress | None) -> None:
        self.settings = settings
        self._key = key
        self._sessions = Sessions(settings.api_key, public)
        self._codec = temporal_codec.Codec(settings)
        self._static = StaticFiles(directory=STATIC)
        self._open = AsyncExitStack()
        self._loading: asyncio.Task[ASGIApp] | None = None
        self._root: Any = None
        self._api: ConsoleApi | None = None

    @property
    def state(self) -> ApiState:
        found: ApiState = self._root.state.facilitair
        return found

    @property
    def api(self) -> ConsoleApi:
        if self._api is None:
            self._api = ConsoleApi(self._root, self.settings.api_key)
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
        if path.startswith("/static/"):
            file = {**scope, "path": path.removeprefix("/static"), "root_path": ""}
            await self._static(file, receive, _with_headers(send, _policy(), _LASTING))
        elif path in ("/login", "/logout") and scope["type"] == "http":
            answer = await (self._log_in if path == "/login" else self._log_out)(Request(scope, receive))
            await answer(scope, receive, _with_headers(send, _policy()))
        elif path in temporal_codec.PATHS and scope["type"] == "http":
            await (await self._codec_answer(Request(scope, receive), path))(scope, receive, send)
        elif not self._sessions.needed:
            await self._show(scope, receive, send)
        elif session := await self._sessions.of(self.state, Headers(scope=scope)):
            await self._show_until_end(session, scope, receive, send)
        else:
            await _to_login(scope, receive, _with_headers(send, _policy()))

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        gui = await self.load()
        nonce = secrets.token_urlsafe(16)
        # Its own spans would become the parents of the runs that a page starts.
        quiet = {**scope, "facilitair.console": self, "facilitair.nonce": nonce, "fastapi.telemetry": None}
        await gui(quiet, receive, _with_headers(send, _policy(f" 'nonce-{nonce}' 'unsafe-eval'")))

    async def _show_until_end(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Show a page, whose line is cut when the session is over: signing out leaves no page behind."""
        if scope["type"] != "websocket":
            await self._show(scope, receive, send)
            return
        showing = asyncio.create_task(self._show(scope, receive, send))
        ending = asyncio.create_task(self._sessions.wait_for_end(self.state, session))
        try:
            await asyncio.wait((showing, ending), return_when=asyncio.FIRST_COMPLETED)
            if showing.done():
                showing.result()
            else:
                await send({"type": "websocket.close", "code": 4401})
        finally:
            for task in (showing, ending):
                task.cancel()
            await asyncio.gather(showing, ending, return_exceptions=True)

    async def _codec_answer(self, request: Request, path: str) -> Response:
        if request.method == "OPTIONS":
            return self._codec.preflight()
        if request.method != "POST":
            return Response("Ask by POST.", 405, {"allow": "POST, OPTIONS"})
        if self._sessions.needed and not await self._sessions.of(self.state, request.headers):
            return self._codec.refusal(401, "Sign in to the console first.")
        return await self._codec.answer(request, path)

    async def _log_in(self, request: Request) -> Response:
        if not self._sessions.needed:
            return RedirectResponse(f"{PATH}/", 303)
        after = _safe(request.query_params.get("next", ""))
        if request.method != "POST":
            return HTMLResponse(login.page(after))
        refused = self._key.refusal(request.scope, (await _given_key(request)).strip())
        if refused is None:
            cookie = await self._sessions.open(self.state, tenant())
            return RedirectResponse(after, 303, headers={"set-cookie": cookie})
        again = HTMLResponse(login.page(after, wrong=refused), problems.status_of(refused))
        if isinstance(refused, TryLater):
            again.headers["retry-after"] = str(refused.retry_after_seconds)
        return again

    async def _log_out(self, request: Request) -> Response:
        if request.method != "POST":
            return Response("Sign out by the button.", 405, {"allow": "POST"})
        cookie = await self._sessions.end(self.state, request.headers)
        return RedirectResponse(f"{PATH}/", 303, headers={"set-cookie": cookie})


def _import_pages() -> Any:
    # Where NiceGUI would keep what we never ask it to keep: a place where nothing can be.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(Path(os.devnull) / "nicegui"))
    return importlib.import_module("api.console.pages")


def _safe(address: str) -> str:
    """Return the page to open after the login: always one of the console, whatever the address says."""
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


def _policy(more: str = "") -> bytes:
    """Return the policy of a page, `more` being what its scripts may do beyond coming from our own files."""
    return _POLICY.format(more=more).encode()


def _with_headers(send: Send, policy: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", policy), *more]
        await send(message)

    return sending
