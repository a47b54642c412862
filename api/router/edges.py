"""Adaptive edges of a definition: which help, which are pruned, and what people want of them."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.definitions.routes import Name
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.state import Actor, Connection, Simulated, StateOf, Tenant
from db.definitions import definitions
from db.router import edges
from db.router.edges import EdgeKey
from schema.language.steps import StepId

router = APIRouter(prefix="/definitions/{name}/edges", tags=["definitions"])

EdgeMode = Literal["kept", "pruned", "pinned"]


class Edge(BaseModel):
    source: str
    target: str
    state: EdgeMode
    effect: float | None = Field(
        description="Quality with it less quality without, or what is foreseen; null: not yet looked at."
    )
    low: float | None
    high: float | None = Field(description="`low` to `high` is the 90 % interval.")
    runs: int = Field(description="Judged runs that this rests on.")
    set_by: str | None = Field(
        description="A person; network: foreseen, as too few runs have tried it; null: the evidence."
    )
    since: datetime


class EdgeList(BaseModel):
    simulated: bool = Field(description="Whether simulated runs tell of these edges; else real ones do.")
    items: list[Edge]


class EdgeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: EdgeMode = Field(
        description="pinned: in every run, whatever the evidence; kept, pruned: until that says otherwise."
    )


@router.get("", responses=errors(404))
async def list_edges(name: Name, connection: Connection, tenant: Tenant, simulated: Simulated) -> EdgeList:
    """The adaptive edges that runs of the definition have met, whichever its version."""
    found = await edges.of_definition(connection, tenant, name, simulated=simulated)
    if not found:
        await definitions.find(connection, tenant, name)
    items = [Edge.model_validate(one, from_attributes=True) for one in found]
    return EdgeList(simulated=simulated, items=items)


@router.put("/{source}/{target}", openapi_extra=body_of(EdgeRequest), responses=errors(404, 413, 415))
async def set_edge(
    name: Name,
    source: StepId,
    target: StepId,
    request: Request,
    state: StateOf,
    tenant: Tenant,
    actor: Actor,
    simulated: Simulated,
) -> EdgeList:
    """Pin an edge, let go of it, or set where the evidence goes on from, in real and in simulated runs."""
    wanted = await read_json(request, state, EdgeRequest)
    async with state.transaction() as connection:
        key = EdgeKey(tenant, name, source, target, simulated)
        await edges.set_state(connection, key, wanted.state, actor)
        return await list_edges(name, connection, tenant, simulated)
