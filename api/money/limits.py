"""Limits of a tenant other than money, and their use."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.http.problems import errors
from api.state import Connection, StateOf, Tenant
from db.money import usage
from db.runs import collaborations, webhooks
from db.runs.admission import STARTS
from schema.settings import Settings

router = APIRouter(tags=["spending"])


class Bound(BaseModel):
    """A limit of the installation, which holds for each tenant."""

    name: str = Field(examples=["running_runs"])
    setting: str = Field(description="The environment variable that sets it.")
    limit: float
    used: int | None = Field(description="By the tenant now; null where each run or trigger has its own.")
    about: str


class Bounds(BaseModel):
    items: list[Bound]


_ABOUT = (
    ("starts_per_minute", "runs started a minute, and at once after a quiet minute, through all doors"),
    ("running_runs", "runs under way at the same time, sub-collaborations included"),
    ("sub_collaborations", "sub-collaborations after one start, those within each other included"),
    ("schedules", "schedules"),
    ("schedule_seconds", "the shortest time between two starts that a schedule may ask for"),
    ("overlapping_runs", "runs of one schedule that are under way at the same time"),
    ("webhooks", "webhooks"),
    ("webhook_calls_per_minute", "calls of one webhook a minute"),
    ("definition_bytes", "bytes of all stored versions of definitions"),
)


@router.get("/bounds", responses=errors())
async def read(connection: Connection, state: StateOf, tenant: Tenant) -> Bounds:
    """Return the tenant's limits on runs, schedules, webhooks and definitions, and their use."""
    settings = state.settings
    known = await usage.of_tenant(connection, tenant)
    used = {
        "starts_per_minute": await usage.taken_tokens(
            connection, tenant, STARTS, settings.max_starts_per_minute
        ),
        "running_runs": await collaborations.count_running(connection, tenant, settings.max_running_runs),
        "schedules": known.get("schedules", 0),
        "webhooks": await webhooks.count(connection, tenant),
        "definition_bytes": known.get("definition_bytes", 0),
    }
    return Bounds(items=[_bound(settings, name, about, used.get(name)) for name, about in _ABOUT])


def _bound(settings: Settings, name: str, about: str, used: int | None) -> Bound:
    field = f"min_{name}" if name == "schedule_seconds" else f"max_{name}"
    setting = Settings.model_fields[field].alias or field.upper()
    return Bound(name=name, setting=setting, limit=getattr(settings, field), used=used, about=about)
