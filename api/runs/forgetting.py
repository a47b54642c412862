"""Forget what simulated runs left, in one request or in several."""

import time
from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.state import Actor, StateOf, Tenant
from db import audit
from db.runs import forgetting

router = APIRouter(prefix="/simulated", tags=["collaborations"])

_MAX_WORK_SECONDS: Final = 10.0
"""Longest work in one request; a caller that finds more asks again."""


class ForgetRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="Only count.")


class Forgotten(BaseModel):
    """Counts of what was forgotten, or with `dry_run` would be."""

    runs: int = Field(description="Simulated runs that have ended, with their executions and tokens.")
    running: int = Field(description="Simulated runs that go on: those stay. Stop them, and ask again.")
    trainings: int = Field(description="Trainings of the router, with their checkpoints.")
    prompt_versions: int = Field(
        description="Versions whose examples are simulated, and which nothing names."
    )
    more: bool = Field(description="The request's time was over; ask again.")


@router.post("/forget", openapi_extra=body_of(ForgetRequest, optional=True), responses=errors(413, 415))
async def forget(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Forgotten:
    """Forget all that is simulated: runs, what the router, edges, prompts and memory learned from them, and
    their copies in the graph. The ledger keeps its calls, whose dollars nobody is billed."""
    wanted = await read_json(request, state, ForgetRequest, optional=True)
    async with state.transaction() as connection:
        found = await forgetting.count(connection, tenant)
    if wanted.dry_run:
        return Forgotten(**vars(found), more=False)
    until, runs = time.monotonic() + _MAX_WORK_SECONDS, 0
    while runs < found.runs and time.monotonic() < until:
        async with state.transaction() as connection:
            runs += await forgetting.runs(connection, tenant)
    more = runs < found.runs
    async with state.transaction() as connection:
        if not more:
            await forgetting.lessons(connection, tenant)
        await audit.append(connection, tenant, actor, "simulated.forget", "simulated", runs=runs, more=more)
    return Forgotten(**vars(found) | {"runs": runs}, more=more)
