"""Upload, check, list, read and compare definitions."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api.health import queues
from api.http.bodies import read_document
from api.http.problems import errors
from api.http.shared_models import (
    DefinitionDocument,
    DefinitionList,
    DefinitionPlan,
    ListedDefinition,
    PlannedStep,
    StoredDefinition,
    Valid,
)
from api.runs import starts
from api.state import Actor, ApiState, Connection, StateOf, Tenant
from db.definitions import catalogue, definitions
from plan import diagram
from plan.compile import compiled
from schema.language.definition import Definition
from schema.language.dependencies import dependencies, walk
from schema.language.editors import json_schema
from schema.language.steps import NAME, SELECTOR, Compensate, ToolStep
from schema.rules.validate import ValidDefinition, validate_bytes

router = APIRouter(prefix="/definitions", tags=["definitions"])

Name = Annotated[str, Path(pattern=NAME, examples=["code-review"])]
ShortName = Annotated[
    str | None, Query(alias="name", pattern=NAME, description="The name of a bare short-form list.")
]
Selector = Annotated[str, Query(pattern=SELECTOR, description="A version's number, or an alias.")]
Limit = Annotated[int, Query(ge=1, le=200)]

_DOCUMENT = {
    "requestBody": {
        "required": True,
        "description": "A definition in the language facilitair/v1; see /v1/schema.",
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "object", "required": ["steps"]},
                        {"type": "array", "items": {"type": "object"}, "minItems": 1},
                    ]
                }
            },
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}


async def _checked(request: Request, state: ApiState, tenant: str, name: str | None) -> ValidDefinition:
    data, is_yaml = await read_document(request)
    async with state.transaction() as connection:
        # As of now: a role that was added a moment ago by another process counts.
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
    check = partial(validate_bytes, data, is_yaml=is_yaml, name=name, catalogue=known)
    return await asyncio.get_running_loop().run_in_executor(state.checking, check)


def _inferred(found: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {step: list(names) for step, names in found.items()}


def selector_of(given: str | None) -> int | str | None:
    return int(given) if given and given.isdecimal() else given


def version_facts(found: definitions.Version) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.number,
        "sha256": found.sha256,
        "created_at": found.created_at,
        "created_by": found.created_by,
        "pins": found.pins,
        "deprecated": found.deprecated,
    }


def _etag(found: definitions.Version) -> str:
    return f'"{found.sha256}"'


@router.post(
    "",
    status_code=201,
    openapi_extra=_DOCUMENT,
    responses={200: {"model": StoredDefinition, "description": "Stored before."}, **errors(409, 413, 415)},
)
async def upload(
    request: Request, response: Response, state: StateOf, tenant: Tenant, actor: Actor, name: ShortName = None
) -> StoredDefinition:
    """Store a definition. The same content is the same version; other content is the next one, which its bare
    name means from then on. Sub-collaborations are bound to the versions that their refs mean now."""
    checked = await _checked(request, state, tenant, name)
    async with state.transaction() as connection:
        aliases = await definitions.aliases_of(connection, tenant, checked.definition.name)
        version, created = await definitions.save(connection, tenant, checked.definition, actor)
        if created:
            await definitions.check_room(connection, tenant, state.settings.max_definition_bytes)
        warnings = starts.warnings(version)
        if created and definitions.CURRENT in aliases:
            warnings.append(_moved(version, aliases[definitions.CURRENT]))
        elif not created and not version.deprecated:
            warnings += _not_meant(version, await definitions.find(connection, tenant, version.name))
    warnings += await queues.warnings(state.temporal, _own_queues(checked.definition))
    if not created:
        response.status_code = 200
    response.headers["ETag"] = _etag(version)
    response.headers["Location"] = f"/v1/definitions/{version.name}?version={version.number}"
    return StoredDefinition(
        **version_facts(version), created=created, inferred=_inferred(checked.inferred), warnings=warnings
    )


def _own_queues(definition: Definition) -> Iterator[str]:
    """The task queues of authors' own workers."""
    for _, _, step, _ in walk(definition.steps):
        for call in (step, getattr(step, "compensate", None)):
            if isinstance(call, (ToolStep, Compensate)) and call.task_queue:
                yield call.task_queue


