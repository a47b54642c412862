"""Attacks on a platform of its own: `python -m bench.security [--json] [--short]`.

Plays the proofs of the audit and their kin (tests/security), more than 1,000 hostile uploads, inputs, pages
and starts against a running platform while a neighbour's runs are timed, and schemathesis against the API.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bench.hostile_uploads import uploads
from bench.security import contract
from bench.security.cases import activities, bounds, holds, names, outbound, pages
from bench.security.cases.playing import Case, RunCase, play
from bench.stack import Stack, stack
from schema.messages import QUEUE_COLLABORATIONS

_ROOT: Final = Path(__file__).resolve().parents[2]
_SERVICES: Final = ("temporal", "postgres", "simulator", "migrate", "api", "worker", "projector", "neo4j")
_NEIGHBOUR: Final[dict[str, Any]] = {
    "name": "neighbour",
    "steps": {
        f"s{n}": {"kind": "tool", "tool": "pause", "args": {"seconds": 0}, "chain": False} for n in range(10)
    },
}
"""A chain of 10 steps that do nothing, each an activity of its own."""
_QUIET_RUNS: Final = 8
_CASES_A_WINDOW: Final = 100
_HELD: Final = re.compile(r'"held_ms": ?([0-9.]+)')
_HOLD_GAUGE: Final = re.compile(r"^facilitair_loop_hold_seconds_max\S* ([0-9.e-]+)$", re.MULTILINE)


@dataclass
class Report:
    proofs: int = 0
    proofs_open: int = 0
    variants: int = 0
    variants_open: int = 0
    server_errors: int = 0
    """Answers of the hostile cases with a status of 500 or more."""
    loop_hold_max_ms: float = 0.0
    """The longest hold of the event loops of API and workers while the cases were played."""
    neighbour_slowdown: float = 0.0
    """Median time of a neighbour's run under attack, over that of a quiet moment just before."""
    schemathesis_cases: int = 0
    schemathesis_server_errors: int = 0
    schemathesis_undocumented: int = 0
    open: list[str] = field(default_factory=list)
    """What did not come to what it must."""

    @property
    def holds(self) -> bool:
        faults = self.proofs_open + self.variants_open + self.server_errors
        faults += self.schemathesis_server_errors + self.schemathesis_undocumented
        return not faults and self.loop_hold_max_ms <= 100 and self.neighbour_slowdown <= 1.1


async def play_proofs(report: Report) -> None:
    """Run tests/security, whose tests are the audit's proofs and the doors like theirs."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}",
            "tests/security", cwd=_ROOT, stdout=sys.stderr,
        )  # fmt: skip
        await process.wait()
        for case in ET.parse(results).getroot().iter("testcase"):
            report.proofs += 1
            if case.find("failure") is not None or case.find("error") is not None:
                report.proofs_open += 1
                report.open.append(f"{case.get('classname')}.{case.get('name')}")


async def play_variants(report: Report, on: Stack) -> None:
    """Play every hostile case while a neighbour's runs are timed."""
    await on.store(_NEIGHBOUR)
    quiet, attacked = list[float](), list[float]()
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=on.supervisor.addresses["api"], timeout=60, limits=limits) as http:
        await _neighbours_runs(on, _QUIET_RUNS)  # warms up
        before = await _holds(http, on)
        cases = await _cases(http)
        for first in range(0, len(cases), _CASES_A_WINDOW):
            quiet += await _neighbours_runs(on, _QUIET_RUNS)
            attack = asyncio.create_task(_attack(report, cases[first : first + _CASES_A_WINDOW], http, on))
            while not attack.done():
                attacked += await _neighbours_runs(on, 1)
            await attack
        held = [ms for ms in await _holds(http, on) if ms not in before]
    report.loop_hold_max_ms = max(held, default=0.0)
    report.neighbour_slowdown = round(statistics.median(attacked) / statistics.median(quiet), 3)


async def _cases(http: httpx.AsyncClient) -> list[Case | outbound.Case]:
    victim, prey = await names.prepare(http), await bounds.prepare(http)
    holding = [
        RunCase(
            one.name, one.definition, one.input, ("" if one.expected == holds.COMPLETED else one.expected,)
        )
        for one in holds.runs()
    ]
    return [
        *uploads(), *names.cases(victim), *bounds.cases(prey), *holding, *activities.cases(),
        *pages.cases(victim.completed, victim.definition), *outbound.cases(),
    ]  # fmt: skip


async def _attack(
    report: Report, cases: Sequence[Case | outbound.Case], http: httpx.AsyncClient, on: Stack
) -> None:
    for case in cases:
        report.variants += 1
        if isinstance(case, outbound.Case):
            found = await case.play()
            came = "" if found == case.expected else found
        else:
            came = await play(case, http, on.client)
            report.server_errors += came.startswith("5")
        if came:
            report.variants_open += 1
            report.open.append(f"{case.name}: {came}")


async def _neighbours_runs(on: Stack, number: int) -> list[float]:
    """Seconds that runs of a neighbour take, one after the other."""
    found = []
    for _ in range(number):
        began = time.perf_counter()
        id = f"neighbour-{time.monotonic_ns()}"
        await on.client.execute_workflow("neighbour", {}, id=id, task_queue=QUEUE_COLLABORATIONS)
        found.append(time.perf_counter() - began)
    return found


async def _holds(http: httpx.AsyncClient, on: Stack) -> list[float]:
    """Milliseconds: what the API tells of its loop, and what the workers have logged of theirs."""
    found = [float(one) * 1e3 for one in _HOLD_GAUGE.findall((await http.get("/metrics")).text)]
    for log in (on.supervisor.data / "logs").glob("*.log"):
        found += [float(one) for one in _HELD.findall(log.read_text(errors="replace"))]
    return [round(one, 1) for one in found]


async def measure(*, short: bool) -> Report:
    report = Report()
    if not short:
        await play_proofs(report)
    async with stack(_SERVICES) as on:
        await on.wait_ready("api", "worker", "projector", "neo4j", timeout_seconds=300)
        await play_variants(report, on)
    found = await contract.measure(contract.SHORT if short else contract.LONG)
    report.schemathesis_cases, report.schemathesis_server_errors = found.cases, found.server_errors
    report.schemathesis_undocumented = found.undocumented
    report.open += sorted(found.faults)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--short", action="store_true", help="without the proofs, and less of schemathesis")
    arguments = parser.parse_args()
    report = asyncio.run(measure(short=arguments.short))
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        for name, value in asdict(report).items():
            print(f"{name}: {value}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
