"""One measurement of one peer, in a process of its own: `python -m bench.peers.worker JOB RESULT`."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from bench.peers.steps import Note, Notes, Peer, Steps
from bench.peers.workloads import Workload
from schema.settings import Settings

WARM_UP_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Job:
    peer: str
    workload: Workload
    concurrency: int
    runs: list[str]
    """Their names."""
    cap_seconds: float
    """What is not done by then does not count."""
    notes: str | None = None
    """The file for the notes; None: they come with the result."""
    again: bool = False
    """The runs were begun by a process that was killed."""

    @classmethod
    def read(cls, file: Path) -> "Job":
        given = json.loads(file.read_text())
        return cls(**given | {"workload": Workload(**given["workload"])})


@dataclass
class Result:
    began: float = 0.0
    """Of CLOCK_MONOTONIC, in seconds, as in the notes."""
    seconds: float = 0.0
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Run to error."""
    notes: list[Note] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> "Result":
        given = json.loads(file.read_text())
        return cls(**given | {"notes": [Note(*note) for note in given["notes"]]})


async def measure(job: Job, result_file: Path) -> None:
    settings = Settings()
    notes = Notes(Path(job.notes) if job.notes else None)
    async with _opened(job, settings, notes) as peer:
        if not job.again:
            await _warm_up(peer, job)
        result = await _load(peer, job)
        result.notes = notes.kept
        partial = result_file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(result)))
        partial.rename(result_file)
        # Runs that were cut would be waited for, some peers for ever. All they hold goes with the database.
        os._exit(0)


def _opened(job: Job, settings: Settings, notes: Notes) -> AbstractAsyncContextManager[Peer]:
    """The peer's packages are imported here, so that one can be measured without the others."""
    workloads = [job.workload.small, job.workload]
    match job.peer:
        case "facilitair-step" | "facilitair-chained":
            from bench.peers import facilitair

            chained = job.peer == "facilitair-chained"
            return facilitair.opened(settings, workloads, notes, chained=chained, again=job.again)
        case "temporal-hand":
            from bench.peers import temporal_hand

            return temporal_hand.opened(settings.temporal_address, Steps(notes))
        case "langgraph":
            from bench.peers import langgraph_peer

            return langgraph_peer.opened(settings.database_url, workloads, Steps(notes), again=job.again)
        case "dbos":
            from bench.peers import dbos_peer

            return dbos_peer.opened(settings.database_url, Steps(notes))
    raise SystemExit(f"found the peer {job.peer!r}; expected one of bench.peers.workloads.PEERS")


async def _warm_up(peer: Peer, job: Job) -> None:
    names = [f"warm-{run}" for run in job.runs[: min(job.concurrency, 10)]]
    runs = asyncio.gather(*(peer.run(job.workload.small, name) for name in names))
    await asyncio.wait_for(runs, WARM_UP_SECONDS)


async def _load(peer: Peer, job: Job) -> Result:
    """So many runs at a time until all are done or the time is up."""
    result = Result(began=time.monotonic())
    waiting = iter(job.runs)
    takers = [asyncio.create_task(_take(peer, job, waiting, result)) for _ in range(job.concurrency)]
    await asyncio.wait(takers, timeout=job.cap_seconds)
    result.seconds = time.monotonic() - result.began
    return result


async def _take(peer: Peer, job: Job, waiting: Iterator[str], result: Result) -> None:
    for name in waiting:
        try:
            await peer.run(job.workload, name)
            result.finished.append(name)
        except Exception as error:
            result.failed[name] = f"{type(error).__name__}: {error}"


def main() -> None:
    job_file, result_file = (Path(given) for given in sys.argv[1:])
    # The same loop for all, so that it makes no difference between them.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(Job.read(job_file), result_file))


if __name__ == "__main__":
    main()
