"""Server-sent events out of the packets of an answer."""

import codecs
from typing import Final

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bound on one event: more than any answer, so that a server cannot fill the memory."""


class EventTooLong(Exception):
    """A server sends without ever ending its event."""


class EventReader:
    """Takes packets as they come, and gives the data of the events that they complete.

    Only data is read: no provider says anything by an event's name that its data does not say, too.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The packets of a line that has not ended."""
        self._rest_size = 0
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, packet: bytes) -> list[bytes]:
        # A CR before the LF, and one that ended the packet before, go with their line.
        first, *lines = packet.split(b"\n")
        self._rest.append(first)
        self._rest_size += len(first)
        if lines:
            # Joined once, when the line ends: else many small packets would copy it again and again.
            lines, self._rest = [b"".join(self._rest), *lines[:-1]], [lines[-1]]
            self._rest_size = len(self._rest[0])
        events: list[bytes] = []
        for line in lines:
            if not self._begun:
                self._begun, line = True, line.removeprefix(codecs.BOM_UTF8)
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                self._end(events)
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line)
            # Everything else is a comment, which keeps connections alive, or a field that we do not need.
        if self._size + self._rest_size > MAX_BYTES:
            raise EventTooLong(f"one event of its answer is longer than {MAX_BYTES:,} bytes")
        return events

    def end(self) -> list[bytes]:
        """Return the rest after the last packet; some servers omit the empty line that ends an event."""
        return self.feed(b"\n\n")

    def _end(self, events: list[bytes]) -> None:
        if self._data:
            events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data, self._size = [], 0
