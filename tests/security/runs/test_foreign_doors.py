"""Whatever strangers send at whatever door: no fault of the platform, nothing that cannot be read."""

from bench.foreign.__main__ import run
from bench.foreign.cases import DOORS

CASES = 400
"""`python -m bench.foreign` plays 20,000."""


async def test_no_stranger_breaks_a_run_or_a_reading() -> None:
    report = await run(CASES, starts_with=1)
    assert (report.internal_errors, report.reads_500, report.rows_running) == (0, 0, 0), report.faults
    ended = {outcome.split()[0] for outcome in report.outcomes if outcome.endswith(" completed")}
    assert ended >= {"input", "temporal", "webhook", "websocket", "provider", "page", "activity", "parse"}
    assert sum(report.outcomes.values()) == CASES >= len(DOORS)
