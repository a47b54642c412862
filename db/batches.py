"""One statement for many callers: callers who ask while a statement is under way share the next one."""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from db.isolation import Isolation
from db.raw import Line

MAX_BATCH: Final = 500
MAX_BATCH_CHARS: Final = 16 * 1024 * 1024
"""Bound on one statement's JSON. A caller's larger records go alone."""
LINGER_SECONDS: Final = 0.008
"""Longest wait of a statement for company: it costs about the same for one record as for ten, and time that a
busy machine does not spend on statements it spends on steps."""
COMPANY: Final = 4
"""Fewest simultaneous callers for which a statement waits."""


class ActiveTasks:
    """Counts the tasks at work now, which will soon ask again."""

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
_QueuedRecords = tuple[str, asyncio.Future[dict[str, Row]]]
"""(records as JSON, parted by commas; what becomes of them)"""
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class Batches:
    """A statement over `json_to_recordset(%s::json)`, on a connection of its own.

    Each caller gives one record, and gets the row that begins with its `key`, or None. The statement is one
    transaction: what a caller gave is durable when its answer is there.
    """

    def __init__(self, database_url: str, statement: str, crowd: ActiveTasks) -> None:
        self._line = Line(database_url)
        self._statement = statement
        self._waiting: list[_QueuedRecords] = []
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
        try:
            self._waiting.append((",".join(map(_ENCODER.encode, records)), answer))
            self._some.set()
        except (ValueError, TypeError, RecursionError) as error:
            answer.set_exception(error)
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
            batch = self._take()
            if not self._waiting:
                self._some.clear()
            try:
                await self._answer(batch)
            except BaseException:
                for _, answer in batch:
                    answer.cancel()
                raise

    def _take(self) -> list[_QueuedRecords]:
        """Return the next to be answered, and let them wait no longer."""
        count = chars = 0
        for records, _ in self._waiting[:MAX_BATCH]:
            chars += len(records)
            if count and chars > MAX_BATCH_CHARS:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _answer(self, batch: list[_QueuedRecords]) -> None:
        isolation = Isolation(batch)
        try:
            await self._run_apart(isolation)
        except Exception as error:
            # The callers decide what to do; a broken connection is not used again.
            await self._line.close()
            _fail((one, error) for one in isolation.left)
        _fail(isolation.refused)

    async def _run_apart(self, isolation: Isolation[_QueuedRecords]) -> None:
        for part in isolation:
            try:
                rows = await self._run(",".join(records for records, _ in part))
            except Exception as error:
                isolation.refuse(error)
            else:
                for _, answer in part:
                    if not answer.done():  # else its caller was cancelled meanwhile
                        answer.set_result(rows)

    async def _run(self, records: str) -> dict[str, Row]:
        given = f"[{records}]"
        found = await (await self._line.open()).execute(self._statement, (given,), prepare=True)
        return {row[0]: row for row in await found.fetchall()}


def _fail(refused: Iterable[tuple[_QueuedRecords, Exception]]) -> None:
    for (_, answer), error in refused:
        if not answer.done():
            answer.set_exception(error)
