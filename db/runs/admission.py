"""Admit one more run of a tenant: the gate behind every door that starts runs.

Runs admitted by the API are not counted again by workers. Runs started past it, by a Temporal client,
Temporal's UI or a schedule, are counted when they are pinned.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import statement
from db.money import usage
from db.runs import collaborations
from schema.errors import TryLater
from schema.settings import Settings

STARTS: Final = "starts"
SCHEDULE: Final = "schedule:"
"""Prefix of `requested_by` in scheduled runs."""

_READ_EVERY_SECONDS: Final = 1.0
_RUNNING_RETRY_SECONDS: Final = 10
_BATCHES_PER_MINUTE: Final = 600
"""A process takes tokens for a tenth of a second at once, so that starts do not queue for one row."""


@dataclass
class _RunCount:
    """Running runs at the last look, plus those that this process admitted since."""

    at: float
    running: int


@dataclass
class Admission:
    """Counts starts and running runs of tenants. One object serves a process.

    What is running is read at most once a second: processes that let runs in at the same moment may together
    exceed `max_running_runs` by what they start in a second.
    """

    engine: AsyncEngine
    settings: Settings
    _tokens: dict[tuple[str, str], int] = field(default_factory=dict)
    _readings: dict[str, _RunCount] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, tenant: str) -> None:
        """Count a start. Raises TryLater."""
        await self._check_running(tenant, None)
        most = self.settings.max_starts_per_minute
        if not await self._take(tenant, STARTS, most):
            raise TryLater(
                "too_many_starts",
                f"found more than {most:,} starts a minute; expected at most so many "
                "(FACILITAIR_MAX_STARTS_PER_MINUTE). Try again a little later, or start them more evenly.",
                retry_after_seconds=_until_next(most),
            )

    async def child(self, connection: AsyncConnection, tenant: str) -> None:
        """Raise TryLater where a sub-collaboration would be one run too many."""
        await self._check_running(tenant, connection)

    async def scheduled(self, tenant: str, schedule: str) -> None:
        """Raise TryLater where a schedule has too many runs under way; it names itself as `requested_by`."""
        most = self.settings.max_overlapping_runs
        async with statement(self.engine) as connection:
            running = await collaborations.count_running(connection, tenant, most, requested_by=schedule)
        if running >= most:
            raise TryLater(
                "too_many_overlapping",
                f"found {running:,} runs of {schedule} under way; expected fewer than {most:,} "
                "(FACILITAIR_MAX_OVERLAPPING_RUNS). Let it start less often, or with the overlap `skip`.",
                retry_after_seconds=_RUNNING_RETRY_SECONDS,
            )

    async def webhook(self, tenant: str, webhook: UUID) -> None:
        """Count a call of a webhook. Raises TryLater."""
        most = self.settings.max_webhook_calls_per_minute
        if not await self._take(tenant, bucket_of(webhook), most):
            raise TryLater(
                "too_many_calls",
                f"found more than {most:,} calls of one webhook a minute; expected at most so many "
                "(FACILITAIR_MAX_WEBHOOK_CALLS_PER_MINUTE). Try again a little later.",
                retry_after_seconds=_until_next(most),
            )

    async def _take(self, tenant: str, subject: str, per_minute: int) -> bool:
        key = tenant, subject
        async with self._turn:
            left = self._tokens.pop(key, 0) or await self._fetch(tenant, subject, per_minute)
            if left > 1:
                self._tokens[key] = left - 1
        return left > 0

    async def _fetch(self, tenant: str, subject: str, per_minute: int) -> int:
        """Take a batch of tokens from the bucket, or one where there are fewer; 0 where there is none."""
        for wanted in (per_minute // _BATCHES_PER_MINUTE, 1):
            async with statement(self.engine) as connection:
                if wanted and await usage.take_tokens(connection, tenant, subject, per_minute, wanted):
                    return wanted
        return 0

    async def _check_running(self, tenant: str, connection: AsyncConnection | None) -> None:
        most = self.settings.max_running_runs
        reading = self._readings.setdefault(tenant, _RunCount(float("-inf"), 0))
        if (now := time.monotonic()) - reading.at >= _READ_EVERY_SECONDS:
            # Others go on with what is known: waiting, they could hold the connections that are needed here.
            reading.at = now
            reading.running = await self._read(tenant, most, connection)
        reading.running += 1
        if reading.running > most:
            raise TryLater(
                "too_many_running",
                f"found {most:,} runs under way; expected fewer (FACILITAIR_MAX_RUNNING_RUNS). Wait until "
                "some have ended, or end some: `facilitair list --runs`.",
                retry_after_seconds=_RUNNING_RETRY_SECONDS,
            )

    async def _read(self, tenant: str, most: int, connection: AsyncConnection | None) -> int:
        if connection is not None:
            return await collaborations.count_running(connection, tenant, most)
        async with statement(self.engine) as own:
            return await collaborations.count_running(own, tenant, most)


def bucket_of(webhook: UUID) -> str:
    return f"webhook/{webhook}"


def _until_next(per_minute: int) -> int:
    return max(1, -(-60 // per_minute))
