import asyncio
import logging
import time

import pytest

from db.loop_watch import LIMIT_SECONDS, LoopWatch


def test_a_loop_that_is_held_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch("test")

    async def hold() -> None:
        async with watch.watching():
            await asyncio.sleep(0)  # its first tick begins
            asyncio.get_running_loop().call_soon(time.sleep, LIMIT_SECONDS * 2)
            for _ in range(5):
                await asyncio.sleep(0)

    with caplog.at_level(logging.INFO, "db.loop_watch"):
        asyncio.run(hold())
    [record] = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "Event loop held too long")
    assert record.__dict__["held_ms"] == pytest.approx(watch.longest_seconds * 1e3, abs=0.1)
    assert watch.longest_seconds >= LIMIT_SECONDS
    line = watch.exposition().splitlines()[-1]
    assert line == f'facilitair_loop_hold_seconds_max{{process="test"}} {watch.longest_seconds:.4f}'


def test_a_loop_that_is_free_is_not(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch("test")

    async def idle() -> None:
        async with watch.watching():
            await asyncio.sleep(0)

    with caplog.at_level(logging.INFO, "db.loop_watch"):
        asyncio.run(idle())
    assert (caplog.records, watch.longest_seconds) == ([], 0.0)
