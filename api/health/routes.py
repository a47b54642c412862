"""Is the process up; can it do its work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from sqlalchemy import text

from api.http.problems import errors
from api.http.shared_models import Check, Live, ProjectionLag, Ready
from api.state import ApiState, StateOf, Tenant
from db.router import checkpoints
from db.runs import simulation
from schema.errors import FacilitairError, Unavailable

router = APIRouter(prefix="/health", tags=["health"])

_SERVER_TIMEOUT_SECONDS: Final = 3.0


@router.get("/live", responses=errors())
async def live() -> Live:
    """The process answers. Nothing else is asked."""
    return Live()


_AWAY: Final[dict[int | str, dict[str, Any]]] = errors() | {
    503: {"model": Ready, "description": "A required server is away."}
}


@router.get("", name="all", responses=_AWAY)
@router.get("/ready", responses=_AWAY)
async def ready(state: StateOf, response: Response, tenant: Tenant) -> Ready:
    """Postgres and Temporal answer. The graph, the memory and the router's checkpoint are told of and not
    waited for. The answer may be a second old."""
    found = await state.readiness.of(tenant, partial(_ready, state, tenant))
    if not found.ready:
        response.status_code = 503
    return found


async def _ready(state: ApiState, tenant: str) -> Ready:
    checks: dict[str, tuple[bool, Callable[[ApiState], Awaitable[str]]]] = {
        "postgres": (True, _postgres),
        "temporal": (True, _temporal),
        "neo4j": (False, _neo4j),
        "weaviate": (False, _weaviate),
        # Without a checkpoint that can be asked, rules decide.
        "router": (False, partial(_router, tenant=tenant)),
        # What has begun goes on and everything can be read; only new runs are refused.
        "disk": (False, _disk),
    }
    results = await asyncio.gather(*(_check(ask, state, required) for required, ask in checks.values()))
    found = dict(zip(checks, results, strict=True))
    return Ready(ready=all(check.ok for check in results if check.required), checks=found)


@router.get("/projections", responses=errors())
async def projections(state: StateOf) -> dict[str, ProjectionLag]:
    """Return how far graph and memory lag behind. No run ever waits for them."""
    lags = await state.projections.lags(state.engine)
    return {name: ProjectionLag(**vars(lag)) for name, lag in lags.items()}


async def _check(ask: Callable[[ApiState], Awaitable[str]], state: ApiState, required: bool) -> Check:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_SERVER_TIMEOUT_SECONDS):
            detail, ok = await ask(state), True
    except TimeoutError:
        detail, ok = f"no answer within {_SERVER_TIMEOUT_SECONDS:g} s", False
    except FacilitairError as error:
        detail, ok = error.message, False
    except Exception as error:
        # By kind only: a driver's message may hold the password of its URL.
        detail, ok = f"does not answer ({type(error).__name__})", False
    milliseconds = round((time.perf_counter() - began) * 1000, 1)
    return Check(ok=ok, required=required, milliseconds=milliseconds, detail=detail)


async def _postgres(state: ApiState) -> str:
    async with state.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return ""


async def _router(state: ApiState, tenant: str) -> str:
    async with state.transaction() as connection:
        wanted = await checkpoints.serving(
            connection, tenant, simulated=await simulation.only(connection, tenant)
        )
    serving = next((one for one in wanted if one.state == "all"), None)
    if serving is None:
        return "rules decide"
    if broken := state.predicting.held(serving.id)["broken"]:
        raise Unavailable("checkpoint_broken", f"{broken}; rules decide in its place.")
    return f"checkpoint {serving.number} decides"


async def _disk(state: ApiState) -> str:
    state.disk.require_room()
    return ""


async def _temporal(state: ApiState) -> str:
    await state.temporal.check()
    return ""


async def _neo4j(state: ApiState) -> str:
    await _connect(state.settings.neo4j_uri, 7687)
    return ""


async def _weaviate(state: ApiState) -> str:
    await _connect(state.settings.weaviate_url, 8080)
    return ""


async def _connect(url: str, default_port: int) -> None:
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname or "127.0.0.1", parts.port or default_port)
    writer.close()
