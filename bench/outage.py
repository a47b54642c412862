"""A server away in the middle of running collaborations: `python -m bench.outage [--seconds 60] [--json]`.

Neo4j, Weaviate and the provider are killed (-9) and stay away for a minute while runs are started; Postgres
and Temporal are killed and come back at once. Afterwards every run must have finished, and the projections
must equal the fold of the outbox.
"""

import argparse
import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from neo4j.exceptions import DriverError, Neo4jError
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from bench.crash import definition
from db import outbox
from db.engine import transaction
from graph import client as graph_client
from graph import projection as graph_projection
from graph import verify as graph_verify
from graph.fold import EVENT_TYPES as GRAPH_EVENTS
from memory import projection as memory_projection
from memory import verify as memory_verify
from memory.client import WeaviateMemory
from memory.projection import EVENT_TYPES as MEMORY_EVENTS
from router.data.encoder import ENCODER, encode
from tests.support.stack import Stack, stack

STAY_AWAY = ("neo4j", "weaviate", "simulator")
COME_BACK = ("postgres", "temporal")
_SETTLE_SECONDS = 180.0


@dataclass(frozen=True)
class Outcome:
    service: str
    away_seconds: float
    runs: int
    completed: int
    failed: int
    differences: int
    """Nodes, edges and objects of the projections that differ from the fold of the outbox."""
    settled_seconds: float
    """From the last run's end until the projections had caught up."""

    @property
    def holds(self) -> bool:
        return self.completed == self.runs and self.differences == 0


async def scenario(on: Stack, service: str, seconds: float, runs: int) -> Outcome:
    """Kill one service, start runs all the while, and see what became of them."""
    chain = definition(4)
    await on.store(chain)
    name = f"outage-{service}-{int(time.time())}"
    starts = asyncio.create_task(start_over(on, chain["name"], name, runs, seconds + 4))
    await asyncio.sleep(2)
    began = time.monotonic()
    await asyncio.to_thread(on.supervisor.kill, service, restart=False)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(on.supervisor.restart, service)
    await on.wait_ready(service, timeout_seconds=180)
    away = time.monotonic() - began
    results = [await ended(on, id) for id in await starts]
    finished = time.monotonic()
    differences = await settled(on)
    return Outcome(
        service,
        round(away, 1),
        runs,
        results.count("completed"),
        runs - results.count("completed"),
        differences,
        round(time.monotonic() - finished, 1),
    )


async def start_over(on: Stack, definition: str, prefix: str, runs: int, seconds: float) -> list[str]:
    """Start `runs` collaborations spread over `seconds`; a start that Temporal did not take is repeated."""
    ids = [f"{prefix}-{i}" for i in range(runs)]
    for id in ids:
        while True:
            try:
                await on.start(definition, {"task": f"write function {id}"}, id)
                break
            except RPCError:
                await asyncio.sleep(0.5)
        await asyncio.sleep(seconds / runs)
    return ids


async def ended(on: Stack, id: str) -> str:
    while True:
        try:
            await on.client.get_workflow_handle(id).result()
            return "completed"
        except WorkflowFailureError as error:
            return f"failed: {error.cause}"
        except RPCError:
            await asyncio.sleep(0.5)  # Temporal itself is away


async def differences(on: Stack) -> list[str] | None:
    """How the projections differ from the fold of the outbox; None while one of them is still behind."""
    memory, graph = WeaviateMemory(on.settings), graph_client.connect(on.settings)
    try:
        places = (
            (await graph_projection.position(graph), GRAPH_EVENTS),
            (await memory_projection.position(memory), MEMORY_EVENTS),
        )
        async with transaction(on.engine) as connection:
            if any([(await outbox.behind(connection, at, list(kinds)))[0] for at, kinds in places]):
                return None
        in_graph = await graph_verify.check(on.engine, graph)
        in_memory = await memory_verify.check(on.engine, memory, ENCODER, encode)
        return in_graph + in_memory
    finally:
        await memory.close()
        await graph.close()


async def settled(on: Stack) -> int:
    """The differences once nothing moves any more; -1 when it never comes to rest."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        # A graph that is only just coming back refuses logins.
        with suppress(DriverError, Neo4jError):
            if (found := await differences(on)) is not None:
                return len(found)
        await asyncio.sleep(0.5)
    return -1


async def measure(seconds: float, runs: int) -> list[Outcome]:
    async with stack(None) as on:
        await on.wait_ready("neo4j", "weaviate", "projector", timeout_seconds=900)
        outcomes = []
        for service in (*STAY_AWAY, *COME_BACK):
            outcome = await scenario(on, service, seconds if service in STAY_AWAY else 0.5, runs)
            print(f"{'holds' if outcome.holds else 'FAILS'} {asdict(outcome)}", file=sys.stderr)
            outcomes.append(outcome)
        return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcomes = asyncio.run(measure(given.seconds, given.runs))
    if given.json:
        print(json.dumps([asdict(outcome) | {"holds": outcome.holds} for outcome in outcomes]))


if __name__ == "__main__":
    main()
