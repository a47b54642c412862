"""Wake waiters for news of a run through Postgres' LISTEN and NOTIFY.

A wake-up is only a hint: it is sent after the commit and may be lost with its sender, so waiters also look by
themselves now and then.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from db.isolation import Isolation
from db.raw import connect

CHANNEL: Final = "facilitair_live"
PACE_SECONDS: Final = 0.005
"""At most this often, for all runs of the process together."""
_RUNS_PER_PAYLOAD: Final = 200
"""Postgres refuses payloads of 8,000 bytes."""
_RUN: Final = re.compile("[0-9a-f]{32}")
_RETRY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


def note(connection: AsyncConnection, run: str) -> None:
    """Wake waiters for the run once this connection's transaction has committed."""
    connection.info.setdefault("changed_runs", set()).add(str(run))


def take_noted(connection: AsyncConnection) -> set[str]:
    """Return and clear the runs that a transaction noted."""
    found: set[str] = connection.info.pop("changed_runs", set())
    return found


class Bell:
    """Wakes who waits, for a whole process on one connection. Ringing never waits and never fails."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._changed: set[str] = set()
        self._spoken: set[str] = set()
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def changed(self, runs: Iterable[str]) -> None:
        """Something happened in these runs."""
        self._changed.update(runs)
        self._ring()

    def spoke(self, runs: Iterable[str]) -> None:
        """There are new tokens of these runs."""
        self._spoken.update(runs)
        self._ring()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _ring(self) -> None:
        if not self._changed and not self._spoken:
            return
        self._some.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                async with await connect(self._url) as connection:
                    # A wake-up that a crash of the server takes along has nobody left to wake.
                    await connection.execute("SET synchronous_commit = off")
                    while True:
                        await self._some.wait()
                        self._some.clear()
                        await self._send(connection)
                        await asyncio.sleep(PACE_SECONDS)
            except psycopg.Error:
                _log.warning("LISTEN connection lost, waiters poll until Postgres answers")
                await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self, connection: psycopg.AsyncConnection[Any]) -> None:
        changed, self._changed = self._changed, set()
        spoken, self._spoken = self._spoken - changed, set()
        for mark, runs in (("c", sorted(changed)), ("s", sorted(spoken))):
            for at in range(0, len(runs), _RUNS_PER_PAYLOAD):
                await _tell(connection, mark, runs[at : at + _RUNS_PER_PAYLOAD])


async def _tell(connection: psycopg.AsyncConnection[Any], mark: str, runs: list[str]) -> None:
    isolation = Isolation(runs)
    for part in isolation:
        payload = mark + ",".join(run.replace("-", "") for run in part)
        try:
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload), prepare=True)
        except Exception as error:
            isolation.refuse(error)


async def listen(database_url: str) -> AsyncIterator[tuple[bool, list[str]]]:
    """(whether more than tokens came, runs as 32 hex digits) as it happens; (True, []) when anything may
    have been missed: at the beginning, and after Postgres was away."""
    while True:
        try:
            async with await connect(database_url) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield True, []
                async for notice in connection.notifies():
                    yield notice.payload[:1] == "c", _RUN.findall(notice.payload[1:])
        except psycopg.Error:
            await asyncio.sleep(_RETRY_SECONDS)