def _moved(version: definitions.Version, before: int) -> str:
    name = version.name
    return f"{name!r} meant {name}@{before} since a roll back; from now on it means {name}@{version.number}"


def _not_meant(version: definitions.Version, meant: definitions.Version) -> list[str]:
    name = version.name
    if meant.number == version.number:
        return []
    return [
        f"this is {name}@{version.number}, stored before; {name!r} still means {name}@{meant.number}. "
        f"`facilitair rollback {name} {version.number}` makes it mean this one"
    ]


@router.post("/validate", openapi_extra=_DOCUMENT, responses=errors(413, 415))
async def validate(request: Request, state: StateOf, tenant: Tenant, name: ShortName = None) -> Valid:
    """Check a definition and store nothing; refused with all its problems at once."""
    checked = await _checked(request, state, tenant, name)
    definition = checked.definition
    if definitions.refers(definition):
        async with state.transaction() as connection:
            await definitions.bind(connection, tenant, definition)
    return Valid(
        name=definition.name,
        steps=len(definition.steps),
        inferred=_inferred(checked.inferred),
        warnings=await queues.warnings(state.temporal, _own_queues(definition)),
    )


@router.get("", responses=errors())
async def list_definitions(
    connection: Connection,
    tenant: Tenant,
    after: Annotated[str, Query(pattern=rf"{NAME}|^$", description="The `next` of the page before.")] = "",
    limit: Limit = 50,
) -> DefinitionList:
    """The newest version of each name, in the order of names."""
    found = await definitions.newest_per_name(connection, tenant, after=after, limit=limit + 1)
    page = found[:limit]
    more = page[-1].name if len(found) > limit else None
    looks = await definitions.looks(connection, [one.id for one in page])
    items = [ListedDefinition(**version_facts(one), **asdict(looks[one.id])) for one in page]
    return DefinitionList(items=items, next=more)


@router.get("/{name}", responses={304: {"description": "It is what `If-None-Match` names."}, **errors(404)})
async def read(
    name: Name,
    request: Request,
    response: Response,
    connection: Connection,
    tenant: Tenant,
    version: Selector | None = None,
) -> DefinitionDocument:
    """The version that the name means, or the given one."""
    found = await definitions.find(connection, tenant, name, selector_of(version))
    response.headers["ETag"] = _etag(found)
    if request.headers.get("if-none-match") == _etag(found):
        return Response(status_code=304, headers={"ETag": _etag(found)})  # type: ignore[return-value]
    return DefinitionDocument(**version_facts(found), definition=json.loads(found.source))


@router.get("/{name}/plan", responses=errors(404))
async def plan(
    name: Name, connection: Connection, tenant: Tenant, version: Selector | None = None
) -> DefinitionPlan:
    """The steps in an order that respects every dependency, and their picture."""
    found = await definitions.find(connection, tenant, name, selector_of(version))
    whole = compiled(found.sha256, found.source)
    return DefinitionPlan(
        name=found.name,
        version=found.number,
        steps=[
            PlannedStep(
                **{key: value for key, value in asdict(step).items() if key in PlannedStep.model_fields},
                inferred=list(dependencies(whole.steps[step.id]).inferred),
                max_attempts=step.retry.max_attempts,
            )
            for step in whole.plan.steps
        ],
        mermaid=diagram.mermaid(whole.definition, whole.plan),
    )


schema_router = APIRouter(tags=["definitions"])
_SCHEMA = json.dumps(json_schema())
SCHEMA_TYPE: Final = "application/schema+json"


@schema_router.get(
    "/schema",
    response_class=Response,
    responses={200: {"content": {SCHEMA_TYPE: {"schema": {"type": "object"}}}}, **errors()},
)
async def schema() -> Response:
    """The JSON Schema of the language: editors complete and check with it while typing."""
    return Response(_SCHEMA, media_type=SCHEMA_TYPE)
