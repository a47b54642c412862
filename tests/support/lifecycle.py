"""The activities around the steps, on a test's own database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.runs.lifecycle import Record
from activities.runs.segment import SegmentActivity
from activities.tools import text
from db.money.admission import Admission
from db.runs.journal import Journal
from db.wakeups import Bell
from schema.settings import Settings
from schema.temporal.steps import StepRequest, StepResult


class _Tools:
    async def run(self, name: str, args: dict[str, Any]) -> Any:
        assert name == "json.parse", "the tests of recording need no other tool"
        return text.parse_json(**args)

    async def tool(self, request: StepRequest) -> StepResult:
        raise AssertionError("the tests of recording call no slow tools")


async def _agent(request: StepRequest) -> StepResult:
    raise AssertionError("the tests of recording chain no agents")


@asynccontextmanager
async def recording(engine: AsyncEngine, settings: Settings | None = None) -> AsyncIterator[Record]:
    admission = Admission(engine, settings or Settings())
    async with journal(engine) as writing:
        yield Record(engine, writing, SegmentActivity(engine, writing, _Tools(), _agent), admission)


@asynccontextmanager
async def journal(engine: AsyncEngine) -> AsyncIterator[Journal]:
    url = engine.url.render_as_string(hide_password=False)
    bell = Bell(url)
    writing = Journal(url, bell)
    try:
        yield writing
    finally:
        await writing.close()
        await bell.close()
