"""The token log of one worker process: every execution's tokens in shared batches."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg

from db import tokens
from db.raw import Line
from db.tokens import Token
from db.wakeups import Bell

FLUSH_SECONDS: Final = 0.01
"""At most this often: a commit costs about the same for one token as for a hundred."""
MAX_PENDING: Final = 10_000

_log = logging.getLogger(__name__)


class TokenLog:
    """Collects tokens and writes them to Postgres at once, those of all executions in one COPY, and wakes
    who reads them.

    A writer waits when 10,000 are pending, so a slow database slows models down and never fills memory.
    """

    def __init__(self, database_url: str, bell: Bell) -> None:
        self._line = Line(database_url)
        self._bell = bell
        self._pending: list[Token] = []
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def append(
        self, tenant: str, run: str, execution: UUID, seq: int, text: str, sent_to: list[str]
    ) -> None:
        self._pending.append(Token(run, execution, seq, text, datetime.now(UTC), sent_to, tenant))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_while_pending())
        if len(self._pending) >= MAX_PENDING:
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending; raises when Postgres does not take it, and keeps it for the next time."""
        async with self._writing:
            batch, self._pending = self._pending, []
            if not batch:
                return
            try:
                await tokens.append(await self._line.open(), batch)
            except BaseException:
                self._pending = batch + self._pending
                await self._line.close()
                raise
        self._bell.spoke({token.run for token in batch})

    def drop(self, execution: UUID) -> None:
        """Forget what an attempt that was given up had still pending."""
        self._pending = [token for token in self._pending if token.execution != execution]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._line.close()

    async def _write_while_pending(self) -> None:
        while self._pending:
            try:
                await self.flush()
                await asyncio.sleep(FLUSH_SECONDS)
            except psycopg.Error:
                _log.warning("tokens wait for Postgres", extra={"pending": len(self._pending)})
                await asyncio.sleep(1)
