"""Child processes: started so that they cannot outlive us, named by pid and start time, ended by pid."""

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infra.local import private
from schema.errors import Unavailable

_LAUNCHER = Path(__file__).with_name("launch.py")
MAX_LOG_BYTES: Final = 20 * 1024 * 1024
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")

UNHURRIED: Final = 10


@dataclass(frozen=True, slots=True)
class Command:
    """Command line, environment and user of one program."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    user: str = ""
    """"uid:gid" to change to (root only); empty keeps ours."""
    niceness: int = 0
    """Niceness of its process: work that nobody waits for must not slow down other work."""


@dataclass(frozen=True, slots=True)
class SetupProgress:
    """Progress reports of slow work, and its signal to stop."""

    say: Callable[[str], None] = field(default=lambda message: None)
    stopping: threading.Event = field(default_factory=threading.Event)


def server_environment(**extra: str) -> dict[str, str]:
    """For third-party servers: none of our caller's API keys, none of its stray server settings."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | extra


def python_program(path: Path) -> list[str]:
    """Return the command line for a file of ours. -P: its directory has modules that would hide the standard
    library's."""
    return [sys.executable, "-P", str(path)]


def spawn(command: Command, log: Path, death_signal: int = signal.SIGKILL) -> subprocess.Popen[bytes]:
    """Start a child that dies with the calling thread; its output is appended to `log`."""
    _rotate(log)
    launcher = [
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        f"{os.getpid()}:{int(death_signal)}",
        command.user,
        str(command.niceness),
    ]
    with private.appended(log) as output:
        return subprocess.Popen(
            [*launcher, *command.argv],
            env=dict(command.environment),
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches us only; we stop children in order
        )


def spawn_detached(command: Command, log: Path) -> None:
    """Start a process that outlives us and is no child of ours."""
    with private.appended(log) as output:
        subprocess.run(
            [sys.executable, "-I", "-S", str(_LAUNCHER), "detach", command.user, "0", *command.argv],
            env=dict(command.environment),
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )


def run_tool(
    argv: Sequence[str],
    progress: SetupProgress,
    *,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    user: str = "",
    niceness: int = 0,
    on_line: Callable[[str], None] = lambda line: None,
) -> str:
    """Run a program to its end and return its output; a failure carries the last lines of it."""
    life = f"{os.getpid()}:{int(signal.SIGTERM)}"
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), life, user, str(niceness)]
    lines: list[str] = []
    with subprocess.Popen(
        [*launcher, *argv],
        env=dict(os.environ if environment is None else environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as child:
        watcher = threading.Thread(target=_end_when_stopping, args=(child, progress.stopping), daemon=True)
        watcher.start()
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            on_line(line.rstrip())
    if child.returncode != 0:
        tail = "".join(lines[-15:]).strip()
        raise Unavailable("tool_failed", f"{Path(argv[0]).name} ended with {child.returncode}: {tail}")
    return "".join(lines)


def _end_when_stopping(child: subprocess.Popen[str], stopping: threading.Event) -> None:
    while child.poll() is None:
        if stopping.wait(0.2):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its own group: compilers go with the build tool
            return


def started(pid: int) -> str | None:
    """Return when a living process began, in a form that no other process with that pid will ever have."""
    if not sys.platform.startswith("linux"):
        found = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return found.stdout.strip() or None
    try:
        # The command name may hold spaces and brackets; everything after its last bracket is regular.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def is_same(pid: int | None, start: str | None) -> bool:
    return pid is not None and start is not None and started(pid) == start


def end(pid: int, start: str, stop_signal: int, grace_seconds: float) -> None:
    """End a process that is not our child: politely, then not. Does nothing if it is another one by now."""
    for number, patience in ((stop_signal, grace_seconds), (signal.SIGKILL, 10.0)):
        if not is_same(pid, start):
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and is_same(pid, start):
            time.sleep(0.02)


def unprivileged_user() -> str:
    """Return "uid:gid" for servers that refuse to run as root; empty when we are not root."""
    if os.geteuid() != 0:
        return ""
    for name in ("pgserver", "postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return f"{entry.pw_uid}:{entry.pw_gid}"
    raise Unavailable("no_user", "found no user pgserver, postgres or nobody to run Postgres as: create one.")


def last_lines(log: Path, count: int = 5) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        return "\n".join(file.read().decode(errors="replace").strip().splitlines()[-count:])
    return ""


def _rotate(log: Path) -> None:
    private.directory(log.parent)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(older(log))


def older(log: Path) -> Path:
    """Return where the part of a log is kept that came before."""
    return log.with_suffix(".log.1")
