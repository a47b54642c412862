"""The strangers: a web server that is a provider and a page as well, and a worker of somebody's own."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.worker import Worker

from bench.foreign.cases import Case

QUEUE: Final = "strangers"
_CASE: Final = re.compile(rb"case (\d+)\.|/page/(\d+) ")


class Stranger:
    """Answers each request with what its case has."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases

    @asynccontextmanager
    async def working(self, client: Client) -> AsyncIterator[None]:
        """Work on a task queue of one's own."""
        async with Worker(client, task_queue=QUEUE, activities=[self.strange]):
            yield

    @activity.defn(name="strange")
    async def strange(self, args: dict[str, Any]) -> RawValue:
        return raw(self._cases[args["case"]].data)

    async def answer(self, line: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer a request of the web with what its case has."""
        named = _CASE.search(f"{line} ".encode() + body)
        assert named is not None
        case = self._cases[int(named[1] or named[2])]
        answer = f"HTTP/1.1 {case.status} X\r\nConnection: close\r\nContent-Length: {len(case.data)}\r\n"
        if case.content_type:
            answer += f"Content-Type: {case.content_type}\r\n"
        writer.write(answer.encode() + b"\r\n" + case.data)
        await writer.drain()


def raw(data: bytes) -> RawValue:
    """Bytes as a payload that says to be JSON."""
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))
