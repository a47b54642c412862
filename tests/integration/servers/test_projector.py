"""The activity that keeps a copy up to date: goes on by itself, stops when it is told to."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.upkeep.projections import ProjectActivity
from db.outbox import LoggedEvent, Position
from schema.errors import NotFound, Unavailable
from schema.temporal.upkeep import ProjectionPass
from tests.support.event_log import begin, settled


class Ledger:
    """A copy that only writes down what it was given."""

    event_types = ("CollaborationStarted",)

    def __init__(self, away: bool = False) -> None:
        self.at = Position()
        self.tasks: list[str] = []
        self.away = away

    async def prepare(self) -> None:
        pass

    async def position(self) -> Position:
        return self.at

    async def apply(self, after: Position, events: Sequence[LoggedEvent]) -> None:
        if self.away:
            raise Unavailable("graph_unavailable", "away")
        assert after == self.at
        self.tasks += [event.payload["task"] for event in events]
        self.at = events[-1].position

    async def pass_over(self, after: Position, event: LoggedEvent) -> None:
        raise AssertionError(f"{event.type} was left out behind {after}")


async def until(ledger: Ledger, tasks: list[str]) -> None:
    async with asyncio.timeout(30):
        while ledger.tasks != tasks:
            await asyncio.sleep(0.02)


async def test_it_copies_what_comes_and_stops_with_its_worker(engine: AsyncEngine) -> None:
    ledger, beats, environment = Ledger(), list[object](), ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    await begin(engine, "before")
    running = asyncio.ensure_future(
        environment.run(ProjectActivity(engine, {"ledger": ledger}).project, "ledger")
    )
    await until(ledger, ["before"])
    await begin(engine, "while it waits")
    await until(ledger, ["before", "while it waits"])
    environment.worker_shutdown()
    assert await asyncio.wait_for(running, 5) == ProjectionPass(applied=2, more=False)
    assert beats


async def test_it_can_be_cancelled(engine: AsyncEngine) -> None:
    environment = ActivityEnvironment()
    running = asyncio.ensure_future(
        environment.run(ProjectActivity(engine, {"ledger": Ledger()}).project, "ledger")
    )
    await asyncio.sleep(0)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)


async def test_a_server_that_is_away_is_temporals_to_retry(engine: AsyncEngine) -> None:
    await begin(engine, "one")
    async with asyncio.timeout(30):
        while not await settled(engine):
            await asyncio.sleep(0.02)
    project = ProjectActivity(engine, {"ledger": Ledger(away=True)}).project
    with pytest.raises(Unavailable):
        await ActivityEnvironment().run(project, "ledger")


async def test_a_server_that_hangs_is_away(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Ledger):
        async def position(self) -> Position:
            await asyncio.Event().wait()
            return self.at

    monkeypatch.setattr("activities.upkeep.projections.ANSWER_SECONDS", 0.1)
    with pytest.raises(Unavailable) as error:
        await ActivityEnvironment().run(ProjectActivity(engine, {"ledger": Hanging()}).project, "ledger")
    assert error.value.code == "projection_timeout"


async def test_a_bug_does_not_end_a_copy_for_good(engine: AsyncEngine) -> None:
    class Broken(Ledger):
        async def position(self) -> Position:
            raise KeyError("xid")

    with pytest.raises(ApplicationError, match=r"\(KeyError\)") as error:
        await ActivityEnvironment().run(ProjectActivity(engine, {"ledger": Broken()}).project, "ledger")
    assert error.value.type == "projection_failed" and not error.value.non_retryable


async def test_an_unknown_projection_is_named(engine: AsyncEngine) -> None:
    with pytest.raises(NotFound, match="ledger"):
        await ActivityEnvironment().run(ProjectActivity(engine, {"ledger": Ledger()}).project, "other")
