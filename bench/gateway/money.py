"""Money under fire: budgets shared while calls fail and workers die. Run: python -m bench.gateway.money

The simulator's own books are the judge: what it counted for each call, times the price, rounded once for each
call. `budget_overshoot_usd` is the most by which any budget was exceeded by what was really called, and
`ledger_error_usd` the sum of all differences, call by call, between our ledger and those books.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.upkeep.reconcile import Reconciler
from bench.gateway.money_driver import Driver
from bench.gateway.money_world import World, make
from db.engine import async_engine
from gateway.client import Gateway
from gateway.prices import PRICES
from infra.local import start
from tests.support.providers import only_simulated, running_simulator

FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "rate_limit", "retry_after_seconds": 0.05, "chance": 0.01},
    {"kind": "server_error", "chance": 0.02},
    {"kind": "drop_mid_stream", "after_tokens": 7, "chance": 0.03},
    {"kind": "end_early", "chance": 0.02},
    {"kind": "no_usage", "chance": 0.01},
    {"kind": "timeout", "chance": 0.005},
    {"kind": "timeout", "after_tokens": 9, "chance": 0.005},
    {"kind": "slow", "delay_seconds": 0.5, "chance": 0.05},
    {"kind": "broken_body", "chance": 0.1},
)
GRACE_SECONDS: Final = 3.0
"""Instead of minutes: a simulator on the same machine knows at once what it will ever know."""
RECONCILE_SECONDS: Final = 3.0
SETTLE_TIMEOUT_SECONDS: Final = 120.0


async def measure(
    runs: int = 10_000, processes: int = 4, at_once: int = 24, kills: int = 16, seed: int = 6
) -> dict[str, Any]:
    """The whole of it, with servers of its own."""
    data = Path(tempfile.mkdtemp(prefix="facilitair-money-"))
    supervisor = start(data, ("postgres", "migrate"), given={})
    try:
        await asyncio.to_thread(supervisor.wait_ready, timeout_seconds=120)
        # So slow that workers die in the middle of answers, and not so slow that they only wait.
        with running_simulator("8") as simulator_url:
            return await _measure(
                supervisor.environment["DATABASE_URL"], simulator_url, runs, processes, at_once, kills, seed
            )
    finally:
        await asyncio.to_thread(supervisor.stop)
        shutil.rmtree(data, ignore_errors=True)


async def _measure(
    database_url: str, simulator_url: str, runs: int, processes: int, at_once: int, kills: int, seed: int
) -> dict[str, Any]:
    began = time.monotonic()
    engine = async_engine(database_url, pool_size=10)
    chance = random.Random(seed)
    world = await make(engine, runs, chance)
    async with httpx.AsyncClient(base_url=simulator_url, timeout=60) as control:
        rules = [rule | {"times": None} for rule in FAULTS]
        (await control.post("/_simulator/faults", json=rules)).raise_for_status()
        driver = Driver(database_url, simulator_url, world.units, at_once, kills, chance)
        gateway = Gateway(only_simulated(simulator_url))
        # Two of them, as where somebody runs the worker of the projections twice.
        reconcilers = [Reconciler(engine, gateway, grace_seconds=GRACE_SECONDS) for _ in range(2)]
        schedule = [asyncio.create_task(_schedule(one)) for one in reconcilers]
        try:
            await driver.run(processes)
        finally:
            for task in schedule:
                task.cancel()
            await asyncio.gather(*schedule, return_exceptions=True)
        worked = time.monotonic() - began
        left = await _reconcile_all(engine, reconcilers)
        provider = await _provider(control)
    ledger = await _ledger(engine)
    await gateway.close()
    await engine.dispose()
    judged = _judge(world, provider, ledger)
    return judged | {
        "budget_runs": world.runs,
        "units": len(world.units),
        "attempts": driver.attempts,
        "workers_killed": driver.killed,
        "ends": dict(driver.ends.most_common()),
        "calls_left_open": left,
        "strange": driver.strange[:5],
        "work_seconds": round(worked, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


async def _schedule(reconciler: Reconciler) -> None:
    while True:
        await reconciler.all_lost()
        await asyncio.sleep(RECONCILE_SECONDS)


async def _reconcile_all(engine: AsyncEngine, reconcilers: list[Reconciler]) -> int:
    """How many calls are left that nobody can close in time."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    query = text("SELECT count(*) FROM model_calls WHERE state IN ('open', 'unknown')")
    while True:
        await asyncio.gather(*(one.all_lost() for one in reconcilers))
        async with engine.connect() as connection:
            left: int = (await connection.execute(query)).scalar_one()
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.5)


