"""Maintain a running platform: bound the size of logs, write its state."""

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.local.board import Board
from infra.local.process import MAX_LOG_BYTES, older

_EVERY_SECONDS: Final = 1.0


class Upkeep(threading.Thread):
    """Looks after the files of one supervisor until it stops."""

    def __init__(self, board: Board, logs: Path) -> None:
        super().__init__(name="facilitair-upkeep", daemon=True)
        self._board = board
        self._logs = logs

    def run(self) -> None:
        while not self._board.stopping.wait(_EVERY_SECONDS):
            self._board.write_again()
            for log in self._logs.glob("*.log"):
                with suppress(OSError):  # a full disk, for one: the next look tries again
                    if log.stat().st_size > MAX_LOG_BYTES:
                        turn(log)


def turn(log: Path) -> None:
    """Begin a log anew while its process writes to it; what it held is kept once.

    Processes hold their logs open at the end, so a log is copied and cut off; a line that is written in
    between is lost.
    """
    kept = older(log)
    kept.unlink(missing_ok=True)  # first: on a full disk it is the room that the copy needs
    shutil.copyfile(log, kept)
    with log.open("r+b") as file:
        file.truncate(0)
