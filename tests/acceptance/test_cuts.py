"""Watchers whose lines break while the API and the worker are killed: the short form of bench.streaming."""

from bench.streaming.client import door
from bench.streaming.disconnects import CHAIN, disconnects
from tests.support.stack import SERVERS, stack


async def test_nothing_is_lost_or_told_twice_when_lines_break() -> None:
    async with stack((*SERVERS, "worker", "api")) as on, door(on) as api:
        await on.store(CHAIN)
        found = await disconnects(on, api, wanted=60, runs_at_a_time=5, kills=2, seed=1)
    assert (found.lost, found.duplicated, found.reordered) == (0, 0, 0)
    assert (found.kills, found.disconnects >= 60) == (2, True)
