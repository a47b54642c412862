"""Compare the copies in Neo4j and Weaviate with the log that they are made from."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from temporalio import activity

from activities.heartbeats import heartbeats
from schema.temporal.upkeep import VerifyPass

MAX_NAMED = 10
"""Differences named in the result of one comparison; the number counts all."""

_log = logging.getLogger(__name__)


class VerifyActivity:
    """`checks`: a copy's name → its comparison, which returns one line per difference."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[list[str]]]]) -> None:
        self._checks = checks

    @activity.defn(name="verify_copies")
    async def verify_copies(self) -> VerifyPass:
        """Compare every copy up to where it has come. Raises Unavailable if its server is away."""
        differences: dict[str, int] = {}
        first: list[str] = []
        async with heartbeats():
            for name, check in self._checks.items():
                # A line goes on with values of runs, which belong in no history and in no log.
                found = [f"{name}: {line.partition(':')[0]}" for line in await check()]
                differences[name] = len(found)
                first += found[: MAX_NAMED - len(first)]
                if found:
                    _log.error("Copy differs from the log", extra={"copy": name, "differences": len(found)})
        return VerifyPass(differences, first)
