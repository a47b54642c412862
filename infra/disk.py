"""Says whether there is room for new work on the file system that holds the platform's data."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from schema.errors import Unavailable

DATA_VARIABLE: Final = "FACILITAIR_DATA"
RESERVE_VARIABLE: Final = "FACILITAIR_DISK_RESERVE_MIB"
DEFAULT_RESERVE_MIB: Final = 512
"""Space that begun runs may still need to end, and that servers need to stay whole."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, and how much of it new work leaves free. Without a directory there is no limit: the
    data lies on other machines, whose disks we cannot see."""

    directory: str = ""
    reserve_mib: float = DEFAULT_RESERVE_MIB

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return the disk that an environment of the platform names."""
        reserve = environment.get(RESERVE_VARIABLE) or DEFAULT_RESERVE_MIB
        return cls(environment.get(DATA_VARIABLE, ""), float(reserve))

    @property
    def full(self) -> str:
        """Return what is wrong and what to do; empty while there is room."""
        if not self.directory:
            return ""
        wanted = Path(self.directory)
        place = next(path for path in (wanted, *wanted.parents) if path.exists())
        free = shutil.disk_usage(place).free / 1024**2
        if free >= self.reserve_mib:
            return ""
        return (
            f"the disk is full: found {free:.0f} MiB free for {self.directory}; expected at least "
            f"{self.reserve_mib:g} MiB ({RESERVE_VARIABLE}). Runs that have begun go on, new ones wait or "
            "are refused. Free some room; nothing has to be restarted."
        )

    def require_room(self) -> None:
        """Raise Unavailable("disk_full") while there is too little room to begin something new."""
        if full := self.full:
            raise Unavailable("disk_full", full)
