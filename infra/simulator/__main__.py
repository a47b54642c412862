"""Start the simulator: python -m infra.simulator --port 7900."""

import argparse
import contextlib
import logging

import uvicorn

from infra.simulator.app import make_app
from infra.simulator.pacing import DropError


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="infra.simulator", description="The offline LLM provider.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", type=float, default=1.0, help="divides every delay; 0 or inf: no delay")
    arguments = parser.parse_args()
    if arguments.speed < 0:
        parser.error("--speed must not be negative")
    _allow_many_connections()
    logging.getLogger("uvicorn.error").addFilter(_not_on_purpose)
    uvicorn.run(
        make_app(arguments.seed, arguments.speed),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


def _not_on_purpose(record: logging.LogRecord) -> bool:
    """Broken connections that a script asked for are no news."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, DropError)


def _allow_many_connections() -> None:
    # Absent on Windows; elsewhere the usual soft limit of 1024 files is too low for thousands of streams.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
