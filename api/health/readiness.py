"""Cache the answer of /health/ready for a moment: anyone may ask, and each answer asks four servers."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from api.http.shared_models import Ready

KEPT_SECONDS: Final = 1.0


class Readiness:
    """The last answer for each tenant, and the one that is being made."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, asyncio.Task[Ready]]] = {}

    async def of(self, tenant: str, ask: Callable[[], Coroutine[Any, Any, Ready]]) -> Ready:
        """Return the answer; however many wait for it, the servers are asked once."""
        began, asking = self._asked.get(tenant, (0.0, None))
        now = time.monotonic()
        if asking is None or (asking.done() and now - began > KEPT_SECONDS):
            asking = asyncio.create_task(ask())
            self._asked[tenant] = (now, asking)
        # One who leaves must not take the answer from the others.
        return await asyncio.shield(asking)
