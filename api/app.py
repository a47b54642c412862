"""The HTTP door."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse

from api import problems
from api.access_log import AccessLog
from api.auth import Guard
from api.console.mount import PATH as CONSOLE
from api.console.mount import Console
from api.endpoints import (
    analytics,
    archive,
    catalogue,
    collaborations,
    definitions,
    edges,
    forks,
    graph,
    health,
    hooks,
    predictions,
    prompts,
    rehearsal,
    router,
    schedules,
    sockets,
    spending,
    steering,
    streams,
    tasks,
    trials,
    versions,
)
from api.live import Hub
from api.projections import Projections
from api.state import State
from api.temporal import Temporal
from db.engine import async_engine
from db.wakeups import Bell
from schema.collector import settle
from schema.errors import FacilitairError
from schema.expressions import compile_expression
from schema.settings import Settings

_WARM_UP_AFTER_SECONDS = 0.2
_DESCRIPTION = (
    "A multi-agent collaboration is a JSON document: upload it, start it, watch it. "
    "Errors are RFC 9457 problem documents with a stable `code`."
)


def create_app(settings: Settings) -> FastAPI:
    """The application. It starts and answers /health/live whatever else is away."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        bell = Bell(settings.database_url)
        engine = async_engine(settings.database_url, pre_ping=True, bell=bell)
        state = State(settings, engine, Temporal(settings), Projections(settings), Hub(settings.database_url))
        app.state.facilitair = state
        warming = asyncio.create_task(_warm_up(state))
        yield
        warming.cancel()
        await console.close()
        state.checking.shutdown(wait=False, cancel_futures=True)
        await state.hub.close()
        await state.rehearsing.close()
        await state.projections.close()
        await bell.close()
        await engine.dispose()

    console = Console(settings)
    app = FastAPI(
        title="Facilitair", version="1", description=_DESCRIPTION, lifespan=lifespan, redoc_url=None,
        redirect_slashes=False,
        # Its own spans for every request and dependency would drown those of the runs.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )  # fmt: skip
    problems.install(app)
    app.include_router(health.router, include_in_schema=False)
    app.include_router(hooks.call_router)
    for one in (streams.seed_router, sockets.router, predictions.seed_router):
        app.include_router(one, include_in_schema=False)
    for one in (
        definitions.router, definitions.schema_router, rehearsal.router, versions.router,
        edges.router, catalogue.router, spending.router,
        collaborations.router, steering.router, forks.router, schedules.router, hooks.router,
        prompts.router, trials.router, graph.router, tasks.router, archive.router, analytics.router,
        router.router, router.outcome_router, predictions.router,
        health.router, streams.router, streams.seed_router, sockets.router,
    ):  # fmt: skip
        app.include_router(one, prefix="/v1")
    for path in ("/", CONSOLE):
        app.add_route(path, lambda request: RedirectResponse(f"{CONSOLE}/"), include_in_schema=False)
    app.mount(CONSOLE, console)
    # The last one added is the outermost: what is refused is logged too.
    app.add_middleware(Guard, api_key=settings.api_key)
    app.add_middleware(AccessLog)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _warm_up(state: State) -> None:
    """What the first requests would otherwise wait for."""
    # Imports hold the interpreter: begun at once, they would keep the port shut for half a second longer.
    await asyncio.sleep(_WARM_UP_AFTER_SECONDS)
    await asyncio.to_thread(compile_expression, "input.a == 1")
    with suppress(FacilitairError):  # when it is away, the first who needs it connects
        await state.temporal.client()
    settle()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = schema.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        document = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= document.pop("$defs") | {"ProblemDocument": document}
        for operation in (one for methods in schema["paths"].values() for one in methods.values()):
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schemas |= body["schema"].pop("$defs", {})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"header": []}, {}]
        app.openapi_schema = schema
    return app.openapi_schema
