"""Start collaborations by the clock."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.http.audited_acts import audited
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.http.shared_models import ScheduleDetail, SchedulePage, ScheduleRequest
from api.runs import starts
from api.runs.schedule_service import Schedules, check
from api.state import Actor, ApiState, StateOf, Tenant
from db.money import usage
from schema.errors import Refused

router = APIRouter(prefix="/schedules", tags=["schedules"])

Id = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$", examples=["daily-report-k3p7q2xa"])]


@router.post(
    "", status_code=201, openapi_extra=body_of(ScheduleRequest), responses=errors(404, 409, 413, 415)
)
async def create(
    request: Request, response: Response, state: StateOf, tenant: Tenant, actor: Actor
) -> ScheduleDetail:
    """Start a collaboration again and again. The name is looked up anew for each run."""
    wanted = await read_json(request, state, ScheduleRequest)
    warnings = check(wanted, state.settings.min_schedule_seconds)
    warnings += await starts.check(state, tenant, wanted.name, wanted.input)
    id = starts.new_id(wanted.name)
    schedules = Schedules(state.temporal, tenant)
    async with audited(state, tenant, actor, "schedule.create", id, definition=wanted.name):
        await _take_place(state, tenant, schedules)
        try:
            await schedules.create(id, wanted, actor, await state.naming())
        except BaseException:
            await _give_back(state, tenant)
            raise
    response.headers["Location"] = f"/v1/schedules/{id}"
    return (await schedules.read(id)).model_copy(update={"warnings": warnings})


@router.get("", responses=errors())
async def list_schedules(
    state: StateOf,
    tenant: Tenant,
    after: Annotated[str, Query(max_length=200, description="The `next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SchedulePage:
    """The schedules, in the order of ids. A change may show a second later."""
    return await Schedules(state.temporal, tenant).page(after, limit)


@router.get("/{id}", responses=errors(404))
async def read(id: Id, state: StateOf, tenant: Tenant) -> ScheduleDetail:
    """One schedule: when it starts next, and what it has started."""
    return await Schedules(state.temporal, tenant).read(id)


@router.post("/{id}/pause", responses=errors(404))
async def pause(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> ScheduleDetail:
    """Start nothing until it is resumed."""
    schedules = Schedules(state.temporal, tenant)
    async with audited(state, tenant, actor, "schedule.pause", id):
        await schedules.pause(id, actor)
    return await schedules.read(id)


@router.post("/{id}/resume", responses=errors(404))
async def resume(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> ScheduleDetail:
    """Go on. What was missed while it was paused is not made up for."""
    schedules = Schedules(state.temporal, tenant)
    async with audited(state, tenant, actor, "schedule.resume", id):
        await schedules.resume(id, actor)
    return await schedules.read(id)


@router.post("/{id}/run", status_code=202, responses=errors(404))
async def run(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> ScheduleDetail:
    """Start a run now as well; `overlap` holds for it too. It shows among `recent` a moment later."""
    schedules = Schedules(state.temporal, tenant)
    async with audited(state, tenant, actor, "schedule.run", id):
        await schedules.run(id)
    return await schedules.read(id)


@router.delete("/{id}", status_code=204, responses=errors(404))
async def remove(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> None:
    """Start nothing any more. Runs that are under way go on."""
    async with audited(state, tenant, actor, "schedule.remove", id):
        await Schedules(state.temporal, tenant).remove(id)
    await _give_back(state, tenant)


async def _take_place(state: ApiState, tenant: str, schedules: Schedules) -> None:
    """Count one schedule more before it is made, so that many at once stay within the limit.

    Who removes one in Temporal itself is not heard of here: where there seems to be no room, or none was
    counted yet, Temporal's own list says what there is. It is behind for a moment, so that it is asked only
    when the last change is a minute old. Raises Refused("too_many_schedules").
    """
    most = state.settings.max_schedules
    async with state.transaction() as connection:
        if await usage.take_place(connection, tenant, "schedules", most):
            return
        settled = await usage.is_settled(connection, tenant, "schedules")
    if settled:
        there = await schedules.count()
        async with state.transaction() as connection:
            await usage.correct(connection, tenant, "schedules", there)
            if await usage.take_place(connection, tenant, "schedules", most):
                return
    raise Refused(
        "too_many_schedules",
        f"found {most:,} schedules; expected fewer before another is made (FACILITAIR_MAX_SCHEDULES). "
        "Remove some: `facilitair schedule list`.",
    )


async def _give_back(state: ApiState, tenant: str) -> None:
    async with state.transaction() as connection:
        await usage.add(connection, tenant, "schedules", -1)
