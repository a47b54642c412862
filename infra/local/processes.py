"""The platform's own processes, started by module name; their code knows nothing of this package."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from infra.local import cache, private, process
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
            command=_module(data, {}, "infra.simulator", *simulated) if start_simulator else None,
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
            command=_module(data, {**_own_key(), **environment}, "api"),
            ready=lambda: http_answers(f"{api}/health/ready"),
            address=api,
            depends_on=("migrate", "temporal", "simulator"),
        ),
        # They call the providers, or ask them about lost calls, so they need our caller's keys, under
        # whatever names.
        _worker(data, {**_everything(), **environment}, "worker", "collaborations"),
        _worker(
            data,
            {**_everything(), **environment},
            "projector",
            "memory,learning,projections",
            niceness=process.UNHURRIED,
        ),
    ]


def _worker(data: Path, environment: Mapping[str, str], name: str, queues: str, niceness: int = 0) -> Service:
    ready_file = data / "run" / f"{name}.ready"
    start = _module(
        data, {**environment, "FACILITAIR_READY_FILE": str(ready_file)}, "workers", "--queues", queues
    )

    def command() -> Command:
        private.directory(ready_file.parent)
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


# What our own settings and Python's libraries read, without what names a key or a password.
_READ = (
    "FACILITAIR_",
    "TEMPORAL_",
    "NEO4J_",
    "OTEL_",
    "PYTHON",
    "HF_",
    "OMP_",
    "MKL_",
    "TORCH_",
    "LC_",
    "XDG_",
)
_SECRET_ENDINGS = ("_KEY", "_KEYS", "_PASSWORD", "_SECRET", "_TOKEN")
_TENANTS_KEYS = "FACILITAIR_KEY_"
_API_KEY = "FACILITAIR_API_KEY"
# It would forbid what PYTHONPYCACHEPREFIX is for.
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def _python_environment() -> dict[str, str]:
    """Return what every process of ours gets of our caller's environment.

    Compiled modules are kept in our cache where they may not be kept beside the sources: compiling litellm
    at each start would cost ten seconds.
    """
    environment = process.server_environment()
    for name, value in os.environ.items():
        secret = name.startswith(_TENANTS_KEYS) or name.endswith(_SECRET_ENDINGS)
        if name.startswith(_READ) and not secret and name != _NO_BYTECODE:
            environment[name] = value
    if _NO_BYTECODE in os.environ:
        environment["PYTHONPYCACHEPREFIX"] = str(cache.cache_dir() / "pycache")
    return environment


def _own_key() -> dict[str, str]:
    """Return the key that callers of the API must carry, for the one process that asks for it."""
    return {_API_KEY: os.environ[_API_KEY]} if _API_KEY in os.environ else {}


def _everything() -> dict[str, str]:
    """Return our caller's environment for a worker, which learns that the API has a key, and not which."""
    everything = {name: value for name, value in os.environ.items() if name not in (_NO_BYTECODE, _API_KEY)}
    return everything | {"FACILITAIR_SEAL_RUNS": "true"} if os.environ.get(_API_KEY) else everything


def _module(
    data: Path, environment: Mapping[str, str], module: str, *arguments: str
) -> Callable[[], Command]:
    command = Command(
        [sys.executable, "-m", module, *arguments],
        {**_python_environment(), **environment, "PYTHONUNBUFFERED": "1"},
        data,
    )
    return lambda: command
