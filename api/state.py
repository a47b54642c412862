"""Per-request dependencies: connections, tenant, caller."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.requests import HTTPConnection

from api.definitions.rehearsal_process import RehearsalProcess
from api.health.projections import Projections
from api.health.readiness import Readiness
from api.health.router_metrics import RouterMetrics
from api.health.run_metrics import RunMetrics
from api.http.key_name import KeyName
from api.live.readers import Hub
from api.router.prediction_service import PredictionService
from api.temporal import Temporal
from db import secrets
from db.engine import transaction
from db.loop_watch import LoopWatch
from db.runs.admission import Admission
from db.runs.simulation import only
from infra.disk import Disk
from schema.settings import Settings


@dataclass
class ApiState:
    """Made once per process, in the lifespan of the app."""

    settings: Settings
    engine: AsyncEngine
    temporal: Temporal
    projections: Projections
    hub: Hub
    admission: Admission
    # Checking a hostile upload takes up to 100 ms of pure computation; health must answer meanwhile.
    checking: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "checking"))

    rehearsing: RehearsalProcess = field(default_factory=RehearsalProcess)
    predicting: PredictionService = field(default_factory=PredictionService)
    router_metrics: RouterMetrics = field(default_factory=RouterMetrics)
    run_metrics: RunMetrics = field(default_factory=RunMetrics)
    key_name: KeyName = field(default_factory=KeyName)
    readiness: Readiness = field(default_factory=Readiness)
    loop_watch: LoopWatch = field(default_factory=lambda: LoopWatch("api"))
    _naming: bytes = b""

    @property
    def disk(self) -> Disk:
        return Disk(self.settings.data, self.settings.disk_reserve_mib)

    async def naming(self) -> bytes:
        """The secret that ids are derived with: the same in every process of the platform."""
        if not self._naming:
            async with self.transaction() as connection:
                self._naming = await secrets.find(connection, secrets.NAMING)
        return self._naming

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return transaction(self.engine)


def state(request: HTTPConnection) -> ApiState:
    found: ApiState = request.app.state.facilitair
    return found


def tenant() -> str:
    """Return the tenant whose data a request sees. One tenant until keys name theirs; every query takes it
    from here."""
    return "default"


async def actor(request: HTTPConnection) -> str:
    """Return the name under which the caller stands in the audit log."""
    found = state(request)
    return await found.key_name.of(found, tenant())


async def simulated(
    request: HTTPConnection,
    simulated: Annotated[
        bool | None,
        Query(
            description="true: of simulated runs alone; false: of real ones alone. Absent: of real ones from "
            "the first call of a provider on. The two are never mixed."
        ),
    ] = None,
) -> bool:
    """Return whether what a request is about are simulated runs."""
    if simulated is not None:
        return simulated
    async with state(request).transaction() as found:
        return await only(found, tenant())


async def connection(request: HTTPConnection) -> AsyncIterator[AsyncConnection]:
    """One transaction around the whole request."""
    async with state(request).transaction() as found:
        yield found


StateOf = Annotated[ApiState, Depends(state)]
Tenant = Annotated[str, Depends(tenant)]
Actor = Annotated[str, Depends(actor)]
Simulated = Annotated[bool, Depends(simulated)]
# Committed before the answer is sent, so that who reads it finds what it says.
Connection = Annotated[AsyncConnection, Depends(connection, scope="function")]
