"""What a definition would do, before anything runs: its plan as a picture, and dry runs with mocked steps."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from activities.rehearsal import Rehearsal
from api.bodies import body_of, read_json
from api.problems import BadRequest, errors
from api.state import State, StateOf, Tenant
from db import definitions
from gateway.prices import per_token
from schema import diagram, mocks
from schema.compile import compile_plan, compiled
from schema.definition import Definition
from schema.errors import Problem, Refused
from schema.steps import REF
from schema.validate import validate_bytes

router = APIRouter(prefix="/definitions", tags=["definitions"])


class PlanRequest(BaseModel):
    """Exactly one of both."""

    model_config = ConfigDict(extra="forbid")

    definition: Any = Field(default=None, description="A definition, which need not be stored.")
    name: str | None = Field(
        default=None, pattern=REF, description="A stored one: `name`, `name@2` or `name@alias`."
    )


class DryRunRequest(PlanRequest):
    model_config = ConfigDict(
        json_schema_extra={
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


class Picture(BaseModel):
    name: str
    nodes: list[dict[str, Any]] = Field(description="Every step; `frame` is the map or loop around it.")
    edges: list[dict[str, str]] = Field(description="from, to, kind (need, wait, branch, …) and label.")
    estimate: dict[str, Any] = Field(description="The most that one run can come to, retries apart.")
    mermaid: str


@router.post("/plan", openapi_extra=body_of(PlanRequest), responses=errors(404, 413, 415))
async def plan(request: Request, state: StateOf, tenant: Tenant) -> Picture:
    """The plan of a definition, stored or not: nodes, edges, a picture, and what a run may cost at most."""
    definition = await _definition(state, tenant, await read_json(request, state, PlanRequest))
    return await asyncio.get_running_loop().run_in_executor(state.checking, _picture, definition)


def _picture(definition: Definition) -> Picture:
    whole = compile_plan(definition)
    return Picture(
        **diagram.as_json(definition, whole, per_token), mermaid=diagram.mermaid(definition, whole)
    )


@router.post(
    "/dry-run", openapi_extra=body_of(DryRunRequest), response_model=Rehearsal,
    responses=errors(404, 413, 415),
)  # fmt: skip
async def dry_run(request: Request, state: StateOf, tenant: Tenant) -> Response:
    """Walk a definition without models, people or networks: everything else is really evaluated."""
    asked = await read_json(request, state, DryRunRequest)
    definition = await _definition(state, tenant, asked)
    answers, problems = mocks.read(asked.mocks)
    problems = problems or mocks.check(definition, answers)
    if problems:
        placed = [_below("/mocks", one) for one in problems]
        raise BadRequest("mocks_invalid", f"{placed[0].pointer}: {placed[0].message}", placed)
    source = definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    line = json.dumps({"definition": source, "input": asked.input, "mocks": asked.mocks})
    word, _, answer = (await state.rehearsing.rehearse(line.encode())).partition(b" ")
    if word == b"refused":
        raise Refused(**json.loads(answer))
    # As it stands: reading megabytes only to write them again would hold others up.
    return Response(answer, media_type="application/json")


def _below(pointer: str, problem: Problem) -> Problem:
    return Problem(problem.code, f"{pointer}{problem.pointer}", problem.found, problem.expected, problem.fix)


async def _definition(state: State, tenant: str, asked: PlanRequest) -> Definition:
    """The definition that is meant; raises InvalidDefinition and NotFound."""
    if (asked.name is None) == (asked.definition is None):
        raise BadRequest("request_invalid", "found both or neither of definition and name; expected one.")
    loop = asyncio.get_running_loop()
    if asked.name is not None:
        async with state.transaction() as connection:
            found = await definitions.find(connection, tenant, *definitions.split_type(asked.name))
        stored = await loop.run_in_executor(state.checking, compiled, found.sha256, found.source)
        return stored.definition
    data = json.dumps(asked.definition).encode()
    checked = await loop.run_in_executor(state.checking, lambda: validate_bytes(data, name="dry-run"))
    return checked.definition
