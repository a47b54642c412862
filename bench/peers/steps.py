"""What every peer's steps do, and the notes of when they did it."""

import asyncio
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from bench.peers.workloads import OUTPUT_BYTES, Workload

UNKNOWN: Final = -1
"""The number of a step that cannot tell which one it is; the order of its run's notes says it then."""


class Note(NamedTuple):
    kind: Literal["begin", "end"]
    run: str
    step: int
    seconds: float
    """Of CLOCK_MONOTONIC, which all processes of a machine share."""


class Notes:
    """Kept in memory, or in a file that outlives a kill: each line is one append, whole or absent."""

    def __init__(self, file: Path | None) -> None:
        self.kept: list[Note] = []
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(file, flags, 0o600) if file else None

    def begin(self, run: str, step: int) -> None:
        self._add(Note("begin", run, step, time.monotonic()))

    def end(self, run: str, step: int) -> None:
        self._add(Note("end", run, step, time.monotonic()))

    def _add(self, note: Note) -> None:
        if self._file is None:
            self.kept.append(note)
        else:
            os.write(self._file, f"{note.kind} {note.run} {note.step} {note.seconds:.6f}\n".encode())


def read_notes(text: str) -> list[Note]:
    """The notes of a file."""
    found = []
    for line in text.splitlines():
        kind, run, step, seconds = line.split()
        found.append(Note("begin" if kind == "begin" else "end", run, int(step), float(seconds)))
    return found


class Steps:
    """The two steps there are. `number` counts a run's steps from 0, in the order of the definition."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    async def pause(self, run: str, number: int, seconds: float) -> int:
        self.notes.begin(run, number)
        if seconds:
            await asyncio.sleep(seconds)
        self.notes.end(run, number)
        return number

    def write(self, run: str, number: int, seen: Collection[str]) -> str:
        """A text of OUTPUT_BYTES, from all the texts so far."""
        self.notes.begin(run, number)
        text = "x" * OUTPUT_BYTES
        self.notes.end(run, number)
        return text


class Peer(Protocol):
    """A system that runs workloads durably, with its worker in this process."""

    async def run(self, workload: Workload, run: str) -> None:
        """Run to the end. A run of that name that a killed process has left is brought to its end instead."""
