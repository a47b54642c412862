"""Start a run for one who goes on to watch it; whoever comes again finds the run instead of another."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from starlette.requests import HTTPConnection

from api import starts
from api.state import State
from db import catalogue, collaborations, definitions
from schema.errors import NotFound, Refused
from schema.validate import validate

DEFAULT: Final = "collaborate"
_TEAM: Final = [
    {"agent": "architect", "stream_to": ["coder"]},
    {"agent": "coder", "stream_to": ["reviewer"]},
    {"agent": "reviewer", "stream_to": ["tester"]},
    {"agent": "tester"},
]
"""What works on a task when no definition is named, unless one of that name has been uploaded."""


@dataclass(frozen=True)
class Begun:
    id: str
    run: UUID
    warnings: list[str] = field(default_factory=list)
    found: bool = False
    """It had begun before."""


async def begin(
    request: HTTPConnection, state: State, tenant: str, actor: str, definition: str, input: Any,
    *, id: str | None, key: str | None = None, route: str,
) -> Begun:  # fmt: skip
    """Start a run, or find the one that has this id, or that was started under this key. Raises Refused,
    NotFound or Unavailable."""
    definition = definition or DEFAULT
    known = id or (starts.same_id(definition, f"{tenant}/{definition}/{key}") if key else None)
    if known and (run := await _find(state, tenant, known)):
        return Begun(known, run, found=True)
    if definition == DEFAULT:
        await _store_default(state, tenant)
    warnings = await starts.check(state, tenant, definition, input)
    new = known or starts.new_id(definition)
    try:
        begun = await starts.start(
            request, state, definition, input, route=route, id=new, tenant=tenant, actor=actor, once=True
        )
    except Refused as error:
        if error.code != "collaboration_exists":
            raise
        execution = await state.temporal.describe(new, tenant)
        return Begun(new, UUID(execution.first_run_id), found=True)
    return Begun(new, UUID(begun), warnings)


async def _find(state: State, tenant: str, id: str) -> UUID | None:
    async with state.transaction() as connection:
        return await collaborations.uuid_of(connection, tenant, id)


async def _store_default(state: State, tenant: str) -> None:
    async with state.transaction() as connection:
        try:
            await definitions.find(connection, tenant, DEFAULT)
        except NotFound:
            known = await catalogue.of_tenant(connection, tenant, fresh=True)
            checked = validate(_TEAM, name=DEFAULT, catalogue=known)
            await definitions.save(connection, tenant, checked.definition, "facilitair")
