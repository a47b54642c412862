"""The frame of all pages: bar, theme, keyboard, and the connection between a page and this process.

A page is HTML that is sent once. Later changes reach it by `call`; a person's actions come back as events
with a `do`, to the handler that `on` registered.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from nicegui import background_tasks, ui
from nicegui.events import GenericEventArguments

from api.console.assets import head
from api.console.client import ApiFault, ConsoleApi
from api.console.html import for_js, text
from api.state import ApiState

Handler = Callable[[dict[str, Any]], Awaitable[None]]

_log = logging.getLogger("facilitair.console")

_PAGES: Final = (
    ("runs", "Runs", "/console/", "g r"),
    ("tasks", "Tasks", "/console/tasks", "g t"),
    ("definitions", "Definitions", "/console/definitions", "g d"),
    ("schedules", "Schedules", "/console/schedules", "g s"),
    ("analytics", "Analytics", "/console/analytics", "g a"),
    ("router", "Router", "/console/router", "g o"),
)
_KEYS: Final = (
    ("/", "Search"),
    ("g r", "Runs"),
    ("g t", "Tasks"),
    ("g d", "Definitions"),
    ("g s", "Schedules"),
    ("g a", "Analytics"),
    ("g o", "Router"),
    ("n", "Start a run"),
    ("p", "Pause or resume the run"),
    ("t", "Tell the run something"),
    ("← ↑ → ↓", "Move in the diagram"),
    ("Enter", "Open the step"),
    ("Esc", "Close"),
    ("?", "These keys"),
)


class Frame:
    """One page that somebody has open."""

    def __init__(self, request: Request) -> None:
        console = request.scope["facilitair.console"]
        self.client = ui.context.client
        self.api: ConsoleApi = console.api
        self.state: ApiState = console.state
        self.query = dict(request.query_params)
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keyed = bool(console.settings.api_key)
        ui.on("fc", self._heard)
        self.client.on_delete(self._end)

    def show(self, title: str, page: str, main: str, *scripts: str) -> None:
        """Send the page. `main` is HTML, and everything in it that others wrote is escaped."""
        ui.page_title(f"{title} · Facilitair")
        ui.add_head_html(head("console.js", *scripts))
        ui.add_body_html(_bar(page, self._keyed) + f'<main id="main" tabindex="-1">{main}</main>' + _help())
        self.client.on_connect(lambda: self.call("ready"))

    def on(self, do: str, handler: Handler) -> None:
        self._handlers[do] = handler

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of `fc` in the browser."""
        self.client.run_javascript(f"fc.{name}({','.join(map(for_js, arguments))})")

    def toast(self, message: str, tone: str = "good") -> None:
        self.call("toast", message, tone)

    def go(self, address: str) -> None:
        self.call("go", address)

    def when_connected(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something for as long as the page is open, once its browser has come."""

        def begin() -> None:
            if not self._tasks:
                self._tasks.add(background_tasks.create(_quietly(work()), name="console page"))

        self.client.on_connect(begin)

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _heard(self, event: GenericEventArguments) -> None:
        facts = event.args if isinstance(event.args, dict) else {}
        handler = self._handlers.get(str(facts.get("do")))
        if handler is None:
            return
        try:
            await handler(facts)
        except ApiFault as fault:
            self.toast(str(fault), "bad")
        except (KeyError, TypeError, ValueError):
            _log.warning("Console page sent an invalid event", exc_info=True, extra={"do": facts.get("do")})
        finally:
            if facts.get("ask"):
                self.call("answered", facts["ask"])


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        _log.warning("Console page stopped", exc_info=True)


def missing(frame: Frame, fault: ApiFault, page: str) -> None:
    """A page for what is not there."""
    back = next(address for id, _, address, _ in _PAGES if id == page)
    frame.show(
        "Not found",
        page,
        f'<div class="empty"><h1>{text(fault.code.replace("_", " ").capitalize())}</h1>'
        f'<p>{text(fault.message)}</p><p><a class="button" href="{back}">Back</a></p></div>',
    )


def _bar(active: str, keyed: bool) -> str:
    links = "".join(
        f'<a href="{address}" title="{name} ({keys})"'
        f"{' aria-current=page' if id == active else ''}>{name}</a>"
        for id, name, address, keys in _PAGES
    )
    leave = (
        '<form method="post" action="/console/logout"><button class="quiet">Sign out</button></form>'
        if keyed
        else ""
    )
    return f"""<a class="skip" href="#main">Skip to content</a>
<header class="bar"><a class="brand" href="/console/" aria-label="Facilitair, all runs">
<span class="logo" aria-hidden="true"></span><span>Facilitair</span></a>
<nav aria-label="Pages">{links}</nav>
<div class="side"><span id="line" class="line" role="status"></span>
<button class="quiet icon" id="keys-button" aria-label="Keyboard shortcuts" title="Keyboard shortcuts
(?)">?</button>
<button class="quiet icon" id="theme-button" aria-label="Theme">◐</button>{leave}</div></header>"""


def _help() -> str:
    rows = "".join(f"<dt><kbd>{text(keys)}</kbd></dt><dd>{text(what)}</dd>" for keys, what in _KEYS)
    return f"""<dialog id="keys" aria-label="Keyboard shortcuts"><form method="dialog">
<h2>Keyboard shortcuts</h2><dl class="keys">{rows}</dl>
<div class="row end"><button>Close</button></div></form></dialog>
<div id="toasts" role="status" aria-live="polite"></div>"""
