"""One agent step at a time, against a simulator of the module's own."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from activities.upkeep.ended_runs import EndingsActivity
from db.runs.journal import Journal
from db.wakeups import Bell
from tests.support.providers import running_simulator
from tests.support.runs import means_of
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    with running_simulator() as url:
        yield url


@pytest.fixture
async def control(simulator_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The simulator of this module, forgetful of earlier tests."""
    async with httpx.AsyncClient(base_url=simulator_url) as client:
        await client.delete("/_simulator/faults")
        await client.delete("/_simulator/calls")
        yield client
        await client.delete("/_simulator/faults")


@pytest.fixture
async def tokens(engine: AsyncEngine) -> AsyncIterator[TokenLog]:
    url = engine.url.render_as_string(hide_password=False)
    bell = Bell(url)
    log = TokenLog(url, bell)
    yield log
    await log.close()
    await bell.close()


@pytest.fixture
async def agents(
    engine: AsyncEngine, simulator_url: str, control: httpx.AsyncClient, tokens: TokenLog
) -> AsyncIterator[AgentActivity]:
    async with means_of(engine, simulator_url, tokens) as means:
        yield AgentActivity(means)


@pytest.fixture
async def endings(platform: Stack) -> AsyncIterator[EndingsActivity]:
    """What closes the runs that ended in Temporal alone."""
    bell = Bell(platform.settings.database_url)
    journal = Journal(platform.settings.database_url, bell)
    yield EndingsActivity(platform.engine, journal, platform.client)
    await journal.close()
    await bell.close()
