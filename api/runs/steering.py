"""Routes that steer a running collaboration: pause, resume, feedback, adjust; stop is another word for
cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.http.shapes import NOT_BLANK
from api.http.shared_models import Accepted
from api.runs import routes, starts
from api.runs.routes import Id
from api.runs.steering_service import Action, steer_run
from api.state import Actor, ApiState, StateOf, Tenant
from schema.language.steps import STEP_ID
from schema.rules.steering import MAX_FEEDBACK_CHARS
from schema.temporal.runs import Steer

router = APIRouter(prefix="/collaborations", tags=["collaborations"])

_Actor = Annotated[
    str | None,
    Field(
        pattern=r"^user:[^\x00-\x1f]{1,200}$",
        description="Who steers, when the caller speaks for somebody. Absent: the caller.",
    ),
]
_Agent = Annotated[str | None, Field(max_length=63, description="One of the definition's `agents`.")]


class SteerRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    actor: _Actor = None


class FeedbackRequest(SteerRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Prefer the standard library."}]})

    text: str = Field(
        max_length=MAX_FEEDBACK_CHARS,
        description="What every later prompt of the run holds.",
        json_schema_extra=NOT_BLANK,
    )
    step: Annotated[str, Field(pattern=STEP_ID)] | None = Field(
        default=None, description="Only the prompts of this step hold it."
    )
    agent: _Agent = None


class Changes(BaseModel):
    """Changes to an agent; null takes a change back, an absent field stays."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    model: str | None = Field(default=None, max_length=200, description="provider/model")
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    system: str | None = Field(default=None, max_length=100_000, description="The system prompt.")


class AdjustRequest(SteerRequest):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "coder", "changes": {"model": "openai/gpt-4o"}}]}
    )

    agent: _Agent = None
    changes: Changes = Field(description="For every agent, where `agent` names none.")


@router.post(
    "/{id}/pause", openapi_extra=body_of(SteerRequest, optional=True), responses=errors(404, 409, 413, 415)
)
async def pause(id: Id, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """Let nothing new begin. What is under way goes on to its end. The body may be empty."""
    return await _steer(state, tenant, actor, id, "pause", await _for_whom(request, state))


@router.post(
    "/{id}/resume", openapi_extra=body_of(SteerRequest, optional=True), responses=errors(404, 409, 413, 415)
)
async def resume(id: Id, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """End a pause. The body may be empty."""
    return await _steer(state, tenant, actor, id, "resume", await _for_whom(request, state))


@router.post("/{id}/feedback", openapi_extra=body_of(FeedbackRequest), responses=errors(404, 409, 413, 415))
async def feedback(id: Id, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """Tell a run something that its very next prompt holds, and every later one."""
    told = await read_json(request, state, FeedbackRequest)
    steer = Steer(told.actor or "", told.text, told.step or "", told.agent or "")
    return await _steer(state, tenant, actor, id, "inject_feedback", steer)


@router.post("/{id}/adjust", openapi_extra=body_of(AdjustRequest), responses=errors(404, 409, 413, 415))
async def adjust(id: Id, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """Ask an agent otherwise from the next call on: another model, temperature, limit or system prompt."""
    wanted = await read_json(request, state, AdjustRequest)
    changes: dict[str, Any] = wanted.changes.model_dump(exclude_unset=True)
    steer = Steer(wanted.actor or "", agent=wanted.agent or "", changes=changes)
    return await _steer(state, tenant, actor, id, "adjust", steer)


@router.post("/{id}/stop", status_code=202, responses=errors(404, 409))
async def stop(id: Id, state: StateOf, tenant: Tenant, actor: Actor) -> Accepted:
    """The same as `/cancel`."""
    return await routes.cancel(id, state, tenant, actor)


async def _for_whom(request: Request, state: ApiState) -> Steer:
    return Steer((await read_json(request, state, SteerRequest, optional=True)).actor or "")


async def _steer(state: ApiState, tenant: str, actor: str, id: str, action: Action, steer: Steer) -> Accepted:
    return starts.accepted(id, await steer_run(state, tenant, actor, id, action, steer))
