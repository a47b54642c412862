"""One statement for many callers: whoever asks while a statement is under way shares the next one."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from db.raw import Line

MAX_BATCH: Final = 500
LINGER_SECONDS: Final = 0.008
"""How long a statement waits for company where there is some: it costs about the same for one record as for
ten, and what a busy machine does not spend on statements it spends on steps."""
COMPANY: Final = 4
"""With fewer who ask at a time, nobody waits."""


class Crowd:
    """How many are at work now, and so will ask again and again."""

    def __init__(self) -> None:
        self.size = 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        self.size += 1
        try:
            yield
        finally:
            self.size -= 1


Row = tuple[Any, ...]
_Waiting = tuple[list[dict[str, Any]], asyncio.Future[dict[str, Row]]]
_OWN_FAULTS: Final = (psycopg.DataError, psycopg.IntegrityError, ValueError)
"""What a record can be to blame for; anything else befalls all who asked."""


class Batches:
    """A statement over `json_to_recordset(%s::json)`, on a connection of its own.

    Each caller gives one record, and gets the row that begins with its `key`, or None. The statement is one
    transaction: what a caller gave is durable when its answer is there.
    """

    def __init__(self, database_url: str, statement: str, crowd: Crowd) -> None:
        self._line = Line(database_url)
        self._statement = statement
        self._waiting: list[_Waiting] = []
        self._some = asyncio.Event()
        self._crowd = crowd
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, key: str, record: dict[str, Any]) -> Row | None:
        """The row for one record; raises what Postgres said, and then nothing is known of the record."""
        return (await self.send([{**record, "key": key}])).get(key)

    def send(self, records: list[dict[str, Any]]) -> asyncio.Future[dict[str, Row]]:
        """Several records at once, behind all that was sent before. The answer holds the rows of the whole
        statement by their keys."""
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        answer: asyncio.Future[dict[str, Row]] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, answer))
        self._some.set()
        return answer

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        await self._line.close()

    async def _work(self) -> None:
        while True:
            await self._some.wait()
            if len(self._waiting) < self._crowd.size >= COMPANY:
                await asyncio.sleep(LINGER_SECONDS)
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._some.clear()
            try:
                await self._answer(batch)
            except BaseException:
                for _, answer in batch:
                    answer.cancel()
                raise

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            rows = await self._run([record for records, _ in batch for record in records])
        except Exception as error:
            if isinstance(error, _OWN_FAULTS) and len(batch) > 1:
                # One who gave what cannot be stored takes no other's record with it.
                for one in batch:
                    await self._answer([one])
                return
            # Whoever waits decides what to do; a broken connection is not used again.
            await self._line.close()
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for _, answer in batch:
                if not answer.done():  # else its caller was cancelled meanwhile
                    answer.set_result(rows)

    async def _run(self, records: list[dict[str, Any]]) -> dict[str, Row]:
        given = json.dumps(records, ensure_ascii=False)
        found = await (await self._line.open()).execute(self._statement, (given,), prepare=True)
        return {row[0]: row for row in await found.fetchall()}
