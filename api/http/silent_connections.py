"""Connections that have said nothing yet: they must not keep others out."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Final

_GRACE_SECONDS: Final = 1.0
"""Many honest clients that come at once are all silent for a moment: none of them is closed so soon."""


class SilentConnections:
    """All of one process, oldest first. Above a limit the oldest are closed: a client that has something to
    say is never among them."""

    def __init__(self, most: int, most_per_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._clock = clock
        self._all: OrderedDict[asyncio.Transport, tuple[str, float]] = OrderedDict()
        self._by_address: defaultdict[str, OrderedDict[asyncio.Transport, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, transport: asyncio.Transport, address: str) -> None:
        """Take in a new connection, and close the oldest where there are too many."""
        self._all[transport] = (address, self._clock())
        own = self._by_address[address]
        own[transport] = None
        while len(own) > self._most_per_address and self._close(next(iter(own))):
            pass
        while len(self._all) > self._most and self._close(next(iter(self._all))):
            pass

    def discard(self, transport: asyncio.Transport) -> None:
        """Forget a connection that has spoken or is gone."""
        found = self._all.pop(transport, None)
        if found is None:
            return
        own = self._by_address[found[0]]
        del own[transport]
        if not own:
            del self._by_address[found[0]]

    def _close(self, transport: asyncio.Transport) -> bool:
        """Close a connection unless it is new; return whether it was closed."""
        if self._clock() - self._all[transport][1] < _GRACE_SECONDS:
            return False
        self.discard(transport)
        transport.close()
        return True
