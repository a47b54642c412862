"""Start a run for a client that goes on to watch it."""

from typing import Any, Final

from starlette.requests import HTTPConnection

from api.runs import idempotency
from api.runs.idempotency import IdempotentStart
from api.state import ApiState
from db.definitions import catalogue, definitions
from schema.errors import NotFound
from schema.rules.validate import validate

DEFAULT: Final = "collaborate"
_TEAM: Final = [
    {"agent": "architect", "stream_to": ["coder"]},
    {"agent": "coder", "stream_to": ["reviewer"]},
    {"agent": "reviewer", "stream_to": ["tester"]},
    {"agent": "tester"},
]
"""The definition that runs without a named one, unless one of that name has been uploaded."""


async def begin(
    request: HTTPConnection,
    state: ApiState,
    tenant: str,
    actor: str,
    definition: str,
    input: Any,
    *,
    id: str | None,
    key: str | None = None,
    route: str,
) -> IdempotentStart:
    """As `idempotency.begin`; without a definition the team of four works on it."""
    definition = definition or DEFAULT
    if definition == DEFAULT:
        await _store_default(state, tenant)
    return await idempotency.begin(
        request, state, tenant, actor, definition, input, id=id, key=key, route=route
    )


async def _store_default(state: ApiState, tenant: str) -> None:
    async with state.transaction() as connection:
        try:
            await definitions.find(connection, tenant, DEFAULT)
        except NotFound:
            known = await catalogue.of_tenant(connection, tenant, fresh=True)
            checked = validate(_TEAM, name=DEFAULT, catalogue=known)
            await definitions.save(connection, tenant, checked.definition, "facilitair")
