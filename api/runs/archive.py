"""Old tokens: archive them now instead of tonight."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.state import Actor, StateOf, Tenant
from db import audit
from db.live import archive
from db.live.archive import SweepTotals

router = APIRouter(prefix="/streams", tags=["streams"])

_MAX_WORK_SECONDS: Final = 10.0
"""Longest work in one request; a caller that finds more asks again."""


class ArchiveRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    older_than_days: float | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Since the run ended. Absent: FACILITAIR_TOKENS_ARCHIVE_AFTER_DAYS.",
    )
    dry_run: bool = Field(default=False, description="Only count.")


class ArchiveDone(BaseModel):
    executions: int = Field(description="Whose tokens were archived.")
    tokens: int
    older_than: datetime
    more: bool = Field(description="The request's time was over; ask again.")


@router.post("/archive", openapi_extra=body_of(ArchiveRequest), responses=errors(413, 415))
async def archive_tokens(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> ArchiveDone:
    """Pack the tokens of runs that ended long ago. They are played back as before."""
    wanted = await read_json(request, state, ArchiveRequest)
    days = wanted.older_than_days
    if days is None:
        days = state.settings.tokens_archive_after_days
    older_than = datetime.now(UTC) - timedelta(days=days)
    if wanted.dry_run:
        async with state.transaction() as connection:
            waiting = await archive.waiting(connection, older_than)
        return ArchiveDone(
            executions=waiting.executions, tokens=waiting.tokens, older_than=older_than, more=False
        )
    until, done, more = time.monotonic() + _MAX_WORK_SECONDS, SweepTotals(), False
    async for so_far in archive.sweep(state.engine, older_than, None):
        done = so_far
        if more := time.monotonic() > until:
            break
    async with state.transaction() as connection:
        told = {"executions": done.executions, "tokens": done.tokens, "older_than": older_than.isoformat()}
        await audit.append(connection, tenant, actor, "tokens.archive", "tokens", **told)
    return ArchiveDone(executions=done.executions, tokens=done.tokens, older_than=older_than, more=more)
