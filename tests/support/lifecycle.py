"""The activities around the steps, on a test's own database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.runs.finish import FinishActivity
from activities.runs.pin import PinActivity
from activities.runs.repeat import RepeatActivity
from activities.runs.segment import SegmentActivity
from activities.runs.user_call import UserCallActivity
from activities.tools import text
from db.runs.admission import Admission
from db.runs.journal import Journal
from db.wakeups import Bell
from infra.disk import Disk
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


class LifecycleActivities:
    """The local activities around the steps, as a worker registers them."""

    def __init__(self, engine: AsyncEngine, writing: Journal, settings: Settings, disk: Disk | None) -> None:
        self.segments = segments = SegmentActivity(engine, writing, _Tools(), _agent)
        calls, repeat = UserCallActivity(engine), RepeatActivity(engine)
        self.pin = PinActivity(engine, writing, segments, Admission(engine, settings), disk).pin
        self.begin_call, self.end_call = calls.begin_call, calls.end_call
        self.open, self.end_item, self.close = repeat.open, repeat.end_item, repeat.close
        self.caught = repeat.caught
        self.begin_wait, self.end_wait = repeat.begin_wait, repeat.end_wait
        self.finish = FinishActivity(engine, writing).finish


@asynccontextmanager
async def recording(
    engine: AsyncEngine, settings: Settings | None = None, disk: Disk | None = None
) -> AsyncIterator[LifecycleActivities]:
    async with journal(engine) as writing:
        yield LifecycleActivities(engine, writing, settings or Settings(), disk)


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
