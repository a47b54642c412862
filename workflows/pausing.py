"""A pause: nothing new begins until it has ended, here and in the runs that are steps of this one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from plan.walk import WalkSuspended

PAUSED_BY_PARENT: Final = "paused_by_parent"
"""The signal to a run that is a step of this one."""
# For the news of a pause that Postgres knows already: the signal of a run around this one.
_NEWS_TIMEOUT: Final = timedelta(seconds=1)

Child = workflow.ChildWorkflowHandle[Any, Any]


class PauseState:
    def __init__(self, own: bool, above: bool, draining: Callable[[], bool]) -> None:
        self.own = own
        """Whether somebody paused this run itself."""
        self.above = above
        """Whether somebody paused a run that this one is a step of."""
        self.over = False
        """Whether the run is closing: what undoes its work is not held up."""
        self._draining = draining
        self._children: dict[str, Child] = {}
        self._telling = asyncio.Lock()

    @property
    def on(self) -> bool:
        return (self.own or self.above) and not self.over

    async def set(self, *, own: bool | None = None, above: bool | None = None) -> None:
        """Begin or end it, and let the runs know that are steps of this one."""
        self.own = self.own if own is None else own
        self.above = self.above if above is None else above
        await self._tell(list(self._children.values()))

    async def ended(self) -> None:
        """Wait while it lasts; raises Later where the run is to be continued as new."""
        if not self.on:
            return
        await workflow.wait_condition(lambda: not self.on or self._draining())
        if self.on:
            raise WalkSuspended

    async def found(self) -> None:
        """Wait after an activity has found the run paused, whether or not that is known here yet."""
        if not self.on:
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self.on or self._draining(), timeout=_NEWS_TIMEOUT, timeout_summary="paused"
                )
            # Continued as new the run reads what Postgres knows.
            if not self.on and self._draining():
                raise WalkSuspended
        await self.ended()

    @asynccontextmanager
    async def told_to(self, path: str, child: Child) -> AsyncIterator[None]:
        """Let a run know that is a step of this one, as long as it runs."""
        self._children[path] = child
        try:
            if self.own or self.above:
                await self._tell([child])
            yield
        finally:
            del self._children[path]

    async def _tell(self, children: Iterable[Child]) -> None:
        # One after the other, each with what holds by then: no child is left with what held before.
        async with self._telling:
            paused = self.own or self.above
            await asyncio.gather(*(_signal(child, paused) for child in children))


async def _signal(child: Child, paused: bool) -> None:
    try:
        await child.signal(PAUSED_BY_PARENT, paused)
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.debug("Sub-collaboration ended before it was paused")