@dataclass(frozen=True)
class _BookedCall:
    """A call in the simulator's books."""

    run: str
    usd: Decimal
    outcome: str


async def _provider(control: httpx.AsyncClient) -> dict[str, list[_BookedCall]]:
    """Our name for a call → what the simulator counted under it, which should be one call."""
    while (await control.get("/_simulator/calls?limit=1")).json()["total"]["open"]:
        await asyncio.sleep(0.1)
    found: dict[str, list[_BookedCall]] = defaultdict(list)
    since, newest = 0, 1
    while since < newest:
        answer = (await control.get(f"/_simulator/calls?since={since}&limit=20000")).json()
        newest, page = answer["newest"], answer["recent"]
        for one in page:
            usd = PRICES[one["model"]].cost_usd(one["input_tokens"], one["output_tokens"])
            found[one["request_id"]].append(_BookedCall(one["key"].partition("/")[0], usd, one["outcome"]))
        since = page[-1]["number"] if page else newest
    return found


async def _ledger(engine: AsyncEngine) -> dict[str, Any]:
    query = text("SELECT id::text, state, basis, usd FROM model_calls")
    async with engine.connect() as connection:
        return {row.id: row for row in await connection.execute(query)}


def _judge(world: World, provider: dict[str, list[_BookedCall]], ledger: dict[str, Any]) -> dict[str, Any]:
    error, spent = Decimal(0), dict.fromkeys(world.allowed, Decimal(0))
    for name in provider.keys() | ledger.keys():
        counted = sum((one.usd for one in provider.get(name, ())), Decimal(0))
        booked = ledger[name].usd if name in ledger else Decimal(0)
        error += abs(counted - booked)
    for calls in provider.values():
        for one in calls:
            for scope in world.scopes[one.run]:
                spent[scope] += one.usd
    over = max(spent[scope] - allowed for scope, allowed in world.allowed.items())
    tight = [scope for scope, allowed in world.allowed.items() if spent[scope] > allowed * Decimal("0.85")]
    kinds = Counter(kind for _, kind, _, _ in world.allowed)
    calls = [one for several in provider.values() for one in several]
    return {
        "budget_overshoot_usd": float(max(over, Decimal(0))),
        "ledger_error_usd": float(error),
        "calls": len(calls),
        "calls_named_twice": sum(len(one) > 1 for one in provider.values()),
        "outcomes": dict(Counter(one.outcome for one in calls).most_common()),
        "counted_usd": float(sum(one.usd for one in calls)),
        "booked": dict(Counter(f"{row.state}/{row.basis}" for row in ledger.values()).most_common()),
        "budgets": dict(kinds),
        "budgets_used_up": dict(Counter(kind for _, kind, _, _ in tight)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gateway.money", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=24, help="steps that a process has at a time")
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--short", action="store_true", help="300 runs, 2 processes, 2 kills")
    given = parser.parse_args()
    how = SHORT if given.short else {name: getattr(given, name) for name in SHORT}
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(asyncio.run(measure(**how, seed=given.seed)), indent=1))


SHORT: Final = {"runs": 300, "processes": 2, "at_once": 8, "kills": 2}

if __name__ == "__main__":
    main()
