"""The HTTP door."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import DBAPIError

from api.console.mount import PATH as CONSOLE
from api.console.mount import Console
from api.definitions import catalogue, rehearsal, versions
from api.definitions import routes as definitions_routes
from api.health import routes as health_routes
from api.health.projections import Projections
from api.http import documentation, problems
from api.http.access_log import AccessLog
from api.http.auth import ApiKey, Guard
from api.http.origins import Origins
from api.http.public_address import public_address
from api.http.query_parameters import known_query
from api.http.request_limits import RequestLimits
from api.http.run_paths import RunPaths
from api.http.security_headers import SecurityHeaders
from api.live import chats, sockets, streams
from api.live.readers import Hub
from api.money import limits
from api.money import routes as money_routes
from api.people import routes as people_routes
from api.prompts import routes as prompts_routes
from api.prompts import trials
from api.router import edges, predictions
from api.router import routes as router_routes
from api.runs import analytics, archive, forgetting, forks, graph, routes, schedules, steering, webhooks
from api.state import ApiState, tenant
from api.temporal import Temporal
from db.engine import async_engine
from db.runs.admission import Admission
from db.wakeups import Bell
from schema.cel.expressions import compile_expression
from schema.errors import FacilitairError
from schema.garbage_collection import settle
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
        state = ApiState(
            settings,
            engine,
            Temporal(settings),
            Projections(settings),
            Hub(settings.database_url),
            Admission(engine, settings),
        )
        app.state.facilitair = state
        warming = asyncio.create_task(_warm_up(state))
        async with state.loop_watch.watching():
            yield
        warming.cancel()
        await console.close()
        state.checking.shutdown(wait=False, cancel_futures=True)
        await state.hub.close()
        await state.rehearsing.close()
        await state.projections.close()
        await bell.close()
        await engine.dispose()

    public = public_address(settings)
    key = ApiKey(settings.api_key)
    console = Console(settings, key, public)
    app = FastAPI(
        title="Facilitair",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=documentation.operation_id,
        # Its own spans for every request and dependency would drown those of the runs.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    problems.install(app)
    app.include_router(health_routes.router, include_in_schema=False)
    app.include_router(webhooks.call_router)
    for one in (streams.seed_router, sockets.router, predictions.seed_router):
        app.include_router(one, include_in_schema=False)
    for one in (
        definitions_routes.router,
        definitions_routes.schema_router,
        rehearsal.router,
        versions.router,
        edges.router,
        catalogue.router,
        money_routes.router,
        limits.router,
        routes.router,
        steering.router,
        forks.router,
        schedules.router,
        webhooks.router,
        prompts_routes.router,
        trials.router,
        graph.router,
        people_routes.router,
        archive.router,
        forgetting.router,
        analytics.router,
        router_routes.router,
        router_routes.outcome_router,
        predictions.router,
        health_routes.router,
        streams.router,
        chats.router,
    ):
        app.include_router(one, prefix="/v1", dependencies=[Depends(known_query)])
    # Whatever else the query of the first holds is for the run; the second is no request.
    for one in (streams.seed_router, sockets.router):
        app.include_router(one, prefix="/v1")
    for path in ("/", CONSOLE):
        app.add_route(path, lambda request: RedirectResponse(f"{CONSOLE}/"), include_in_schema=False)
    app.mount(CONSOLE, console)
    documentation.install(app)
    app.add_middleware(RunPaths)
    # The last one added is the outermost: what is refused is logged too, and carries the headers.
    origins = Origins(
        keyed=key.is_set, host=settings.host, public=public, temporal_ui=settings.temporal_ui_url
    )
    app.add_middleware(Guard, origins=origins, key=key)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(AccessLog)
    app.add_middleware(SecurityHeaders, https=public is not None and public.is_https)
    return app


async def _warm_up(state: ApiState) -> None:
    """Load at start what the first requests would otherwise wait for."""
    # Imports hold the interpreter: begun at once, they would keep the port shut for half a second longer.
    await asyncio.sleep(_WARM_UP_AFTER_SECONDS)
    await asyncio.to_thread(compile_expression, "input.a == 1")
    with suppress(FacilitairError):  # when it is away, the first who needs it connects
        await state.temporal.client()
    with suppress(FacilitairError, DBAPIError):
        await state.key_name.of(state, tenant())
    settle()
