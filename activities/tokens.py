"""The token log of one worker process: every execution's tokens in shared batches."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import tokens
from db.engine import transaction
from db.tokens import Token

FLUSH_SECONDS: Final = 0.1
MAX_PENDING: Final = 10_000

_log = logging.getLogger(__name__)


class TokenLog:
    """Collects tokens and writes them to Postgres ten times a second, all executions in one COPY.

    A writer waits when 10,000 are pending, so a slow database slows models down and never fills memory.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pending: list[Token] = []
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def append(self, tenant: str, execution: UUID, seq: int, text: str, sent_to: list[str]) -> None:
        self._pending.append(Token(execution, seq, text, datetime.now(UTC), sent_to, tenant))
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
                async with transaction(self._engine) as connection:
                    await tokens.append(connection, batch)
            except BaseException:
                self._pending = batch + self._pending
                raise

    def drop(self, execution: UUID) -> None:
        """Forget what an attempt that was given up had still pending."""
        self._pending = [token for token in self._pending if token.execution != execution]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _write_while_pending(self) -> None:
        while self._pending:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except SQLAlchemyError:
                _log.warning("tokens wait for Postgres", extra={"pending": len(self._pending)})
                await asyncio.sleep(1)
