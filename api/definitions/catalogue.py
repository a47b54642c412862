"""Routes of the catalogue: roles, skills, providers, tools, models, prompts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from api.definitions.catalogue_models import (
    CatalogueDocument,
    MasterFact,
    ModelFact,
    Origin,
    ProviderFact,
    ProviderRequest,
    Removed,
    RoleFact,
    RoleRequest,
    SkillFact,
    SkillRequest,
    ToolFact,
)
from api.http.bodies import body_of, read_json
from api.http.problems import BadRequest, errors
from api.state import Actor, ApiState, StateOf, Tenant
from db.definitions import catalogue
from db.definitions.catalogue import EntryStamp, EntryUses
from db.money import prices
from gateway.prices import listed_price
from schema.errors import Problem
from schema.language.catalogue import (
    BUILT_IN,
    MASTERS,
    OTHER_RELATIONSHIP,
    PROVIDERS,
    ROUTABLE_MODELS,
    Catalogue,
    RoleDefault,
    TenantProvider,
)
from schema.language.skills import Skill
from schema.language.steps import NAME
from schema.language.tools import TOOLS
from schema.rules.catalogue import provider_problems, role_problems, skill_problems

router = APIRouter(tags=["catalogue"])

Name = Annotated[str, Path(pattern=NAME, examples=["security-reviewer"])]


@router.get("/catalogue", responses=errors())
async def read(state: StateOf, tenant: Tenant) -> CatalogueDocument:
    """Everything that a definition may name, and where it comes from."""
    async with state.transaction() as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        set_by = await catalogue.settings_of(connection, tenant)
        own_prices = await prices.newest(connection, tenant)
    return CatalogueDocument(
        roles=[_role(name, role, set_by["roles"].get(name)) for name, role in known.roles.items()],
        skills=[_skill(name, skill, set_by["skills"].get(name)) for name, skill in known.skills.items()],
        masters=[MasterFact(**asdict(one)) for one in MASTERS],
        providers=_providers(known, set_by["providers"]),
        tools=[
            ToolFact(name=name, description=tool.description, args=tool.args) for name, tool in TOOLS.items()
        ],
        models=_models(known, own_prices),
        prompts=dict(known.prompts),
    )


@router.put("/roles/{name}", openapi_extra=body_of(RoleRequest), responses=errors(404, 413, 415))
async def set_role(name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> RoleFact:
    """Add a role, or have one of your own instead of the built-in. Steps that begin from then on use it."""
    wanted = await read_json(request, state, RoleRequest)
    role = _wanted_role(name, wanted)
    async with state.transaction() as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        _refuse("role", name, role_problems(role, known))
        await catalogue.set_role(connection, tenant, name, role, actor)
    return _role(name, role, await _set_by(state, tenant, "roles", name))


@router.delete("/roles/{name}", responses=errors(404))
async def remove_role(name: Name, state: StateOf, tenant: Tenant, actor: Actor) -> Removed:
    """Remove a role of yours, also one that definitions name: their steps in it fail with role_unknown,
    unless a built-in one holds again."""
    async with state.transaction() as connection:
        users = await catalogue.remove_role(connection, tenant, name, actor)
    catalogue.forget(tenant)
    return _removed(name, name in BUILT_IN.roles, users, [])


def _wanted_role(name: str, wanted: RoleRequest) -> RoleDefault:
    before = BUILT_IN.roles.get(name) or RoleDefault("", "", OTHER_RELATIONSHIP)
    given = {key: value for key, value in wanted.model_dump().items() if value is not None}
    role = RoleDefault(**asdict(before) | given)
    if not role.model:
        missing = Problem("field_missing", "/model", "nothing", "provider/model", "Add the role's model.")
        _refuse("role", name, [missing])
    return RoleDefault(**asdict(role) | {"skills": tuple(role.skills)})


def _role(name: str, role: RoleDefault, by: EntryStamp | None) -> RoleFact:
    facts = asdict(role) | {"skills": list(role.skills)}
    return RoleFact(name=name, origin=_origin(name in BUILT_IN.roles, by), **facts, **_setting(by))


@router.put("/skills/{name}", openapi_extra=body_of(SkillRequest), responses=errors(404, 413, 415))
async def set_skill(name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> SkillFact:
    """Add a skill, or have one of your own instead of the built-in. Steps that begin from then on use it."""
    wanted = await read_json(request, state, SkillRequest)
    skill = Skill(wanted.description, wanted.instructions, tuple(wanted.tools))
    _refuse("skill", name, skill_problems(skill))
    async with state.transaction() as connection:
        await catalogue.set_skill(connection, tenant, name, skill, actor)
    return _skill(name, skill, await _set_by(state, tenant, "skills", name))


@router.delete("/skills/{name}", responses=errors(404))
async def remove_skill(name: Name, state: StateOf, tenant: Tenant, actor: Actor) -> Removed:
    """Remove a skill of yours, also one that definitions name: their steps fail with skill_unknown, unless a
    built-in one holds again."""
    async with state.transaction() as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        users = await catalogue.remove_skill(connection, tenant, name, actor)
    catalogue.forget(tenant)
    return _removed(
        name,
        name in BUILT_IN.skills,
        users,
        [role for role, one in known.roles.items() if name in one.skills],
    )


def _skill(name: str, skill: Skill, by: EntryStamp | None) -> SkillFact:
    facts = asdict(skill) | {"tools": list(skill.tools)}
    return SkillFact(name=name, origin=_origin(name in BUILT_IN.skills, by), **facts, **_setting(by))


@router.put("/providers/{name}", openapi_extra=body_of(ProviderRequest), responses=errors(404, 413, 415))
async def set_provider(
    name: Name, request: Request, state: StateOf, tenant: Tenant, actor: Actor
) -> ProviderFact:
    """Add a provider, or give a built-in one your own key and limits: models are then `name/model`. The key
    itself is never stored."""
    wanted = await read_json(request, state, ProviderRequest)
    provider = TenantProvider(name, **wanted.model_dump())
    _refuse("provider", name, provider_problems(provider, state.settings.provider_hosts))
    async with state.transaction() as connection:
        await catalogue.set_provider(connection, tenant, provider, actor)
    return _provider(provider, await _set_by(state, tenant, "providers", name))


@router.delete("/providers/{name}", responses=errors(404))
async def remove_provider(name: Name, state: StateOf, tenant: Tenant, actor: Actor) -> Removed:
    """Remove a provider of yours, also one whose models definitions name: their steps fail with
    model_unknown, unless it is a built-in one."""
    async with state.transaction() as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        users = await catalogue.remove_provider(connection, tenant, name, actor)
    catalogue.forget(tenant)
    naming = [role for role, one in known.roles.items() if one.model.startswith(f"{name}/")]
    return _removed(name, name in PROVIDERS, users, naming)


def _provider(provider: TenantProvider, by: EntryStamp | None) -> ProviderFact:
    return ProviderFact(**asdict(provider), origin=_origin(provider.name in PROVIDERS, by), **_setting(by))


def _providers(known: Catalogue, set_by: dict[str, EntryStamp]) -> list[ProviderFact]:
    built_in = [
        ProviderFact(name=name, origin="built_in", kind={"qwen": "openrouter"}.get(name, name))
        for name in PROVIDERS
        if name not in known.providers
    ]
    return built_in + [_provider(one, set_by.get(one.name)) for one in known.providers.values()]


def _models(known: Catalogue, own: dict[str, prices.TenantPrice]) -> list[ModelFact]:
    names = dict.fromkeys((*ROUTABLE_MODELS, *(role.model for role in known.roles.values()), *own))
    found = []
    for name in names:
        price = own.get(name) or listed_price(name)
        found.append(
            ModelFact(
                model=name,
                routable=name in ROUTABLE_MODELS,
                input_usd=float(price.input_usd) if price else None,
                output_usd=float(price.output_usd) if price else None,
            )
        )
    return found


def _refuse(what: str, name: str, problems: Sequence[Problem]) -> None:
    if problems:
        first = problems[0]
        message = f"the {what} {name!r} cannot be set: {first.pointer}: {first.message}"
        raise BadRequest("catalogue_invalid", message, problems)


async def _set_by(state: ApiState, tenant: str, section: str, name: str) -> EntryStamp:
    """Return actor and time of an entry once it is committed; steps that begin afterwards use it."""
    catalogue.forget(tenant)
    async with state.transaction() as connection:
        return (await catalogue.settings_of(connection, tenant))[section][name]


def _origin(built_in: bool, by: EntryStamp | None) -> Origin:
    if by is None:
        return "built_in"
    return "yours_instead" if built_in else "yours"


def _setting(by: EntryStamp | None) -> dict[str, Any]:
    return {"set_by": by.by, "set_at": by.at} if by else {}


def _removed(name: str, built_in: bool, users: EntryUses, roles: list[str]) -> Removed:
    return Removed(name=name, built_in=built_in, used_by=users.definitions, more=users.more, roles=roles)
