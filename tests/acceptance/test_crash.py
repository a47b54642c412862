"""kill -9 of the worker in the middle. The full size runs by `python -m bench.crash`."""

from bench import crash


async def test_killed_twice_everything_finishes_and_nothing_finished_runs_again() -> None:
    report = await crash.measure(collaborations=10, steps=6, kills=2)
    assert report.kills == 2
    assert report.holds, report
