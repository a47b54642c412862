"""The state of every service: written by the runners, waited on, and written to disk for readers."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from infra.local import process, state
from infra.local.process import SetupProgress
from infra.local.service import Service
from infra.local.state import PlatformState, ServiceState, Status
from schema.errors import Unavailable

OnEvent = Callable[[ServiceState], None]
_PROGRESS_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Board:
    """The one place where the platform's state changes; every change reaches the disk and the listener."""

    def __init__(self, data: Path, first: PlatformState, on_event: OnEvent) -> None:
        self.stopping = threading.Event()
        self._data = data
        self._state = first
        self._on_event = on_event
        self._changed = threading.Condition()
        self._last_progress: dict[str, float] = {}
        self._written = True
        self._write()

    @property
    def state(self) -> PlatformState:
        return self._state

    def set(self, name: str, status: Status, message: str = "") -> None:
        self._change(name, lambda now: replace(now, status=status, message=message))

    def set_running(self, name: str, pid: int, restarts: int) -> None:
        """A process was started; it may not answer yet."""
        self._change(
            name,
            lambda now: replace(
                now,
                status="starting",
                message="",
                pid=pid,
                process_started=process.started(pid),
                started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                restarts=restarts,
            ),
        )

    def set_ended(self, name: str, status: Status, message: str) -> None:
        self._change(
            name, lambda now: replace(now, status=status, message=message, pid=None, process_started=None)
        )

    def set_stopped(self) -> None:
        """The last word: nothing runs any more."""
        with self._changed:
            self._state = replace(self._state, pid=None, process_started=None)
            self._write()

    def progress(self, name: str) -> SetupProgress:
        """For slow work: what it says is shown, but not more often than a person can read."""

        def say(message: str) -> None:
            now = time.monotonic()
            if now - self._last_progress.get(name, 0.0) >= _PROGRESS_SECONDS:
                self._last_progress[name] = now
                self.set(name, "preparing", message)

        return SetupProgress(say, self.stopping)

    def answers(self, names: Iterable[str]) -> bool:
        return all(self._state.services[name].answers for name in names)

    def wait_for_dependencies(self, service: Service) -> bool:
        """Until all answer; False when the platform stops first."""
        with self._changed:
            return (
                self._changed.wait_for(lambda: self.stopping.is_set() or self.answers(service.depends_on))
                and not self.stopping.is_set()
            )

    def wait_ready(self, names: Iterable[str], timeout_seconds: float) -> None:
        names = tuple(names)
        with self._changed:
            self._changed.wait_for(
                lambda: self.stopping.is_set() or self._any_failed(names) or self.answers(names),
                timeout_seconds,
            )
        if self.answers(names):
            return
        missing = [self._state.services[name] for name in names if not self._state.services[name].answers]
        described = "; ".join(f"{one.name} is {one.status} {one.message}".strip() for one in missing)
        raise Unavailable("server_not_ready", f"{described}. Logs: {self._data / 'logs'}")

    def wake(self) -> None:
        """Make waiters look again, after `stopping` was set."""
        with self._changed:
            self._changed.notify_all()

    def _any_failed(self, names: Iterable[str]) -> bool:
        return any(self._state.services[name].status == "failed" for name in names)

    def _change(self, name: str, change: Callable[[ServiceState], ServiceState]) -> None:
        with self._changed:
            now = change(self._state.services[name])
            self._state = replace(self._state, services={**self._state.services, name: now})
            self._write()
            self._changed.notify_all()
        with suppress(OSError):  # the caller may print to the same full disk
            self._on_event(now)

    def write_again(self) -> None:
        """Write what a full disk has kept from being written, once there is room."""
        with self._changed:
            if not self._written:
                self._write()

    def _write(self) -> None:
        """Write the state for readers. It is a courtesy to them: services are looked after without it."""
        try:
            state.write(self._data, self._state)
        except OSError as error:
            if self._written:
                _log.warning("State file could not be written, retrying", extra={"error": str(error)})
            self._written = False
        else:
            self._written = True
