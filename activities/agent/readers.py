"""Choose the readers of a step's live output in this run: adaptive edges are drawn by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.runs.context import StepContext
from db.engine import transaction
from db.router import edges
from db.router.edges import EdgeDraw, EdgeKey, EdgeState
from router.edges import topology
from schema.language.definition import StreamEdge
from schema.language.steps import AgentStep
from schema.language.streams import Streams
from schema.temporal.steps import StepRequest


@dataclass(frozen=True, slots=True)
class Deliveries:
    """At one step."""

    heard: Streams
    """The live edges without those by which the step is told nothing in this run."""
    readers: list[str]
    """The agents that are sent what it says."""


async def of_step(
    engine: AsyncEngine, context: StepContext, request: StepRequest, *, simulated: bool
) -> Deliveries:
    """Decide once for a run, path and source, whichever of the two asks first. `simulated`: whether the
    simulator answers the step."""
    own, streams = request.step, context.compiled.streams
    sent = [edge for edge in context.definition.stream if edge.source == own]
    adaptive = [edge for edge in (*sent, *streams.read_by(own)) if edge.adaptive]
    silent = await _silent(engine, context, request, adaptive, simulated) if adaptive else set()

    def left(read: Sequence[StreamEdge]) -> list[StreamEdge]:
        return [edge for edge in read if (edge.source, own) not in silent]

    heard = replace(
        streams,
        sources={**streams.sources, own: left(streams.sources.get(own, ()))},
        peers={**streams.peers, own: left(streams.peers.get(own, ()))},
    )
    readers = (context.compiled.steps[edge.target] for edge in sent if (own, edge.target) not in silent)
    return Deliveries(heard, list(dict.fromkeys(one.agent for one in readers if isinstance(one, AgentStep))))


async def _silent(
    engine: AsyncEngine,
    context: StepContext,
    request: StepRequest,
    adaptive: Sequence[StreamEdge],
    simulated: bool,
) -> set[tuple[str, str]]:
    """(source, target) of the edges that are not used."""
    run = context.run
    # Both ends of a live edge stand in one body, so they share a frame.
    paths = {edge: replace(request, step=edge[1], purpose="").path for edge in map(_ends, adaptive)}
    async with transaction(engine) as connection:
        known = await edges.decided(connection, run.id, list(paths.values()))
        if open := [edge for edge in paths if (paths[edge], edge[0]) not in known]:
            states = await edges.states(connection, run.tenant, run.name, simulated=simulated)
            if new := [edge for edge in open if edge not in states]:
                await edges.meet(
                    connection, [EdgeKey(run.tenant, run.name, *edge, simulated) for edge in new]
                )
            made: list[EdgeDraw] = []
            for source, target in open:
                standing = states.get((source, target), EdgeState())
                chance = topology.chance(standing.state, standing.foreseen)
                path = paths[source, target]
                if chance < 1:
                    delivered = topology.drawn(f"{run.id}/{path}/{source}", chance)
                    made.append(EdgeDraw(path, source, target, delivered, chance))
            if made:
                known |= await edges.decide(connection, run.id, run.tenant, run.name, made)
    return {edge for edge, path in paths.items() if not known.get((path, edge[0]), True)}


def _ends(edge: StreamEdge) -> tuple[str, str]:
    return edge.source, edge.target
