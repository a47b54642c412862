"""Downloads and builds, kept per user. A directory there is whole or absent."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.local import private
from infra.local.process import SetupProgress
from schema.errors import Unavailable

_MARKER = "complete.json"


def cache_dir() -> Path:
    """`$FACILITAIR_CACHE`, else facilitair/ in the user's cache directory."""
    if named := os.environ.get("FACILITAIR_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "facilitair"


def contents(directory: Path) -> Mapping[str, object] | None:
    """Return the note about a complete download; None if there is none."""
    try:
        noted: dict[str, object] = json.loads((directory / _MARKER).read_text())
    except (OSError, ValueError):
        return None
    return noted


def install(directory: Path, build: Callable[[Path], Mapping[str, object]], progress: SetupProgress) -> None:
    """Make `directory` with `build`, unless it is there. One builder at a time; half a build never shows."""
    if contents(directory) is not None:
        return
    private.owned(cache_dir())  # programs lie there that are run
    private.directory(directory.parent)
    with directory.with_name(f"{directory.name}.lock").open("w") as file:
        _wait_for(file.fileno(), progress)
        if contents(directory) is not None:
            return
        partial = directory.with_name(f"{directory.name}.partial")
        for leftover in (partial, directory):
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir()
        noted = build(partial)
        (partial / _MARKER).write_text(json.dumps(noted, indent=1))
        partial.rename(directory)


def _wait_for(descriptor: int, progress: SetupProgress) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            progress.say("another process is fetching it")
            if progress.stopping.wait(0.5):
                raise Unavailable(
                    "stopped", "stopped while waiting for another process to fetch it"
                ) from None
