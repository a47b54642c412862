"""A worker process: `python -m workers --queues collaborations,memory,learning,projections`."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from db.telemetry import log_as_json, setup
from schema.settings import Settings
from schema.temporal.queues import QUEUE_COLLABORATIONS, QUEUE_LEARNING, QUEUE_MEMORY, QUEUE_PROJECTIONS

QUEUES = (QUEUE_COLLABORATIONS, QUEUE_MEMORY, QUEUE_LEARNING, QUEUE_PROJECTIONS)


def _arguments() -> list[str]:
    parser = argparse.ArgumentParser(description="Run Facilitair's workflows and activities.")
    parser.add_argument("--queues", default=",".join(QUEUES), help="comma-separated task queues to serve")
    queues = [queue.strip() for queue in parser.parse_args().queues.split(",") if queue.strip()]
    if unknown := [queue for queue in queues if queue not in QUEUES]:
        parser.error(f"found the queue {unknown[0]!r}; expected some of {', '.join(QUEUES)}")
    return queues


async def _serve(queues: list[str], settings: Settings) -> None:
    from workers.build import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(queues, settings, stop)


def main() -> None:
    queues = _arguments()
    settings = Settings()
    log_as_json()
    provider = setup("worker-" + queues[0], settings)
    runner: contextlib.AbstractContextManager[asyncio.Runner]
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner as running:
        running.run(_serve(queues, settings))
    provider.shutdown()


if __name__ == "__main__":
    # Python 3.11's -m leaves the current folder on the path; make it the repository's root explicitly.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
