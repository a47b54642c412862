"""A short form of `bench.meaning`: random accepted definitions end, and come to what the language means."""

from bench.meaning import compare, draw
from tests.support.stack import Stack

CASES = 160


async def test_accepted_definitions_end_and_come_to_what_they_mean(platform: Stack) -> None:
    cases = draw(CASES, 7)
    report = await compare(platform, cases)
    assert report.hung == []
    assert report.different == []
    assert report.outcomes["completed"] > CASES / 4 and report.outcomes["failed"] > CASES / 20
