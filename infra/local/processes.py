"""The platform's own processes, started by module name; their code knows nothing of this package."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from infra.local import cache, process
from infra.local.process import Command
from infra.local.service import Service, http_answers


def services(data: Path, environment: Mapping[str, str], *, start_simulator: bool) -> list[Service]:
    """`environment` holds every server's address, also of those that are still arriving."""
    simulator = environment["FACILITAIR_SIMULATOR_URL"]
    api = f"http://{environment['FACILITAIR_HOST']}:{environment['FACILITAIR_PORT']}"
    simulated = ("--host", "127.0.0.1", "--port", simulator.rpartition(":")[2])
    return [
        Service(
            name="simulator",
            command=_module(data, environment, "infra.simulator", *simulated) if start_simulator else None,
            ready=lambda: http_answers(f"{simulator}/health"),
            address=simulator,
        ),
        Service(
            name="migrate",
            command=_module(data, environment, "db.migrate"),
            ready=lambda: False,
            depends_on=("postgres",),
            one_shot=True,
        ),
        Service(
            name="api",
            command=_module(data, environment, "api"),
            ready=lambda: http_answers(f"{api}/health/ready"),
            address=api,
            depends_on=("migrate", "temporal", "simulator"),
        ),
        _worker(data, environment, "worker", "collaborations"),
        _worker(data, environment, "projector", "memory,learning,projections", niceness=process.UNHURRIED),
    ]


def _worker(data: Path, environment: Mapping[str, str], name: str, queues: str, niceness: int = 0) -> Service:
    ready_file = data / "run" / f"{name}.ready"
    start = _module(
        data, {**environment, "FACILITAIR_READY_FILE": str(ready_file)}, "workers", "--queues", queues
    )

    def command() -> Command:
        ready_file.parent.mkdir(exist_ok=True)
        ready_file.unlink(missing_ok=True)  # the one before wrote it; this one has to say so itself
        return replace(start(), niceness=niceness)

    return Service(
        name=name,
        command=command,
        ready=ready_file.exists,
        address=queues,
        depends_on=("migrate", "temporal", "simulator"),
        stop_seconds=15.0,
    )


def _python_environment() -> dict[str, str]:
    """Our environment, with compiled modules kept in our cache where they may not be kept beside the sources:
    compiling litellm at each start would cost ten seconds."""
    environment = dict(os.environ)
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = str(cache.cache_dir() / "pycache")
    return environment


def _module(
    data: Path, environment: Mapping[str, str], module: str, *arguments: str
) -> Callable[[], Command]:
    command = Command(
        [sys.executable, "-m", module, *arguments],
        {**_python_environment(), **environment, "PYTHONUNBUFFERED": "1"},
        data,
    )
    return lambda: command
