"""A run's stream as it comes, through dropped connections and restarts of the API."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final

from cli.client import Api, segment
from cli.output import NothingRunning
from schema.errors import FacilitairError, Unavailable

RECONNECT_TIMEOUT_SECONDS: Final = 60.0
"""Longest wait for an API that stopped answering: it may be restarting, and the run goes on."""
_PAUSE_SECONDS: Final = 0.25
_WAITING: Final = 1_000
"""Events that are held for a terminal that is slower than the run; then the API waits."""

Event = dict[str, Any]


def messages(chunks: Iterable[bytes]) -> Iterator[tuple[str, Event]]:
    """(id, data) of every server-sent event that came whole."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for one in whole:
            # By hand: JSON may hold what other readers take for the end of a line.
            lines = [line.partition(b":") for line in one.split(b"\n")]
            fields = {name: value.removeprefix(b" ") for name, _, value in lines if name}
            if data := fields.get(b"data"):
                yield fields.get(b"id", b"").decode(), json.loads(data)


class Stream:
    """A thread that reads, so that who shows it can also look at the clock and the keyboard."""

    def __init__(self, api: Api, id: str, **query: Any) -> None:
        self._api = api
        self._path = f"/collaborations/{segment(id)}/stream"
        self._query = query
        self._events: queue.Queue[Event | FacilitairError | None] = queue.Queue(_WAITING)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not joined: it may wait for bytes, and ends with them or with the process.
        self._left.set()

    def take(self, seconds: float) -> tuple[list[Event], bool]:
        """(what came within some time, whether it was the last); raises what ended it."""
        found: list[Event] = []
        with contextlib.suppress(queue.Empty):
            one = self._events.get(timeout=seconds)
            while len(found) < _WAITING:
                if isinstance(one, FacilitairError):
                    if found:
                        self._events.put(one)
                        return found, False
                    raise one
                if one is None:
                    return found, True
                found.append(one)
                one = self._events.get_nowait()
        return found, False

    def _read(self) -> None:
        place, deadline = "", time.monotonic() + RECONNECT_TIMEOUT_SECONDS
        while not self._left.is_set():
            try:
                with self._api.stream(self._path, place, **self._query) as chunks:
                    for id, event in messages(chunks):
                        deadline = time.monotonic() + RECONNECT_TIMEOUT_SECONDS
                        self._put(event)
                        place = id or place
                        if event["type"] in ("RUN_FINISHED", "RUN_ERROR"):
                            return self._put(None)
                        if self._left.is_set():
                            return None
            except (NothingRunning, Unavailable) as error:
                if time.monotonic() > deadline:
                    return self._put(error)
            except FacilitairError as error:
                return self._put(error)
            self._left.wait(_PAUSE_SECONDS)
        return None

    def _put(self, one: Event | FacilitairError | None) -> None:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                return self._events.put(one, timeout=1)
