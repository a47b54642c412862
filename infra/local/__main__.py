"""`python -m infra.local --data DIR`: runs the platform until it is told to stop (SIGTERM or SIGINT)."""

import argparse
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from infra.local import private
from infra.local.platform import start
from infra.local.state import ServiceState
from schema.errors import FacilitairError


def main() -> int:
    os.umask(private.UMASK)
    parser = argparse.ArgumentParser(prog="python -m infra.local")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", help="comma-separated services; what they need comes with them")
    arguments = parser.parse_args()
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # outlives the terminal
    try:
        only = arguments.only.split(",") if arguments.only else None
        supervisor = start(arguments.data, only, on_event=_print)
    except FacilitairError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    told.wait()
    supervisor.stop()
    return 0


def _print(service: ServiceState) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(f"{now} {service.name}: {service.status} {service.message}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
