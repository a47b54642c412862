"""The measurements of one run of the benchmark: each in a process and a database of its own, in turn."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import make_url
from temporalio.service import RPCError

from bench.peers.figures import Figures, Row, after_kill, row, speed
from bench.peers.steps import read_notes
from bench.peers.worker import WARM_UP_SECONDS, Job, Result
from bench.peers.workloads import Cell
from infra.local import cache, process
from schema.errors import FacilitairError, Unavailable
from tests.support.stack import Stack, stack

SERVERS: Final = ("temporal", "postgres", "migrate")
OURS: Final = ("facilitair-step", "facilitair-chained")
ON_TEMPORAL: Final = (*OURS, "temporal-hand")

KILL_CAP_SECONDS: Final = 60.0
"""For the half before the kill, and again for what follows it."""
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
_ROOT: Final = Path(__file__).parents[2]


async def compare(
    peers: Sequence[str], cells: Sequence[Cell], rounds: int, cap_seconds: float
) -> tuple[list[Row], bool]:
    """(the rows, whether every measurement came to an end).

    Cell by cell, round by round, peer after peer: a machine that slows down slows all of them down.
    """
    rows, sound = [], True
    async with stack(SERVERS) as on:
        bench = Bench(on, cap_seconds)
        for cell in cells:
            found: dict[str, list[Figures]] = {peer: [] for peer in peers}
            for _ in range(rounds):
                for peer in peers:
                    try:
                        figures = await bench.measure(peer, cell)
                        _tell(f"{peer}, {_described(cell)}: {_in_short(figures)}")
                        found[peer].append(figures)
                    except (FacilitairError, psycopg.Error) as error:
                        sound = False
                        _tell(f"{peer}, {_described(cell)}: {error}")
            rows += [row(peer, cell, found[peer]) for peer in peers]
    return rows, sound


class Bench:
    def __init__(self, on: Stack, cap_seconds: float) -> None:
        self._on = on
        self._cap_seconds = cap_seconds
        self._count = 0

    async def measure(self, peer: str, cell: Cell) -> Figures:
        """One measurement. Raises Unavailable when the peer's process breaks."""
        self._count += 1
        name = f"peers_{self._count}"
        files = self._on.supervisor.data / name
        files.mkdir()
        runs = [f"bench-{peer}-{self._count}-{number}" for number in range(cell.runs)]
        with self._database(name, "facilitair" if peer in OURS else "template1") as database_url:
            job = Job(peer, cell.workload, cell.concurrency, runs, self._cap_seconds)
            try:
                if cell.name == "kill":
                    return await self._kill(job, files, database_url)
                result = await self._finished(
                    PeerProcess(job, files / "speed", self._environment(database_url))
                )
            finally:
                if peer in ON_TEMPORAL:
                    await self._terminate(runs)
        _tell_failures(result)
        return speed(
            cell, result.began, result.seconds, result.notes, len(result.finished), len(result.failed)
        )

    async def _kill(self, job: Job, files: Path, database_url: str) -> Figures:
        notes = files / "notes"
        job = replace(job, notes=str(notes), cap_seconds=KILL_CAP_SECONDS)
        environment = self._environment(database_url)
        worker = PeerProcess(job, files / "before", environment)
        half = len(job.runs) * job.workload.size // 2
        deadline = time.monotonic() + _START_SECONDS + WARM_UP_SECONDS + KILL_CAP_SECONDS
        try:
            while _ended(notes, frozenset(job.runs)) < half:
                worker.check(deadline)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            killed = time.monotonic()
            worker.kill()
        result = await self._finished(PeerProcess(replace(job, again=True), files / "after", environment))
        _tell_failures(result)
        noted = read_notes(notes.read_text())
        return after_kill(
            job.workload, frozenset(job.runs), noted, killed, result.finished, len(result.failed)
        )

    async def _finished(self, worker: "PeerProcess") -> Result:
        deadline = time.monotonic() + _START_SECONDS + WARM_UP_SECONDS + worker.job.cap_seconds + _END_SECONDS
        try:
            while not worker.result_file.exists():
                worker.check(deadline)
                await asyncio.sleep(_LOOK_SECONDS)
            return Result.read(worker.result_file)
        finally:
            worker.kill()

    async def _terminate(self, runs: Sequence[str]) -> None:
        """What a cut left over must not be worked on during the next measurement."""
        for first in range(0, len(runs), 50):
            await asyncio.gather(*(self._terminate_one(run) for run in runs[first : first + 50]))

    async def _terminate_one(self, run: str) -> None:
        with suppress(RPCError):  # it has ended, or was never started
            await self._on.client.get_workflow_handle(run).terminate()

    @contextmanager
    def _database(self, name: str, template: str) -> Iterator[str]:
        """A copy of a database, dropped with all that is still connected to it."""
        admin = make_url(self._on.settings.database_url)
        copy = sql.Identifier(name)
        with psycopg.connect(
            admin.set(database="postgres").render_as_string(hide_password=False), autocommit=True
        ) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, sql.Identifier(template))
            )
            try:
                yield admin.set(database=name).render_as_string(hide_password=False)
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(copy))

    def _environment(self, database_url: str) -> dict[str, str]:
        environment = {**os.environ, **self._on.supervisor.environment, "DATABASE_URL": database_url}
        environment["LANGSMITH_TRACING"] = "false"
        if environment.pop("PYTHONDONTWRITEBYTECODE", None):
            # Compiling litellm at each start would take longer than many a measurement.
            environment["PYTHONPYCACHEPREFIX"] = str(cache.cache_dir() / "pycache")
        return environment


class PeerProcess:
    """A peer's process. It dies with us at the latest."""

    def __init__(self, job: Job, files: Path, environment: dict[str, str]) -> None:
        """`files`: a path that the names of its files begin with."""
        self.job = job
        self.result_file = files.with_suffix(".result")
        self._log = files.with_suffix(".log")
        job_file = files.with_suffix(".job")
        job_file.write_text(json.dumps(asdict(job)))
        argv = [sys.executable, "-m", "bench.peers.worker", str(job_file), str(self.result_file)]
        self._process = process.spawn(process.Command(argv, environment, _ROOT), self._log)

    def check(self, deadline: float) -> None:
        """Raises Unavailable when it has ended without a result, or takes too long."""
        code = self._process.poll()
        if code is not None and not self.result_file.exists():
            said = process.last_lines(self._log, 3)
            raise Unavailable(
                "peer_broken", f"found its process ended with {code}; expected a result. {said}"
            )
        if time.monotonic() > deadline:
            said = process.last_lines(self._log, 3)
            raise Unavailable("peer_stuck", f"found no result in time; expected one. {said}")

    def kill(self) -> None:
        """At once, as a crash would; one that has ended already stays ended."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)


def _ended(notes: Path, runs: frozenset[str]) -> int:
    """Steps of the runs that have ended by now; those of the warm-up do not count."""
    if not notes.exists():
        return 0
    whole_lines = notes.read_text().rpartition("\n")[0]
    return sum(note.kind == "end" and note.run in runs for note in read_notes(whole_lines))


def _described(cell: Cell) -> str:
    workload = cell.workload
    return f"{cell.name} of {workload.size} x {workload.step_ms} ms, {cell.concurrency} at once"


def _in_short(figures: Figures) -> str:
    known = {name: value for name, value in asdict(figures).items() if value is not None}
    return " ".join(f"{name}={value:.4g}" for name, value in known.items())


def _tell_failures(result: Result) -> None:
    if result.failed:
        run, error = next(iter(result.failed.items()))
        _tell(f"{len(result.failed)} runs failed, the first of them {run}: {error}")


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
