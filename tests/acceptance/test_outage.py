"""Servers away in the middle. The full minute runs by `python -m bench.outage`."""

import pytest

from bench import outage


@pytest.mark.timeout(1200)
async def test_no_server_that_goes_away_takes_a_run_with_it() -> None:
    outcomes = await outage.measure(seconds=5, runs=6)
    assert [one.service for one in outcomes] == ["neo4j", "weaviate", "simulator", "postgres", "temporal"]
    assert all(one.holds for one in outcomes), outcomes
