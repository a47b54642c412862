"""The variants that `python -m bench.security` plays at the platform's ways out."""

from bench.security.cases.outbound import cases, play_all


async def test_of_each_hostile_case_comes_what_must() -> None:
    names = [one.name for one in cases()]
    assert len(names) == len(set(names)) >= 50
    assert await play_all() == []
