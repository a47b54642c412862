"""A full disk under each server while runs go on: `python -m bench.disk [--seconds 10] [--json]`.

Each server's directory, the logs, and the whole data directory in turn lie on a small file system in memory
(root mounts it), which is filled to the last byte while runs are started, and emptied again. Afterwards every
run must have finished, and the copies must equal the fold of the outbox.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.crash import definition
from bench.outage import ended, settled, start_over
from db.engine import async_engine
from infra.disk import RESERVE_VARIABLE
from infra.local import start
from tests.support.stack import Stack, settings_of
from workflows.client import connect

SERVERS = ("postgres", "temporal", "neo4j", "weaviate")
WHOLE = "all"
TARGETS = (*SERVERS, "logs", WHOLE)
_SPARE_MIB = 96


@dataclass(frozen=True)
class Outcome:
    target: str
    full_seconds: float
    runs: int
    completed: int
    differences: int
    """Nodes, edges and objects of the copies that differ from the fold of the outbox."""
    ready_seconds: float
    """From the moment that there was room again until everything answered."""
    said: str
    """What the platform's state called the disk meanwhile."""

    @property
    def holds(self) -> bool:
        return (
            self.completed == self.runs
            and self.differences == 0
            and bool(self.said) == (self.target == WHOLE)
        )


@contextmanager
def small(place: Path) -> Iterator[None]:
    """Keep a directory on a file system with little room left, and bring it back afterwards."""
    kept = place.with_name(f"{place.name}.kept")
    place.rename(kept)
    place.mkdir()
    used = sum(path.lstat().st_blocks * 512 for path in kept.rglob("*"))
    size = used // 1024**2 + _SPARE_MIB
    _run("mount", "-t", "tmpfs", "-o", f"size={size}m", "facilitair-bench", str(place))
    try:
        _run("cp", "-a", f"{kept}/.", f"{place}/")
        yield
        shutil.rmtree(kept)
        _run("cp", "-a", str(place), str(kept))
    finally:
        _run("umount", "-l", str(place))
        place.rmdir()
        kept.rename(place)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def fill(place: Path) -> Path:
    """Take all the room there is."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024**2, 4096, 512):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


@asynccontextmanager
async def platform(data: Path, reserve_mib: int) -> AsyncIterator[Stack]:
    """The platform under a directory that stays."""
    supervisor = start(data, given={RESERVE_VARIABLE: str(reserve_mib)})
    try:
        names = (*SERVERS, "api", "worker", "projector")
        await asyncio.to_thread(supervisor.wait_ready, *names, timeout_seconds=900)
        settings = settings_of(dict(supervisor.environment))
        engine = async_engine(settings.database_url, pre_ping=True)
        try:
            client = await connect(settings.temporal_address, settings.temporal_namespace)
            yield Stack(supervisor, settings, engine, client)
        finally:
            await engine.dispose()
    finally:
        await asyncio.to_thread(supervisor.stop)


async def scenario(data: Path, target: str, seconds: float, runs: int) -> Outcome:
    """Fill one target's file system for a while, and see what became of the runs."""
    place = data if target == WHOLE else data / target
    with small(place):
        async with platform(data, _SPARE_MIB // 3 if target == WHOLE else 0) as on:
            chain = definition(4)
            await on.store(chain)
            prefix = f"disk-{target}-{int(time.time())}"
            starts = asyncio.create_task(start_over(on, chain["name"], prefix, runs, seconds + 4))
            await asyncio.sleep(2)
            filler = await asyncio.to_thread(fill, place)
            began = time.monotonic()
            await asyncio.sleep(seconds)
            said = on.supervisor.state.disk_full
            filler.unlink()
            full, emptied = time.monotonic() - began, time.monotonic()
            await on.wait_ready(*SERVERS, "api", "worker", timeout_seconds=180)
            ready = time.monotonic() - emptied
            results = [await ended(on, id) for id in await starts]
            return Outcome(
                target,
                round(full, 1),
                runs,
                results.count("completed"),
                await settled(on),
                round(ready, 1),
                said,
            )


async def measure(targets: list[str], seconds: float, runs: int) -> list[Outcome]:
    top = Path(tempfile.mkdtemp(prefix="facilitair-bench-"))
    top.chmod(0o711)
    data = top / "data"
    try:
        async with platform(data, 0):
            pass  # every server has made its store
        outcomes = []
        for target in targets:
            outcomes.append(await scenario(data, target, seconds, runs))
            print(f"{'holds' if outcomes[-1].holds else 'FAILS'} {asdict(outcomes[-1])}", file=sys.stderr)
        return outcomes
    finally:
        shutil.rmtree(top, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default=",".join(TARGETS), help="comma-separated targets")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcomes = asyncio.run(measure(given.only.split(","), given.seconds, given.runs))
    if given.json:
        print(json.dumps([asdict(outcome) | {"holds": outcome.holds} for outcome in outcomes]))


if __name__ == "__main__":
    main()
