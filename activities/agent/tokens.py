"""The token log of one worker process: every execution's tokens in shared batches."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg

from db.isolation import Isolation
from db.live import tokens
from db.live.tokens import Token
from db.raw import Line
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
        self._refused: dict[UUID, Exception] = {}
        """Executions of which Postgres did not take a token, until they are given up."""
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

    async def flush(self, execution: UUID | None = None) -> None:
        """Write what is pending. Raises when Postgres does not answer, and keeps it for the next time; and
        when it cannot hold a token of the given execution."""
        async with self._writing:
            isolation, self._pending = Isolation(self._pending), []
            try:
                await self._write(isolation)
            except BaseException:
                self._pending = isolation.left + self._pending
                await self._line.close()
                raise
        if execution in self._refused:
            raise self._refused[execution]

    async def _write(self, isolation: Isolation[Token]) -> None:
        for part in isolation:
            try:
                await tokens.append(await self._line.open(), part)
            except Exception as error:
                isolation.refuse(error)
            else:
                self._bell.spoke({token.run for token in part})
        self._refused |= {token.execution: error for token, error in isolation.refused}

    def drop(self, execution: UUID) -> None:
        """Forget what an attempt that was given up had still pending."""
        self._pending = [token for token in self._pending if token.execution != execution]
        self._refused.pop(execution, None)

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
            except (psycopg.Error, OSError):
                _log.warning(
                    "Token writes delayed, Postgres unavailable", extra={"pending": len(self._pending)}
                )
                await asyncio.sleep(1)
