"""Routes that show a definition before it runs: its plan as a picture, its estimate, and dry runs with
mocks."""

import asyncio
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.rehearsal.walk import Rehearsal
from api.http.bodies import body_of, read_json
from api.http.problems import BadRequest, errors
from api.http.shapes import one_of_both
from api.money.models import EffectivePrice, EstimateDocument, TreeFact, limit_fact
from api.money.prices import PriceList, price_list
from api.runs.starts import check_input
from api.state import Actor, ApiState, StateOf, Tenant
from db.definitions import catalogue, definitions
from db.money import limits, run_trees
from db.money.limits import Counter, SpendingLimit
from plan import diagram
from plan.compile import compile_plan, compiled
from schema.errors import Problem, Refused
from schema.language.catalogue import Catalogue
from schema.language.definition import Definition
from schema.language.json_schemas import with_defaults
from schema.language.steps import REF
from schema.rules import mocks
from schema.rules.size import TreeSize
from schema.rules.size import estimate as estimated
from schema.rules.validate import validate_bytes

router = APIRouter(prefix="/definitions", tags=["definitions"])


_ONE: Final[JsonDict] = {"oneOf": [one_of_both("name", "definition"), one_of_both("definition", "name")]}


class PlanRequest(BaseModel):
    """Exactly one of both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_ONE)

    definition: Any = Field(default=None, description="A definition, which need not be stored.")
    name: str | None = Field(
        default=None, pattern=REF, description="A stored one: `name`, `name@2` or `name@alias`."
    )


class DryRunRequest(PlanRequest):
    model_config = ConfigDict(
        json_schema_extra=_ONE
        | {
            "examples": [
                {
                    "name": "code-review",
                    "input": {"task": "Review it.", "file": "print(1)"},
                    "mocks": {"review": [{"error": {"code": "provider_timeout"}}, {"output": "Fine."}]},
                }
            ]
        }
    )

    input: Any = Field(default_factory=dict, description="Must fit the definition's `input` schema.")
    mocks: Any = Field(
        default_factory=dict,
        description="step → answers in the order of its executions, the last one for all that follow; each "
        "{output} or {error: {code, message, retryable}}, of people {decision, form, edited}.",
    )


class EstimateRequest(PlanRequest):
    model_config = ConfigDict(
        json_schema_extra=_ONE | {"examples": [{"name": "code-review", "input": {"task": "x", "file": "y"}}]}
    )

    input: Any = Field(
        default=None, description="Must fit the definition's `input` schema. Absent: its size is guessed."
    )


class Picture(BaseModel):
    name: str
    nodes: list[dict[str, Any]] = Field(description="Every step; `frame` is the map or loop around it.")
    edges: list[dict[str, str]] = Field(description="from, to, kind (need, wait, branch, …) and label.")
    estimate: dict[str, Any] = Field(description="Upper bounds of one run, retries apart.")
    mermaid: str


@router.post("/plan", name="picture", openapi_extra=body_of(PlanRequest), responses=errors(404, 413, 415))
async def plan(request: Request, state: StateOf, tenant: Tenant) -> Picture:
    """The plan of a definition, stored or not: nodes, edges, a picture, and what a run may cost at most."""
    asked = await read_json(request, state, PlanRequest)
    definition, known = await _definition(state, tenant, asked)
    async with state.transaction() as connection:
        prices = await price_list(state, connection, tenant)
        within = await _within(connection, tenant, definition)
    return await asyncio.get_running_loop().run_in_executor(
        state.checking, _picture, definition, known, prices, within
    )


def _picture(
    definition: Definition, known: Catalogue, prices: PriceList, within: Mapping[str, TreeSize]
) -> Picture:
    whole = compile_plan(definition)
    return Picture(
        **diagram.as_json(definition, whole, prices.per_token, known, within),
        mermaid=diagram.mermaid(definition, whole),
    )


@router.post("/estimate", openapi_extra=body_of(EstimateRequest), responses=errors(404, 413, 415))
async def estimate(request: Request, state: StateOf, tenant: Tenant, actor: Actor) -> EstimateDocument:
    """Return the most that a run of a definition, stored or not, can cost, and the limits that would
    apply."""
    asked = await read_json(request, state, EstimateRequest)
    definition, known = await _definition(state, tenant, asked)
    if asked.input is not None:
        check_input(definition.name, definition.input, asked.input, "See the definition's `input`.")
        asked.input = with_defaults(definition.input, asked.input)
    async with state.transaction() as connection:
        prices = await price_list(state, connection, tenant)
        held = await limits.holding(connection, tenant, user=actor, definition=definition.name)
        within = await _within(connection, tenant, definition)
    work = partial(_estimated, definition, known, prices, asked.input, held, within)
    return await asyncio.get_running_loop().run_in_executor(state.checking, work)


async def _within(connection: AsyncConnection, tenant: str, definition: Definition) -> dict[str, TreeSize]:
    """ref → size, of those sub-collaborations that are stored. A run keeps to the versions of its upload,
    which may be others than what the refs mean now."""
    return await run_trees.sizes(
        connection, tenant, await definitions.stored_refs(connection, tenant, definition)
    )


def _estimated(
    definition: Definition,
    known: Catalogue,
    prices: PriceList,
    input: Any,
    held: list[tuple[SpendingLimit, Counter]],
    within: Mapping[str, TreeSize],
) -> EstimateDocument:
    models: dict[str, EffectivePrice] = {}

    def per_token(model: str) -> tuple[Decimal, Decimal] | None:
        models.setdefault(model, prices.fact(model))
        return prices.per_token(model)

    most = estimated(definition, per_token, known, input, within)
    warnings = [
        f"found no price for {one.answers}: its calls are refused with price_missing. Set it with "
        f"`facilitair prices set {shlex.quote(one.answers)}`."
        for one in models.values()
        if one.source is None
    ]
    for limit, counter in held:
        left = None if limit.usd is None else limit.usd - counter.spent.usd - counter.reserved.usd
        if left is not None and most.usd is not None and most.usd > left:
            warnings.append(
                f"${max(left, Decimal(0)):.6f} are left of the limit of ${limit.usd:.6f} of "
                f"{limit.scope} {limit.subject or 'in all'} by {limit.period}: the run may end with "
                "budget_exceeded."
            )
    return EstimateDocument(
        name=definition.name,
        executions=most.executions,
        model_calls=most.model_calls,
        children=most.children,
        tree=TreeFact(**asdict(most.tree)),
        usd=None if most.usd is None else float(most.usd),
        prices=list(models.values()),
        limits=[limit_fact(limit, [counter]) for limit, counter in held],
        warnings=warnings,
    )


@router.post(
    "/dry-run",
    openapi_extra=body_of(DryRunRequest),
    response_model=Rehearsal,
    responses=errors(404, 413, 415),
)
async def dry_run(request: Request, state: StateOf, tenant: Tenant) -> Response:
    """Walk a definition without models, people or networks: everything else is really evaluated."""
    asked = await read_json(request, state, DryRunRequest)
    definition, known = await _definition(state, tenant, asked)
    answers, problems = mocks.read(asked.mocks)
    problems = problems or mocks.check(definition, answers)
    if problems:
        placed = [_below("/mocks", one) for one in problems]
        raise BadRequest("mocks_invalid", f"{placed[0].pointer}: {placed[0].message}", placed)
    source = definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    line = json.dumps(
        {"definition": source, "input": asked.input, "mocks": asked.mocks, "catalogue": known.as_json()}
    )
    word, _, answer = (await state.rehearsing.rehearse(line.encode())).partition(b" ")
    if word == b"refused":
        raise Refused(**json.loads(answer))
    # As it stands: reading megabytes only to write them again would hold others up.
    return Response(answer, media_type="application/json")


def _below(pointer: str, problem: Problem) -> Problem:
    return Problem(problem.code, f"{pointer}{problem.pointer}", problem.found, problem.expected, problem.fix)


async def _definition(state: ApiState, tenant: str, asked: PlanRequest) -> tuple[Definition, Catalogue]:
    """The definition that is meant, and what it may name; raises InvalidDefinition and NotFound."""
    if (asked.name is None) == (asked.definition is None):
        raise BadRequest("request_invalid", "found both or neither of definition and name; expected one.")
    loop = asyncio.get_running_loop()
    async with state.transaction() as connection:
        known = await catalogue.of_tenant(connection, tenant, fresh=True)
        if asked.name is not None:
            found = await definitions.find(connection, tenant, *definitions.split_type(asked.name))
    if asked.name is not None:
        stored = await loop.run_in_executor(state.checking, compiled, found.sha256, found.source)
        return stored.definition, known
    data = json.dumps(asked.definition).encode()
    check = partial(validate_bytes, data, name="dry-run", catalogue=known)
    return (await loop.run_in_executor(state.checking, check)).definition, known
