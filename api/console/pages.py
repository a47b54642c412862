"""The pages and their addresses. Importing this imports NiceGUI: `mount.py` does it when somebody comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import nicegui
from fastapi import FastAPI, Request
from jinja2 import ChoiceLoader, DictLoader
from nicegui import ui
from nicegui.client import templates
from starlette.types import ASGIApp

from api.console import analytics, definition, definitions, router, run, runs, schedules, tasks
from api.console.layout import Frame
from api.http.run_paths import whole

# A page waits for the API, which may wait for Postgres.
_RECONNECT_TIMEOUT_SECONDS: Final = 30.0
_PAGE: Final[dict[str, Any]] = {"response_timeout": _RECONNECT_TIMEOUT_SECONDS}

# Only what it configures is used: requests are handed on by `mount.py`.
ui.run_with(
    FastAPI(),
    title="Facilitair",
    favicon=None,
    dark=None,
    language="en-US",
    tailwind=False,
    show_welcome_message=False,
    binding_refresh_interval=None,
    reconnect_timeout=10.0,
    message_history_length=200,
)


def _give_nonces() -> None:
    """Give the scripts of NiceGUI's page the nonce of the request. Those of its template only: what is put
    into the template afterwards holds what users wrote."""
    loader = templates.env.loader
    assert loader is not None
    page, _, _ = loader.get_source(templates.env, "index.html")
    own = page.replace("<script", "<script nonce=\"{{ request.scope['facilitair.nonce'] }}\"")
    templates.env.loader = ChoiceLoader([DictLoader({"index.html": own}), loader])


_give_nonces()


@asynccontextmanager
async def running() -> AsyncIterator[ASGIApp]:
    """NiceGUI, started; there is one in a process, however many APIs there are."""
    if nicegui.app.is_started:
        yield nicegui.app
        return
    async with nicegui.app.router.lifespan_context(nicegui.app):
        yield nicegui.app


@ui.page("/", **_PAGE)
async def _runs(request: Request) -> None:
    await runs.show(Frame(request))


@ui.page("/runs/{id}", **_PAGE)
async def _run(request: Request, id: str) -> None:
    await run.show(Frame(request), whole(id))


@ui.page("/tasks", **_PAGE)
async def _tasks(request: Request) -> None:
    await tasks.show(Frame(request))


@ui.page("/definitions", **_PAGE)
async def _definitions(request: Request) -> None:
    await definitions.show(Frame(request))


@ui.page("/definitions/{name}", **_PAGE)
async def _definition(request: Request, name: str) -> None:
    await definition.show(Frame(request), name)


@ui.page("/new", **_PAGE)
async def _new(request: Request) -> None:
    await definition.show_new(Frame(request))


@ui.page("/schedules", **_PAGE)
async def _schedules(request: Request) -> None:
    await schedules.show(Frame(request))


@ui.page("/analytics", **_PAGE)
async def _analytics(request: Request) -> None:
    await analytics.show(Frame(request))


@ui.page("/router", **_PAGE)
async def _router(request: Request) -> None:
    await router.show(Frame(request))
