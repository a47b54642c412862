"""Prompts as versions: store, read, compare, and say which one the bare name means."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.http.shared_models import Change
from api.prompts.models import (
    Promoted,
    PromoteRequest,
    Prompt,
    PromptDiff,
    PromptDocument,
    PromptPage,
    PromptVersion,
    PromptVersionPage,
    StoredPrompt,
)
from api.state import Actor, Connection, StateOf, Tenant
from db.prompts import prompts
from schema.language import diff
from schema.language.prompts import PromptContent
from schema.language.steps import NAME

router = APIRouter(prefix="/prompts", tags=["prompts"])

Name = Annotated[str, Path(pattern=NAME, examples=["careful-reviewer"])]
Number = Annotated[int, Query(ge=1, le=999_999_999)]
Limit = Annotated[int, Query(ge=1, le=200)]


def _facts(found: prompts.StoredPromptVersion) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.number,
        "sha256": found.sha256,
        "origin": found.origin,
        "note": found.note,
        "created_by": found.created_by,
        "created_at": found.created_at,
        "simulated": found.simulated,
    }


@router.get("", responses=errors())
async def list_prompts(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str, Query(pattern=rf"{NAME}|^$", description="The `next` of the page before.")] = "",
    limit: Limit = 50,
) -> PromptPage:
    """The stored prompts, in the order of names."""
    found = await prompts.page(connection, tenant, after=after, limit=limit + 1)
    page = found[:limit]
    more = page[-1].name if len(found) > limit else None
    return PromptPage(items=[Prompt(**vars(one)) for one in page], next=more)


@router.get("/{name}", responses=errors(404))
async def read(
    name: Name, connection: Connection, tenant: Tenant, version: Number | None = None
) -> PromptDocument:
    """The version that the bare name means, or the given one."""
    found = await prompts.find(connection, tenant, name, version)
    [meant] = await prompts.page(connection, tenant, name=name)
    return PromptDocument(
        **_facts(found),
        current=meant.current,
        newest=meant.newest,
        on_trial=meant.on_trial,
        description=meant.description,
        content=found.content,
        current_simulated=meant.current_simulated,
    )


@router.put(
    "/{name}",
    status_code=201,
    openapi_extra=body_of(PromptContent),
    responses={200: {"model": StoredPrompt, "description": "Stored before."}, **errors(409, 413, 415)},
)
async def store(
    name: Name,
    request: Request,
    response: Response,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
    promote: Annotated[bool, Query(description="Let the bare name mean it at once.")] = False,
    note: Annotated[str, Query(max_length=2_000, description="Why this version is there.")] = "",
    description: Annotated[str | None, Query(max_length=2_000, description="Of the prompt.")] = None,
) -> StoredPrompt:
    """Store a version. The same content is the same version; the bare name means a new one only when
    `promote` says so, or when it is the first."""
    content = await read_json(request, state, PromptContent)
    async with state.transaction() as connection:
        version, created = await prompts.save(
            connection, tenant, name, content, actor, note=note, promote=promote, description=description
        )
        [meant] = await prompts.page(connection, tenant, name=name)
    if not created:
        response.status_code = 200
    response.headers["Location"] = f"/v1/prompts/{name}?version={version.number}"
    return StoredPrompt(**_facts(version), created=created, current=meant.current)


@router.delete("/{name}", status_code=204, responses=errors(404, 409))
async def remove(name: Name, connection: Connection, tenant: Tenant, actor: Actor) -> None:
    """Forget a prompt with all its versions and trials. Refused while a definition that is meant names it."""
    await prompts.remove(connection, tenant, name, actor)


@router.get("/{name}/versions", responses=errors(404))
async def versions(
    name: Name,
    connection: Connection,
    tenant: Tenant,
    after: Annotated[int | None, Query(ge=1, le=999_999_999)] = None,
    limit: Limit = 50,
) -> PromptVersionPage:
    """All versions of one prompt, newest first."""
    found = await prompts.versions_of(connection, tenant, name, below=after, limit=limit + 1)
    if not found and after is None:
        await prompts.find(connection, tenant, name)
    page = found[:limit]
    more = str(page[-1].number) if len(found) > limit else None
    return PromptVersionPage(items=[PromptVersion(**_facts(one)) for one in page], next=more)


@router.get("/{name}/diff", responses=errors(404))
async def difference(
    name: Name,
    connection: Connection,
    tenant: Tenant,
    before: Annotated[Number, Query(alias="from")],
    after: Annotated[Number | None, Query(alias="to")] = None,
) -> PromptDiff:
    """Return the changes between two versions; `to` defaults to the version that the bare name means."""
    old = await prompts.find(connection, tenant, name, before)
    new = await prompts.find(connection, tenant, name, after)
    one, other = (found.content.model_dump(mode="json", exclude_defaults=True) for found in (old, new))
    return PromptDiff(
        name=name,
        before=old.number,
        after=new.number,
        changes=[Change(**vars(change)) for change in diff.changes(one, other)],
        text=diff.unified(one, other, old.ref, new.ref),
    )


@router.post("/{name}/promote", openapi_extra=body_of(PromoteRequest), responses=errors(404, 409, 413, 415))
async def promote(name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> Promoted:
    """Let the bare name mean that version: an earlier one to roll back. Steps that begin later get it."""
    wanted = await read_json(request, state, PromoteRequest)
    async with state.transaction() as connection:
        before, after = await prompts.promote(connection, tenant, name, wanted.version, actor)
    return Promoted(name=name, before=before, after=after)
