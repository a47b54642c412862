"""Keeps what the platform writes from the other users of the machine."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from schema.errors import Refused

UMASK: Final = 0o077
_OF_OTHERS: Final = 0o077
_PASS_THROUGH: Final = 0o711
PROGRAMS: Final = "programs"
"""The folder of a data directory with copies of programs that another user must run, and no data."""


def directory(path: Path) -> Path:
    """Make a directory that only its owner may enter, unless it is there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def owned(path: Path) -> Path:
    """Make or take a directory that nobody else can have prepared for us.

    Raises Refused("directory_not_ours") when it is a link, belongs to another user, or everybody may write
    to it: they could have laid links or programs there. What only our group may write to, as where the umask
    is 002, is closed to it.
    """
    found = directory(path).lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o022 == 0o020:
        path.chmod(stat.S_IMODE(found.st_mode) & ~0o020)
        found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        wrong = "it is a link"
    elif not stat.S_ISDIR(found.st_mode):
        wrong = "it is no directory"
    elif found.st_uid not in (os.geteuid(), 0):
        wrong = f"it belongs to user {found.st_uid}"
    elif found.st_mode & 0o022:
        wrong = f"others may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return path
    raise Refused(
        "directory_not_ours",
        f"found {path}, but {wrong}; expected a directory of our own that nobody else may write to. "
        "Remove it, or name another place (XDG_RUNTIME_DIR for ports, FACILITAIR_CACHE for downloads).",
    )


def appended(path: Path) -> BinaryIO:
    """Open a file to write at its end, made for its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def tighten(data: Path, *, passable: bool) -> None:
    """Take from others what they may do under a data directory, also what an earlier version left open.

    `passable` leaves them the way through its top (not a look into it): Postgres runs as another user
    where we are root.
    """
    data.chmod(_PASS_THROUGH if passable else 0o700)
    for place, directories, files in os.walk(data):
        if place == str(data) and PROGRAMS in directories:
            directories.remove(PROGRAMS)
        for name in (*directories, *files):
            _close(os.path.join(place, name))  # noqa: PTH118 - there are thousands of them


def _close(path: str) -> None:
    with suppress(FileNotFoundError):  # another process may clear up meanwhile
        found = os.lstat(path)
        if found.st_mode & _OF_OTHERS and not stat.S_ISLNK(found.st_mode):
            os.chmod(path, stat.S_IMODE(found.st_mode) & ~_OF_OTHERS)  # noqa: PTH101


def closed_directory(path: Path) -> Path | None:
    """Return the first directory above `path` that other users cannot pass through, or None."""
    return next(
        (above for above in reversed(path.resolve().parents) if not above.stat().st_mode & 0o001), None
    )
