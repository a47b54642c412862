"""Runs a set of services: in the order of what needs what, again when they crash, and cleanly to the end."""

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

from infra.local import private, process
from infra.local.board import Board, OnEvent
from infra.local.ports import Ports
from infra.local.runner import Runner, end_survivor
from infra.local.service import Service
from infra.local.state import PlatformState, ServiceState
from infra.local.upkeep import Upkeep
from schema.errors import Refused


class Supervisor:
    """A running platform. `start` makes it; its holder ends it with `stop`."""

    def __init__(
        self,
        data: Path,
        services: Sequence[Service],
        *,
        lock: IO[str],
        ports: Ports | None = None,
        chosen: Mapping[str, int] | None = None,
        addresses: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        on_event: OnEvent = lambda service: None,
    ) -> None:
        self.data = data
        self.addresses: Mapping[str, str] = dict(addresses or {})
        self.environment: Mapping[str, str] = dict(environment or {})
        self._lock = lock
        self._ports = ports
        self._stopped = threading.Lock()
        self._services = services
        self._levels = levels(services)
        first = PlatformState(
            pid=os.getpid(),
            process_started=process.started(os.getpid()),
            ports=dict(chosen or {}),
            addresses=self.addresses,
            environment=self.environment,
            services={one.name: _first_state(one) for one in services},
        )
        self._board = Board(data, first, on_event)
        logs = private.directory(data / "logs")
        self._runners = {one.name: Runner(one, self._board, logs / f"{one.name}.log") for one in services}

    def begin(self) -> None:
        Upkeep(self._board, self.data / "logs").start()
        for runner in self._runners.values():
            runner.start()

    @property
    def state(self) -> PlatformState:
        return self._board.state

    def wait_ready(self, *names: str, timeout_seconds: float = 120.0) -> None:
        """Until the named services answer; all that the main job needs when none is named.

        Raises Unavailable at once when one of them has failed, and when the time is over.
        """
        essential = [one.name for one in self.state.services.values() if one.essential]
        needed = closure(self._services, names or essential)
        self._board.wait_ready([one.name for one in needed], timeout_seconds)

    def kill(self, name: str, *, restart: bool = True) -> None:
        """SIGKILL one service, as a crash would; without `restart` it stays down until `restart(name)`."""
        self._runner(name).kill(restart=restart)

    def restart(self, name: str) -> None:
        self._runner(name).restart()

    def stop(self) -> None:
        """End everything, dependents first; returns when nothing runs any more."""
        with self._stopped:
            if self._lock.closed:
                return
            self._board.stopping.set()
            self._board.wake()
            for level in reversed(self._levels):
                for name in level:
                    self._runners[name].signal_stop()
                for name in level:
                    self._runners[name].end()
            for runner in self._runners.values():
                runner.join(timeout=5.0)
            self._board.set_stopped()
            if self._ports is not None:
                self._ports.release()
            self._lock.close()

    def _runner(self, name: str) -> Runner:
        if name not in self._runners:
            known = ", ".join(self._runners)
            raise Refused("service_unknown", f"found {name!r}; expected one of {known}.")
        return self._runners[name]


def _first_state(service: Service) -> ServiceState:
    return ServiceState(
        name=service.name,
        address=service.address,
        essential=service.essential,
        stop_signal=int(service.stop_signal),
    )


def levels(services: Sequence[Service]) -> list[list[str]]:
    """Names in groups: each group needs only services of the groups before it."""
    waiting = {one.name: set(one.depends_on) for one in services}
    done: set[str] = set()
    ordered: list[list[str]] = []
    while waiting:
        level = [name for name, needs in waiting.items() if needs <= done]
        if not level:
            raise Refused("services_cycle", f"services need each other or something unknown: {waiting}")
        ordered.append(level)
        done.update(level)
        for name in level:
            del waiting[name]
    return ordered


def closure(services: Sequence[Service], names: Collection[str]) -> list[Service]:
    """The named services and everything that they need."""
    by_name = {one.name: one for one in services}
    if unknown := sorted(set(names) - set(by_name)):
        raise Refused(
            "service_unknown", f"found {', '.join(unknown)}; expected some of {', '.join(by_name)}."
        )
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(by_name[name].depends_on)
    return [one for one in services if one.name in wanted]


def end_survivors(before: PlatformState | None) -> None:
    """End what an earlier supervisor of this data directory, killed by now, has left running."""
    if before is None:
        return
    threads = [
        threading.Thread(target=end_survivor, args=(one.pid, one.process_started, one.stop_signal))
        for one in before.services.values()
        if process.is_same(one.pid, one.process_started)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
