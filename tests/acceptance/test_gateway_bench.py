"""Money, faults and limits under fire. The long form runs by `python -m bench.gateway`."""

import pytest

from bench.gateway import __main__ as gateway


@pytest.mark.timeout(900)
async def test_nothing_is_overshot_lost_or_called_too_often() -> None:
    found = await gateway.measure(short=True)
    assert found["budget_runs"] == 300 and found["workers_killed"] == 4
    assert (found["budget_overshoot_usd"], found["ledger_error_usd"], found["calls_left_open"]) == (0, 0, 0)
    assert found["fault_cells"] > 16 and found["fault_cells_failed"] == 0, found["faults"]
    assert found["rate_limit_violations"] == 0 and found["rate_limit_used"] > 0.5
    assert (found["single_flight_calls"], found["single_flight_steps"]) == (1, 100)
