"""The versions of a definition: compare them, name them, go back to one, warn of one."""

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from api.definitions import comparison
from api.definitions.routes import Limit, Name, Selector, selector_of, version_facts
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.http.shared_models import (
    Alias,
    AliasList,
    AliasRequest,
    DefinitionDiff,
    DefinitionPage,
    DefinitionVersion,
    DeprecateRequest,
    RollbackRequest,
    RolledBack,
)
from api.runs.starts import warnings
from api.state import Actor, Connection, StateOf, Tenant
from db.definitions import aliases, definitions
from schema.errors import Refused
from schema.language.steps import ALIAS

router = APIRouter(prefix="/definitions/{name}", tags=["definitions"])

Number = Annotated[int, Path(ge=1, le=999_999_999)]
AliasName = Annotated[str, Path(pattern=ALIAS, examples=["stable"])]


@router.get("/versions", responses=errors(404))
async def versions(
    name: Name,
    connection: Connection,
    tenant: Tenant,
    after: Annotated[int | None, Query(ge=1, le=2_000_000_000)] = None,
    limit: Limit = 50,
) -> DefinitionPage:
    """All versions of one name, newest first."""
    found = await definitions.versions(connection, tenant, name, below=after, limit=limit + 1)
    if not found and after is None:
        await definitions.find(connection, tenant, name)
    page = found[:limit]
    more = str(page[-1].number) if len(found) > limit else None
    return DefinitionPage(items=[DefinitionVersion(**version_facts(one)) for one in page], next=more)


@router.get("/diff", responses=errors(404))
async def difference(
    name: Name,
    connection: Connection,
    tenant: Tenant,
    before: Annotated[Selector, Query(alias="from")],
    after: Annotated[Selector | None, Query(alias="to")] = None,
) -> DefinitionDiff:
    """Return the changes between two versions, each a number or an alias; `to` defaults to the bare name's
    version."""
    old = await definitions.find(connection, tenant, name, selector_of(before))
    new = await definitions.find(connection, tenant, name, selector_of(after))
    return comparison.definitions(
        name, (old.number, json.loads(old.source), old.pins), (new.number, json.loads(new.source), new.pins)
    )


@router.get("/aliases", responses=errors(404))
async def list_aliases(name: Name, connection: Connection, tenant: Tenant) -> AliasList:
    """The aliases of a name, and the version that the bare name means."""
    found = await definitions.aliases_of(connection, tenant, name)
    try:
        meant = (await definitions.find(connection, tenant, name)).number
    except Refused:
        meant = None
    items = [Alias(name=name, alias=alias, version=version) for alias, version in found.items()]
    return AliasList(items=items, meant=meant)


@router.put("/aliases/{alias}", openapi_extra=body_of(AliasRequest), responses=errors(404, 413, 415))
async def set_alias(
    name: Name, alias: AliasName, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> Alias:
    """Let an alias mean a version. `current` is what the bare name means."""
    wanted = await read_json(request, state, AliasRequest)
    async with state.transaction() as connection:
        version = await aliases.move(connection, tenant, name, alias, wanted.version, actor)
    return Alias(name=name, alias=alias, version=version.number, warnings=warnings(version))


@router.delete("/aliases/{alias}", status_code=204, responses=errors(404))
async def remove_alias(
    name: Name, alias: AliasName, connection: Connection, tenant: Tenant, actor: Actor
) -> None:
    """Remove an alias. Without `current` the bare name means the newest version that is not deprecated."""
    await aliases.remove(connection, tenant, name, alias, actor)


@router.post("/rollback", openapi_extra=body_of(RollbackRequest), responses=errors(404, 413, 415))
async def roll_back(name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> RolledBack:
    """Let the bare name mean an earlier version, until a new one is uploaded. Runs keep their version."""
    wanted = await read_json(request, state, RollbackRequest)
    async with state.transaction() as connection:
        before, after = await aliases.roll_back(connection, tenant, name, wanted.version, actor)
    return RolledBack(name=name, before=before.number, after=after.number)


@router.post(
    "/versions/{number}/deprecate", openapi_extra=body_of(DeprecateRequest), responses=errors(404, 413, 415)
)
async def deprecate(
    name: Name, number: Number, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> DefinitionVersion:
    """Warn of a version: the bare name does not mean it any more, and who starts it is told why."""
    wanted = await read_json(request, state, DeprecateRequest)
    async with state.transaction() as connection:
        version = await aliases.deprecate(connection, tenant, name, number, wanted.reason, actor)
    return DefinitionVersion(**version_facts(version))


@router.delete("/versions/{number}/deprecate", responses=errors(404))
async def undeprecate(
    name: Name, number: Number, connection: Connection, tenant: Tenant, actor: Actor
) -> DefinitionVersion:
    """Take the warning back."""
    version = await aliases.deprecate(connection, tenant, name, number, None, actor)
    return DefinitionVersion(**version_facts(version))
