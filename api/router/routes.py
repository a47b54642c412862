"""The router: who decides, its checkpoints and trainings, and what people say of answers."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from api.http import cursors
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.router import facts, learning
from api.router.models import (
    CheckpointFact,
    CheckpointPage,
    OutcomeRequest,
    OutcomeTold,
    PromoteCheckpoint,
    RollbackRequest,
    RouterStatus,
    TrainingFact,
    TrainingPage,
    TrainingRequest,
    TrainingStarted,
)
from api.runs.routes import Id
from api.state import Actor, Connection, Simulated, StateOf, Tenant
from db.router import checkpoints, outcomes, quarantines, trainings
from db.runs import collaborations
from schema.errors import NotFound
from schema.language.steps import STEP_PATH

router = APIRouter(prefix="/router", tags=["router"])
outcome_router = APIRouter(tags=["router"])

Limit = Annotated[int, Query(ge=1, le=200)]
OfKind = Annotated[
    bool | None, Query(description="Only those of simulated runs, or only those of real ones.")
]
CONTENT_TYPE: Final = "application/octet-stream"


@router.get("", responses=errors())
async def status(connection: Connection, tenant: Tenant, simulated: Simulated) -> RouterStatus:
    """Return the serving checkpoint, its challenger, their freshness, quarantined models and the latest
    trainings."""
    return await facts.status(connection, tenant, simulated=simulated)


@router.get("/checkpoints", responses=errors())
async def list_checkpoints(
    connection: Connection,
    tenant: Tenant,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="The `next` of the page before.")
    ] = None,
    limit: Limit = 50,
    simulated: OfKind = None,
) -> CheckpointPage:
    """Checkpoints that were put to work, the newest first; each says what it has learned from."""
    found = await checkpoints.page(connection, tenant, before=before, limit=limit + 1, simulated=simulated)
    items = [facts.checkpoint(one) for one in found[:limit]]
    return CheckpointPage(items=items, next=items[-1].number if len(found) > limit else None)


@router.get("/checkpoints/{number}", responses=errors(404))
async def read_checkpoint(
    number: Annotated[int, Path(ge=1, le=2**31 - 1)], connection: Connection, tenant: Tenant
) -> CheckpointFact:
    """One checkpoint, and what made it."""
    return facts.checkpoint(await checkpoints.find(connection, tenant, number))


@router.get(
    "/checkpoints/{number}/content",
    responses=errors(404) | {200: {"content": {CONTENT_TYPE: {}}}},
    response_class=Response,
)
async def read_content(
    number: Annotated[int, Path(ge=1, le=2**31 - 1)], connection: Connection, tenant: Tenant
) -> Response:
    """Return a checkpoint's content as bytes; its sha256 is the ETag.

    `facilitair router evaluate --data DIR --checkpoint FILE` judges it on other outcomes.
    """
    found = await checkpoints.find(connection, tenant, number)
    content = await checkpoints.content(connection, found.id)
    return Response(content, media_type=CONTENT_TYPE, headers={"ETag": f'"{found.sha256}"'})


@router.post(
    "/trainings",
    status_code=202,
    openapi_extra=body_of(TrainingRequest, optional=True),
    responses=errors(409, 413, 415),
)
async def train(
    request: Request, state: StateOf, tenant: Tenant, actor: Actor, simulated: Simulated
) -> TrainingStarted:
    """Learn from all outcomes until now. What comes of it enters in shadow, or is refused with the reason."""
    wanted = await read_json(request, state, TrainingRequest, optional=True)
    return await learning.start(state, tenant, wanted, actor, simulated=simulated)


@router.get("/trainings", responses=errors())
async def list_trainings(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str | None, cursors.query(cursors.MOMENT_AND_ID)] = None,
    limit: Limit = 50,
    simulated: OfKind = None,
) -> TrainingPage:
    """Every time that the router learned, or tried to, the newest first."""
    place = cursors.moment_and_id(after) if after else None
    found = await trainings.page(connection, tenant, after=place, limit=limit + 1, simulated=simulated)
    page = found[:limit]
    more = cursors.encode_moment(page[-1].started_at, page[-1].id) if len(found) > limit else None
    return TrainingPage(items=[facts.training(one) for one in page], next=more)


@router.get("/trainings/{id}", responses=errors(404))
async def read_training(id: UUID, connection: Connection, tenant: Tenant) -> TrainingFact:
    """One training: its data, its curve by epoch, and its verdict."""
    return facts.training(await trainings.find(connection, tenant, id))


@router.post("/promote", openapi_extra=body_of(PromoteCheckpoint), responses=errors(404, 409, 413, 415))
async def promote(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> CheckpointFact:
    """Let a checkpoint serve more, before the evidence says so: shadow to a share, a share to all."""
    wanted = await read_json(request, state, PromoteCheckpoint)
    async with state.transaction() as connection:
        return facts.checkpoint(await checkpoints.promote(connection, tenant, wanted.number, actor))


@router.post(
    "/rollback", openapi_extra=body_of(RollbackRequest, optional=True), responses=errors(409, 413, 415)
)
async def roll_back(
    request: Request, state: StateOf, tenant: Tenant, actor: Actor, simulated: Simulated
) -> RouterStatus:
    """Roll back the serving checkpoint, or its challenger while rules decide: the previous one serves again,
    else rules."""
    wanted = await read_json(request, state, RollbackRequest, optional=True)
    async with state.transaction() as connection:
        reason = wanted.reason or f"by {actor}"
        await checkpoints.roll_back(connection, tenant, reason, actor, simulated=simulated)
        return await facts.status(connection, tenant, simulated=simulated)


@router.delete("/quarantines/{model:path}", responses=errors(404))
async def lift_quarantine(
    model: Annotated[str, Path(description="As `quarantines` of the router's status names it.")],
    connection: Connection,
    tenant: Tenant,
    actor: Actor,
    simulated: Simulated,
) -> RouterStatus:
    """Let a quarantined model be chosen again, before its time is over."""
    if not await quarantines.lift(connection, tenant, model, actor, simulated=simulated):
        raise NotFound(
            "quarantine_unknown",
            f"found no quarantine of {model!r}; expected one that `facilitair router status` lists.",
        )
    return await facts.status(connection, tenant, simulated=simulated)


@outcome_router.post(
    "/collaborations/{id}/steps/{step}/outcome",
    openapi_extra=body_of(OutcomeRequest),
    responses=errors(404, 413, 415),
)
async def tell_outcome(
    id: Id,
    step: Annotated[str, Path(pattern=STEP_PATH, examples=["review", "per_file[17].review"])],
    request: Request,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
) -> OutcomeTold:
    """Say how good an agent's answer was. It goes before what the run itself tells; the last word counts."""
    wanted = await read_json(request, state, OutcomeRequest)
    async with state.transaction() as connection:
        run = await collaborations.find(connection, tenant, id)
        execution = await outcomes.tell(connection, tenant, run.uuid, step, wanted.ok, actor, wanted.note)
    return OutcomeTold(execution=str(execution), ok=wanted.ok, note=wanted.note)
