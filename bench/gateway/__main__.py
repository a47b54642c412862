"""The gateway, its books and its limits, measured: `python -m bench.gateway [--short] [--json]`.

Everything runs on this machine, each part with servers of its own; how to run one part by itself stands in
its module.
"""

import argparse
import asyncio
import json
import sys
from typing import Any

from bench.gateway import faults, money, traffic, wire
from gateway.client import warm_up
from tests.support.providers import running_simulator
from tests.support.stack import stack


async def measure(*, short: bool) -> dict[str, Any]:
    """All of it: about a quarter of an hour, or two minutes when short."""
    warm_up()
    _say("overhead and memory")
    with running_simulator() as simulator:
        found: dict[str, Any] = await wire.overhead(simulator, 200 if short else 1_000)
        found |= await wire.growth(simulator, 1_000 if short else 10_000)
    _say("faults")
    async with stack(("temporal", "postgres", "migrate")) as here:
        with running_simulator() as simulator:
            cells = faults.CELLS[::7] if short else faults.CELLS
            found |= await faults.matrix(here.settings.database_url, simulator, cells)
        with running_simulator() as simulator:
            _say("limits")
            limits = traffic.limits_short if short else traffic.limits
            found |= await limits(here.settings.database_url, simulator)
            _say("cache")
            found |= await traffic.cache(here.settings.database_url, simulator)
    _say("money")
    return found | await money.measure(300 if short else 10_000, kills=4 if short else 16)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.gateway", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small form of everything")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found = asyncio.run(measure(short=arguments.short))
    if arguments.json:
        print(json.dumps(found, default=str))
    else:
        for name, value in found.items():
            print(f"{name:28} {value}")
    wrong = ("budget_overshoot_usd", "ledger_error_usd", "fault_cells_failed", "rate_limit_violations")
    return int(any(float(found[name]) for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
