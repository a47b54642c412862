"""A/B tests of prompts, and the search for better ones."""

from typing import Any

from fastapi import APIRouter, Request

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.prompts import optimization as prompts_optimization
from api.prompts.models import OptimizeRequest, OptimizeStarted, Trial, TrialArm, TrialRequest
from api.prompts.routes import Name
from api.state import Actor, Connection, Simulated, StateOf, Tenant
from db import audit
from db.prompts import prompts, trials, uses

router = APIRouter(prefix="/prompts/{name}", tags=["prompts"])


@router.post(
    "/trial",
    name="start_trial",
    status_code=201,
    openapi_extra=body_of(TrialRequest),
    responses=errors(404, 409, 413, 415),
)
async def start(
    name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor, simulated: Simulated
) -> Trial:
    """Compare a version with what the bare name means, from the runs on that start now: real ones alone, or
    simulated ones."""
    wanted = await read_json(request, state, TrialRequest)
    async with state.transaction() as connection:
        settings = trials.TrialConfig(**wanted.model_dump())
        trial = await trials.start(connection, tenant, name, settings, actor, simulated=simulated)
        return _told(trial, (await trials.measure(connection, trial)).as_json())


@router.get("/trial", name="read_trial", responses=errors(404))
async def read(name: Name, connection: Connection, tenant: Tenant) -> Trial:
    """The latest trial with its figures: of now, or those that it ended with."""
    trial = await trials.latest(connection, tenant, name)
    if trial.status != "running":
        return _told(trial, trial.verdict)
    return _told(trial, (await trials.measure(connection, trial)).as_json())


@router.post("/trial/look", name="look_at_trial", responses=errors(404))
async def look(name: Name, connection: Connection, tenant: Tenant) -> Trial:
    """End the trial now if it is decided, rather than within a minute. Looking often spoils nothing."""
    trial = await trials.latest(connection, tenant, name)
    if trial.status != "running":
        return _told(trial, trial.verdict)
    trial, reading = await trials.look(connection, trial)
    return _told(trial, reading.as_json())


@router.delete("/trial", name="stop_trial", responses=errors(404))
async def stop(name: Name, connection: Connection, tenant: Tenant, actor: Actor) -> Trial:
    """End the trial; the bare name means what it meant."""
    trial = await trials.stop(connection, tenant, name, actor)
    return _told(trial, trial.verdict)


def _told(trial: trials.PromptTrial, figures: dict[str, Any] | None) -> Trial:
    assert figures is not None  # every trial ends with some
    known = {key: value for key, value in vars(trial).items() if key in Trial.model_fields}
    arms = {arm: TrialArm(version=getattr(trial, arm), **figures[arm]) for arm in ("control", "candidate")}
    rest = {key: figures[key] for key in ("difference", "low", "high", "p")}
    return Trial(**known | {"id": str(trial.id)} | arms | rest)


@router.post(
    "/optimize",
    status_code=202,
    openapi_extra=body_of(OptimizeRequest, optional=True),
    responses=errors(404, 409, 413, 415),
)
async def optimize(
    name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor, simulated: Simulated
) -> OptimizeStarted:
    """Look for better examples in what was judged well. What is found becomes a version, and is put on
    trial; refused below 1,000 judged collaborations."""
    wanted = await read_json(request, state, OptimizeRequest, optional=True)
    async with state.transaction() as connection:
        await prompts.find(connection, tenant, name)
        found = await uses.count(connection, tenant, name, simulated=simulated)
        uses.require_enough(found, name)
        await trials.require_none(connection, tenant, name)
        await audit.append(connection, tenant, actor, "prompt.search", name, budget_usd=wanted.budget_usd)
    id = await prompts_optimization.start(state, tenant, name, wanted, actor, simulated=simulated)
    return OptimizeStarted(name=name, workflow_id=id, state="running")


@router.get("/optimize", responses=errors(404))
async def optimization(name: Name, state: StateOf, tenant: Tenant) -> OptimizeStarted:
    """Return the progress or the result of the latest search."""
    return await prompts_optimization.state_of(state, tenant, name)
