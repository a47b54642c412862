"""The life of one service, on one thread: prepare, wait for what it needs, start, watch, start again."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from infra.local import process
from infra.local.board import Board
from infra.local.service import Service
from schema.errors import FacilitairError

_POLL_SECONDS = 0.05
_PREPARE_AGAIN_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 10.0
_STEADY_SECONDS = 5.0
"""A process that lived this long was working: its end is one crash, not part of a row of failed starts."""
_FAILED_AFTER = 5
_ASK_AGAIN_SECONDS = 5.0


class Runner(threading.Thread):
    """Owns one service's process.

    One thread per service, because the kernel ties a child's parent-death signal to the thread that
    forked it: this thread lives exactly as long as the service is wanted.
    """

    def __init__(self, service: Service, board: Board, log: Path) -> None:
        super().__init__(name=f"facilitair-{service.name}", daemon=True)
        self.service = service
        self._board = board
        self._log = log
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = threading.Event()
        self._wanted.set()
        self._expected_end = False
        self._failed_starts = 0
        self._starts = 0
        self._log_began = 0

    def run(self) -> None:
        if self.service.command is None:
            self._watch_external()
        elif self._prepared() and self._board.wait_for_dependencies(self.service):
            while self._wait_until_wanted():
                self._run_once()
                if self.service.one_shot and self._board.answers([self.service.name]):
                    return
                self._pause()

    def kill(self, *, restart: bool) -> None:
        """SIGKILL, as a crash would; without `restart` it stays down until it is started again."""
        if not restart:
            self._wanted.clear()
        self._signal(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it cleanly if it runs, and start it."""
        self._expected_end = self._process is not None
        self.end()
        self._wanted.set()

    def signal_stop(self) -> None:
        self._signal(self.service.stop_signal)

    def end(self) -> None:
        """Stop the process if there is one: politely, then not."""
        child = self._process
        self.signal_stop()
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(self.service.stop_seconds)
            self._signal(signal.SIGKILL, child)
            child.wait()

    def _signal(self, number: int, child: subprocess.Popen[bytes] | None = None) -> None:
        with self._guard:
            child = child or self._process
            if child is not None:
                child.send_signal(number)  # checks that it was not reaped: never hits a reused pid

    def _prepared(self) -> bool:
        name = self.service.name
        while not self._board.stopping.is_set():
            try:
                self._board.set(name, "preparing")
                self.service.prepare(self._board.progress(name))
            except (FacilitairError, OSError, subprocess.SubprocessError) as error:
                if not self._board.stopping.is_set():
                    self._board.set(name, "failed", str(error))
                    self._board.stopping.wait(_PREPARE_AGAIN_SECONDS)
            else:
                self._board.set(name, "starting", _waits_for(self.service))
                return True
        return False

    def _watch_external(self) -> None:
        """Ask until it answers, then now and again: what others run may come and go."""
        name, known = self.service.name, False
        while not self._board.stopping.is_set():
            answers = self._answers()
            if answers != known or not answers:
                missing = f"no answer at {self.service.address}"
                self._board.set(name, "external" if answers else "starting", "" if answers else missing)
            known = answers
            self._board.stopping.wait(5.0 if answers else 0.5)

    def _wait_until_wanted(self) -> bool:
        while not self._board.stopping.is_set():
            if self._wanted.wait(_POLL_SECONDS):
                return not self._board.stopping.is_set()
        return False

    def _run_once(self) -> None:
        """One process from start to end."""
        began = time.monotonic()
        child = self._spawn()
        if child is None:
            return
        answered = not self.service.one_shot and self._wait_until_it_answers(child, began)
        if answered and self.service.patience_seconds is not None:
            self._watch(child, self.service.patience_seconds)
        code = child.wait()
        with self._guard:
            self._process = None
        if self.service.one_shot and code == 0:
            self._board.set_ended(self.service.name, "ready", "done")
            return
        expected, self._expected_end = self._expected_end, False
        if expected or not self._wanted.is_set() or (answered and time.monotonic() - began > _STEADY_SECONDS):
            self._failed_starts = 0
        else:
            self._failed_starts += 1
        self._tell_end(code)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        service = self.service
        assert service.command is not None
        try:
            command = service.command()
            with self._guard:
                if self._board.stopping.is_set():
                    return None
                self._log_began = self._log.stat().st_size if self._log.exists() else 0
                self._process = process.spawn(command, self._log, service.death_signal)
        except (FacilitairError, OSError) as error:
            self._failed_starts += 1
            self._board.set_ended(service.name, "failed", str(error))
            return None
        self._board.set_running(service.name, self._process.pid, restarts=self._starts)
        self._starts += 1
        return self._process

    def _wait_until_it_answers(self, child: subprocess.Popen[bytes], began: float) -> bool:
        while child.poll() is None:
            if self._answers():
                self._board.set(self.service.name, "ready")
                return True
            if time.monotonic() - began > self.service.start_seconds:
                self._signal(signal.SIGKILL, child)
            time.sleep(_POLL_SECONDS)
        return False

    def _watch(self, child: subprocess.Popen[bytes], patience_seconds: float) -> None:
        """Ask a live process whether it still answers; end it when it has not for too long."""
        answered_at = time.monotonic()
        while child.poll() is None:
            if self._answers():
                answered_at = time.monotonic()
            elif time.monotonic() - answered_at > patience_seconds:
                self._board.set(self.service.name, "starting", f"gave no answer for {patience_seconds:g} s")
                self._signal(self.service.stop_signal, child)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(self.service.stop_seconds)
                self._signal(signal.SIGKILL, child)
                return
            with suppress(subprocess.TimeoutExpired):
                child.wait(min(_ASK_AGAIN_SECONDS, patience_seconds / 4))

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.service.ready()
        return False

    def _tell_end(self, code: int) -> None:
        if self._board.stopping.is_set() or not self._wanted.is_set():
            self._board.set_ended(self.service.name, "stopped", "")
            return
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        failed = self._failed_starts >= _FAILED_AFTER
        # What it printed itself says most: a program that could not start wrote no log of its own.
        printed = self._log.exists() and self._log.stat().st_size > self._log_began
        log = self._log if printed or self.service.private_log is None else self.service.private_log
        message = (
            f"ended with {how}; {process.last_lines(log, 3)}" if self._failed_starts else f"ended with {how}"
        )
        self._board.set_ended(self.service.name, "failed" if failed else "starting", message)

    def _pause(self) -> None:
        """None after a first crash; longer and longer when starting keeps failing."""
        if self._failed_starts > 1:
            self._board.stopping.wait(min(0.1 * 2**self._failed_starts, _MAX_PAUSE_SECONDS))


def _waits_for(service: Service) -> str:
    return f"waits for {', '.join(service.depends_on)}" if service.depends_on else ""


def end_survivor(pid: int, start: str, stop_signal: int) -> None:
    """End what a supervisor that was killed has left behind."""
    if pid != os.getpid():
        process.end(pid, start, stop_signal, grace_seconds=15.0)
