"""Attacks on a platform of its own: `python -m bench.security [--json] [--short]`.

Plays the proofs of the audit and their kin (tests/security), more than 1,000 hostile uploads, inputs, pages
and starts against a running platform while a neighbour's runs are timed, and schemathesis against the API.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from bench.hostile_uploads import uploads
from bench.security import contract, neighbour
from bench.security.cases import activities, bounds, holds, names, outbound, pages
from bench.security.cases.playing import Case, RunCase, play
from tests.support.stack import Stack, stack

Window = tuple[float, float]
"""From when to when, on the monotonic clock."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_SERVICES: Final = ("temporal", "postgres", "simulator", "migrate", "api", "worker", "projector", "neo4j")
_SHOWN_HOLDS: Final = 5
_WARM_UP_SECONDS: Final = 20.0
"""Workers load litellm and torch when they serve already."""
_QUIET_SECONDS: Final = 6.0
_CASES_A_WINDOW: Final = 150
_CASES_A_SECOND: Final = 15.0
"""As many as one caller may send without being slowed by limits of the API."""


@dataclass(frozen=True)
class Hold:
    """A moment in which an event loop did nothing else."""

    process: str
    held_ms: float
    processor_ms: float
    """How much of that its own thread worked; the rest it waited for a processor."""


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
    held: list[Hold] = field(default_factory=list)
    """The longest holds."""
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
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={results}",
            "tests/security",
            cwd=_ROOT,
            stdout=sys.stderr,
        )
        await process.wait()
        for case in ET.parse(results).getroot().iter("testcase"):
            report.proofs += 1
            if case.find("failure") is not None or case.find("error") is not None:
                report.proofs_open += 1
                report.open.append(f"{case.get('classname')}.{case.get('name')}")


async def play_variants(report: Report, on: Stack) -> None:
    """Play every hostile case, in turn with quiet moments, while a neighbour's runs are timed."""
    await on.store(neighbour.DEFINITION)
    quiet, attacked = list[Window](), list[Window]()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.security.neighbour",
        on.settings.temporal_address,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it runs
    await asyncio.sleep(_WARM_UP_SECONDS)
    async with httpx.AsyncClient(base_url=on.supervisor.addresses["api"], timeout=60) as http:
        cases = await _cases(http)
        started = datetime.now(UTC)
        for first in range(0, len(cases), _CASES_A_WINDOW):
            began = time.monotonic()
            await asyncio.sleep(_QUIET_SECONDS)
            quiet.append((began, time.monotonic()))
            began = time.monotonic()
            await _attack(report, cases[first : first + _CASES_A_WINDOW], http, on)
            attacked.append((began, time.monotonic()))
    told, _ = await process.communicate(b"")  # its input ends, and so does it
    runs = [(float(began), float(took)) for began, took in map(str.split, told.decode().splitlines())]
    slow, usual = (statistics.median(_within(runs, windows)) for windows in (attacked, quiet))
    report.neighbour_slowdown = round(slow / usual, 3)
    report.held = sorted(_holds(on, started), key=lambda hold: -hold.held_ms)[:_SHOWN_HOLDS]
    report.loop_hold_max_ms = max((hold.held_ms for hold in report.held), default=0.0)


def _within(runs: list[tuple[float, float]], windows: list[Window]) -> list[float]:
    """Return the seconds of the runs that began in one of the windows."""
    return [took for began, took in runs if any(first <= began < last for first, last in windows)]


def _holds(on: Stack, since: datetime) -> Iterator[Hold]:
    """Return what the API and the workers have logged of their event loops."""
    for log in (on.supervisor.data / "logs").glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if '"held_ms"' in line:
                entry = json.loads(line)
                if datetime.fromisoformat(entry["time"]) >= since:
                    yield Hold(entry["process_name"], entry["held_ms"], entry["processor_ms"])


async def _cases(http: httpx.AsyncClient) -> list[Case | outbound.Case]:
    victim, prey = await names.prepare(http), await bounds.prepare(http)
    holding = [
        RunCase(
            one.name, one.definition, one.input, ("" if one.expected == holds.COMPLETED else one.expected,)
        )
        for one in holds.runs()
    ]
    return [
        *uploads(),
        *names.cases(victim),
        *bounds.cases(prey),
        *holding,
        *activities.cases(),
        *pages.cases(victim.completed, victim.definition),
        *outbound.cases(),
    ]


async def _attack(
    report: Report, cases: Sequence[Case | outbound.Case], http: httpx.AsyncClient, on: Stack
) -> None:
    for case in cases:
        began = time.monotonic()
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
        await asyncio.sleep(max(0.0, began + 1 / _CASES_A_SECOND - time.monotonic()))


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
