"""The time that Temporal allows an agent step, and what is left of it."""

import asyncio
from dataclasses import dataclass


@dataclass
class Deadline:
    """Shared by all attempts at a step: answers, turns and verdicts."""

    limit: float
    """Seconds that Temporal allows the activity, further answers included."""
    started_at: float
    """On the loop's clock."""

    @property
    def half_time(self) -> float:
        """The time at which waiting for others must end: the other half is for the call itself."""
        return self.started_at + self.limit / 2

    @property
    def end(self) -> float:
        return self.started_at + self.limit

    def restart(self) -> None:
        """Begin anew: waiting for other agents takes nothing from the time of one's own answer."""
        self.started_at = asyncio.get_running_loop().time()

    def seconds_left(self) -> float:
        # A little less than Temporal allows, so that it is we who name the reason.
        ours = max(self.limit * 0.95, self.limit - 1)
        return max(ours - (asyncio.get_running_loop().time() - self.started_at), 0.0)
