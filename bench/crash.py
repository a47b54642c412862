"""kill -9 of the worker in the middle of many runs: `python -m bench.crash [--chained] [--json]`.

100 collaborations of 8 agent steps run twice with the same inputs: once in peace, once while the worker is
killed five times. Judged by Postgres and by the provider's own books. `--chained`: the steps of a run share
one activity.
"""

import argparse
import asyncio
import json
import random
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from tests.support.stack import Stack, stack


@dataclass(frozen=True)
class Report:
    collaborations: int
    steps: int
    kills: int
    finished: int
    outputs_equal: int
    committed_steps_run_again: int
    calls: int
    calls_repeated: int
    calls_in_flight_at_kills: int
    """Begun at the provider and not committed in Postgres, by the books of both, after each kill."""
    first_step_after_ready_seconds: list[float]
    first_step_after_kill_seconds: list[float]
    seconds: float
    seconds_undisturbed: float

    @property
    def holds(self) -> bool:
        """Every promise but the speed of the return."""
        return (
            self.finished == self.outputs_equal == self.collaborations
            and self.committed_steps_run_again == 0
            and self.calls_repeated <= self.calls_in_flight_at_kills
        )


def definition(steps: int, *, chained: bool = False) -> dict[str, Any]:
    """A chain of agents, each reading the answer of the one before."""
    models = ("deepseek/deepseek-chat", "openai/gpt-4o-mini", "qwen/qwen-2.5-coder")
    chain = {
        f"s{i}": {
            "kind": "agent",
            "agent": f"a{i % len(models)}",
            "prompt": f"Step {i}: ${{input.task}}" + (f"\n\n${{steps.s{i - 1}.output}}" if i else ""),
        }
        for i in range(steps)
    }
    return {
        "name": "crash-chain",
        **({"defaults": {"chain": "all"}} if chained else {}),
        "agents": {f"a{i}": {"role": "coder", "model": model} for i, model in enumerate(models)},
        "steps": chain,
        "output": f"${{steps.s{steps - 1}.output}}",
    }


async def _run_all(on: Stack, count: int, prefix: str, kills: int, rng: random.Random) -> dict[str, Any]:
    handles = [
        await on.start("crash-chain", {"task": f"write function number {i}"}, f"{prefix}-{i}")
        for i in range(count)
    ]
    began = time.monotonic()
    results = asyncio.gather(*(handle.result() for handle in handles))
    disturbed = [await _kill(on, rng, results) for _ in range(kills)]
    return {
        "outputs": await results,
        "seconds": time.monotonic() - began,
        "kills": [one for one in disturbed if one is not None],
    }


async def _kill(on: Stack, rng: random.Random, results: "asyncio.Future[Any]") -> dict[str, float] | None:
    await asyncio.sleep(rng.uniform(2.0, 8.0))
    if results.done():
        return None
    before = on.supervisor.state.services["worker"].pid
    killed = datetime.now(UTC)
    await asyncio.to_thread(on.supervisor.kill, "worker")
    async with on.engine.connect() as connection:
        committed = set((await connection.execute(_COMMITTED)).scalars())
    in_flight = len((await on.provider_calls())["by_key"].keys() - committed)
    while on.supervisor.state.services["worker"].pid in (before, None):
        await asyncio.sleep(0.01)
    await on.wait_ready("worker")
    ready = datetime.now(UTC)
    first = await _first_step_after(on, ready, results)
    return {
        "in_flight": in_flight,
        "after_ready": (first - ready).total_seconds() if first else 0.0,
        "after_kill": (first - killed).total_seconds() if first else 0.0,
    }


async def _first_step_after(on: Stack, moment: datetime, results: "asyncio.Future[Any]") -> datetime | None:
    query = text("SELECT min(started_at) FROM agent_executions WHERE started_at > :moment")
    while not results.done():
        async with on.engine.connect() as connection:
            found: datetime | None = (await connection.execute(query, {"moment": moment})).scalar()
        if found:
            return found
        await asyncio.sleep(0.02)
    return None


_COMMITTED = text("""
    SELECT collaboration_id || '/' || step_id || '/' || iteration FROM agent_executions
    WHERE status = 'completed'
""")

_RUN_AGAIN = text("""
    SELECT count(*) FROM agent_executions later JOIN agent_executions done
      USING (collaboration_id, step_id, iteration)
    WHERE done.status = 'completed' AND later.id <> done.id AND later.started_at > done.completed_at
""")


async def measure(
    collaborations: int, steps: int, kills: int, seed: int = 7, *, chained: bool = False
) -> Report:
    rng = random.Random(seed)
    async with stack() as on:
        await on.store(definition(steps, chained=chained))
        peace = await _run_all(on, collaborations, "peace", 0, rng)
        before = (await on.provider_calls())["total"]["calls"]
        crash = await _run_all(on, collaborations, "crash", kills, rng)
        calls = (await on.provider_calls())["total"]["calls"] - before
        async with on.engine.connect() as connection:
            again = (await connection.execute(_RUN_AGAIN)).scalar_one()
            finished = (
                await connection.execute(
                    text(
                        "SELECT count(*) FROM collaborations "
                        "WHERE status = 'completed' AND temporal_workflow_id LIKE 'crash-%'"
                    )
                )
            ).scalar_one()
    return Report(
        collaborations=collaborations,
        steps=steps,
        kills=len(crash["kills"]),
        finished=finished,
        outputs_equal=sum(a == b for a, b in zip(peace["outputs"], crash["outputs"], strict=True)),
        committed_steps_run_again=again,
        calls=calls,
        calls_repeated=calls - collaborations * steps,
        calls_in_flight_at_kills=int(sum(kill["in_flight"] for kill in crash["kills"])),
        first_step_after_ready_seconds=[round(kill["after_ready"], 2) for kill in crash["kills"]],
        first_step_after_kill_seconds=[round(kill["after_kill"], 2) for kill in crash["kills"]],
        seconds=round(crash["seconds"], 1),
        seconds_undisturbed=round(peace["seconds"], 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collaborations", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--chained", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = asyncio.run(
        measure(given.collaborations, given.steps, given.kills, given.seed, chained=given.chained)
    )
    if given.json:
        print(json.dumps(asdict(report) | {"holds": report.holds}))
        return
    for name, value in asdict(report).items():
        print(f"{name.replace('_', ' '):36} {value}")
    print(f"{'holds':36} {report.holds}")


if __name__ == "__main__":
    main()
