"""Count wrong keys per address, so that guessing gets slower with every guess."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MAX_FREE_KEYS: Final = 5
"""Different wrong keys that cost an address nothing."""
MAX_WAIT_SECONDS: Final = 60.0
FORGET_AFTER_SECONDS: Final = 15 * 60.0
_MAX_ADDRESSES: Final = 10_000


@dataclass
class _Failures:
    keys: set[bytes] = field(default_factory=set)
    count: int = 0
    last_at: float = 0.0
    wait_until: float = 0.0


class FailedKeys:
    """The wrong keys of each address. The same wrong key again is a client that was not told of a change,
    not a guess: it is not counted twice."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()
        self._secret = secrets.token_bytes(16)

    def wait_seconds(self, address: str) -> float:
        """Return how long the address has to wait before a key of its is looked at again."""
        found = self._by_address.get(address)
        return max(0.0, found.wait_until - self._clock()) if found else 0.0

    def add(self, address: str, key: str) -> None:
        """Note that the address gave a wrong key."""
        now = self._clock()
        self._forget(now)
        found = self._by_address.setdefault(address, _Failures())
        self._by_address.move_to_end(address)
        found.last_at = now
        # Kept so that not even a dump of this process shows what people mistype.
        digest = hashlib.blake2b(key.encode(), key=self._secret, digest_size=8).digest()
        if digest in found.keys:
            return
        if len(found.keys) < MAX_FREE_KEYS * 2:
            found.keys.add(digest)
        found.count += 1
        if found.count > MAX_FREE_KEYS:
            seconds = 2.0 ** min(found.count - MAX_FREE_KEYS - 1, 10)
            found.wait_until = now + min(seconds, MAX_WAIT_SECONDS)

    def _forget(self, now: float) -> None:
        while self._by_address:
            oldest = next(iter(self._by_address.values()))
            quiet = now - oldest.last_at > FORGET_AFTER_SECONDS
            if not quiet and len(self._by_address) < _MAX_ADDRESSES:
                return
            self._by_address.popitem(last=False)
