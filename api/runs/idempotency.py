"""Start a run once: a client that asks again, under the same id or key, finds the run instead of another one.

Nothing is written down before Temporal has the run, so that an API process may be killed at any moment: the
id follows from the key, and the run itself tells, in Temporal and then in Postgres, which request it came of.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header
from starlette.requests import HTTPConnection

from api.runs import starts
from api.state import ApiState
from api.temporal import exists
from db.runs import collaborations
from schema import names
from schema.errors import NotFound, Refused
from schema.temporal.runs import Fork

MAX_KEY_CHARS: Final = 255

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_KEY_CHARS,
        description="Asked again with it, it is the same run. An `id` goes before it.",
    ),
]


@dataclass(frozen=True)
class IdempotentStart:
    """A run, as it is told to who asked for it."""

    id: str
    run: UUID
    warnings: list[str] = field(default_factory=list)
    found: bool = False
    """Whether the same request had started it before."""


@dataclass(frozen=True)
class StartIdentity:
    """The identity of a request for a run, by which a repetition is recognised."""

    id: str
    digest: str
    """Digest of the whole request except id and key."""
    named: bool
    """Whether the client named an id or a key: only then can it ask again."""
    keyed: bool


async def begin(
    request: HTTPConnection,
    state: ApiState,
    tenant: str,
    actor: str,
    definition: str,
    input: Any,
    *,
    id: str | None,
    key: str | None,
    route: str,
) -> IdempotentStart:
    """Start a run, or find the one that the same request has started under this id or key. Raises Refused,
    NotFound or Unavailable."""
    asked = {"definition": definition, "input": input}
    wanted = await identify(state, tenant, definition, asked, id=id, key=key)
    if run := await find(state, tenant, wanted):
        return IdempotentStart(wanted.id, run, found=True)
    warnings = await starts.check(state, tenant, definition, input)
    run, found = await start(
        request, state, wanted, definition, input, route=route, tenant=tenant, actor=actor
    )
    return IdempotentStart(wanted.id, run, [] if found else warnings, found)


async def identify(
    state: ApiState, tenant: str, name: str, asked: dict[str, Any], *, id: str | None, key: str | None = None
) -> StartIdentity:
    """The request for a run of `name`, of which `asked` is what it asks for. Raises Refused for an id that no
    client may choose."""
    secret = await state.naming()
    digest = names.digest(secret, "request", tenant, asked)
    if id is not None:
        names.check_id(id)
        return StartIdentity(id, digest, named=True, keyed=False)
    if key is not None:
        # The key alone: with it another definition is another body, and no other run.
        return StartIdentity(
            f"key-{names.digest(secret, 'key', tenant, key)}", digest, named=True, keyed=True
        )
    return StartIdentity(starts.new_id(name), digest, named=False, keyed=False)


async def find(state: ApiState, tenant: str, wanted: StartIdentity) -> UUID | None:
    """The run that this request has started before. Raises Refused where another request started it."""
    if not wanted.named:
        return None
    async with state.transaction() as connection:
        known = await collaborations.started_as(connection, tenant, wanted.id)
    if known is None:
        return None
    _check_same(wanted, known.request_digest)
    return known.uuid


async def start(
    request: HTTPConnection,
    state: ApiState,
    wanted: StartIdentity,
    name: str,
    input: Any,
    *,
    route: str,
    tenant: str,
    actor: str,
    fork: Fork | None = None,
) -> tuple[UUID, bool]:
    """(the run's UUID, whether it had begun before). Raises Refused where another request started it."""
    try:
        run = await starts.start(
            request,
            state,
            name,
            input,
            route=route,
            id=wanted.id,
            tenant=tenant,
            actor=actor,
            request_digest=wanted.digest,
            fork=fork,
        )
    except Refused as error:
        if error.code != "collaboration_exists" or not wanted.named:
            raise
        try:
            # Accepted by Temporal, and not begun by any worker: Postgres does not know it yet.
            known = await state.temporal.describe(wanted.id, tenant)
        except NotFound:
            raise error from None
        _check_same(wanted, known.request_digest)
        return UUID(known.first_run_id), True
    return UUID(run), False


def _check_same(wanted: StartIdentity, digest: str | None) -> None:
    if digest == wanted.digest:
        return
    if not wanted.keyed:
        raise exists(wanted.id)
    raise Refused(
        "idempotency_key_reused",
        "found an Idempotency-Key that came before with another request; expected the same definition and "
        "input again, or a new key.",
    )
