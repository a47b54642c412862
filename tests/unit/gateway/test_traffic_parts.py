"""Limits per minute, fair turns, and when a circuit opens: decisions without a server or a clock."""

import random
from bisect import bisect_left, bisect_right
from itertools import accumulate

import pytest

from db.engine import async_engine
from db.money.circuits import OpenCircuit
from db.money.traffic import ProviderPause
from gateway.limits import circuit_breaker
from gateway.limits.circuit_breaker import Circuits, _Tally
from gateway.limits.fair_order import FairQueue
from gateway.limits.pauses import Pauses
from gateway.limits.window import Slot, WindowPace, WindowState
from gateway.provider_limits import ProviderLimits
from schema.errors import ProviderError

PACE = WindowPace()
NOW = 1_763_000_000_000


def standing(limits: ProviderLimits, *slots: Slot, now: int = NOW) -> WindowState:
    return WindowState(PACE, limits, now, slots)


def arrivals(limits: ProviderLimits, sizes: tuple[int, int], minutes: int) -> list[tuple[float, int]]:
    """(when, tokens) at the provider of calls that always wait, each up to 300 ms under way."""
    chance, now = random.Random(5), NOW
    slots: dict[int, tuple[int, int]] = {}
    found: list[tuple[float, int]] = []
    while now < NOW + minutes * 60_000:
        kept = [Slot(at, *used) for at, used in slots.items() if at + PACE.lasts > now]
        asked = [chance.randint(*sizes) for _ in range(40)]
        going = standing(limits, *kept, now=now).admitted(asked)
        at = now // PACE.slot * PACE.slot
        if going:
            before = slots.get(at, (0, 0))
            slots[at] = (before[0] + going, before[1] + sum(asked[:going]))
            found += [(now + chance.uniform(2, 300), tokens) for tokens in asked[:going]]
        kept = [Slot(at, *used) for at, used in slots.items() if at + PACE.lasts > now]
        free = standing(limits, *kept, now=now).free_at(asked[going])
        now = max(free, now + 5) + int(chance.uniform(5, 50))
    return sorted(found)


def minutes_of(found: list[tuple[float, int]]) -> tuple[int, int, int, int]:
    """The most requests and tokens in any minute, and the fewest after the first one."""
    times, sums = [when for when, _ in found], [0, *accumulate(tokens for _, tokens in found)]
    most = [(bisect_left(times, when + 60_000), index) for index, when in enumerate(times)]
    least = [
        (bisect_left(times, when + 60_000), bisect_right(times, when))
        for when in times
        if times[0] + 60_000 < when < times[-1] - 60_000
    ]
    return (
        max(end - start for end, start in most),
        max(sums[end] - sums[start] for end, start in most),
        min(end - start for end, start in least),
        min(sums[end] - sums[start] for end, start in least),
    )


def test_no_minute_has_more_requests_than_the_limit_and_none_many_fewer() -> None:
    most, _, least, _ = minutes_of(arrivals(ProviderLimits(300, None), (1, 1), 4))
    assert most <= 300 and least >= 285


def test_no_minute_has_more_tokens_than_the_limit_and_none_many_fewer() -> None:
    _, most, _, least = minutes_of(arrivals(ProviderLimits(None, 60_000), (100, 200), 4))
    assert most <= 60_000 and least >= 57_000


def test_what_goes_at_once_is_a_share_of_the_limit() -> None:
    assert standing(ProviderLimits(600, None)).admitted([0] * 100) == 20
    assert standing(ProviderLimits(20, None)).admitted([0] * 100) == 1
    # The last one may be larger than what is left of the share: else it never went.
    assert standing(ProviderLimits(None, 1_000)).admitted([900, 1]) == 1


@pytest.mark.parametrize(
    ("limits", "asked", "free_in"),
    [
        (ProviderLimits(100, None), 0, PACE.lasts - 10_000),
        (ProviderLimits(None, 5_000), 4_000, PACE.lasts - 10_000),
        (ProviderLimits(None, 5_000), 3_000, 0),
        (ProviderLimits(101, 6_000), 1, 0),
    ],
)
def test_the_next_turn_is_when_enough_is_old_enough(limits: ProviderLimits, asked: int, free_in: int) -> None:
    full = Slot(NOW - 10_000, 100, 2_000)
    assert standing(limits, full).free_at(asked) == NOW + free_in


def test_a_turn_behind_many_others_is_minutes_away() -> None:
    full = standing(ProviderLimits(100, 1_000), Slot(NOW - 10_000, 100, 500))
    first = NOW + PACE.lasts - 10_000
    assert [full.turn_at(before) for before in (0, 99, 100, 250)] == [
        first,
        first,
        first + PACE.lasts,
        first + 2 * PACE.lasts,
    ]
    assert full.likely_at(0, 2_501) == first + 2 * PACE.lasts
    assert standing(ProviderLimits(None, 1_000)).turn_at(1_000) == NOW


def test_tenants_take_turns_and_priority_goes_before_arrival() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in ("a1", "a2", "a3"):
        queue.join("a", 3, name)
    queue.join("b", 3, "b1")
    queue.join("a", 1, "urgent")
    assert [one.what for one in queue] == ["urgent", "b1", "a1", "a2", "a3"]
    taken = queue.take(3)
    assert ([one.what for one in taken], len(queue)) == (["urgent", "b1", "a1"], 2)
    queue.put_back(taken[1:])
    assert [one.what for one in queue] == ["b1", "a1", "a2", "a3"]
    for _ in range(2):
        queue.leave(taken[1])
    assert ([one.what for one in queue.take(9)], len(queue)) == (["a1", "a2", "a3"], 0)


def test_a_circuit_opens_after_failures_in_a_row_or_when_half_fail() -> None:
    row = _Tally()
    assert [row.note(0, True) for _ in range(5)] == [False] * 4 + [True]
    mixed = _Tally()
    assert [mixed.note(second, second % 2 == 1) for second in range(20)] == [False] * 19 + [True]
    seldom = _Tally()
    assert not any(seldom.note(call, call % 3 == 0) for call in range(60))
    slow = _Tally()
    assert not any(slow.note(10 * call, call % 2 == 1) for call in range(60))


async def test_an_open_circuit_says_so_until_somebody_may_try() -> None:
    circuits = Circuits(async_engine("postgresql://nobody@127.0.0.1:1/none"))
    circuits.learn([OpenCircuit("account", "m", 10.0)])
    refusal = circuits.refusal("account", "m")
    assert refusal and (refusal.code, refusal.retryable) == ("provider_unavailable", True)
    assert refusal.retry_after_seconds == pytest.approx(10, abs=0.1)
    assert circuits.refusal("account", "other") is None
    circuits.learn([])
    assert (circuits.refusal("account", "m"), circuits.any_open) == (None, False)
    assert circuit_breaker.OPEN_SECONDS < circuit_breaker.MAX_OPEN_SECONDS


async def test_pauses_double_until_a_call_is_answered() -> None:
    pauses = Pauses()
    later = float("inf")
    assert pauses.begin("a", "m", None, began=later, reason="r") == 1.0
    # It was under way when the pause began.
    assert pauses.begin("a", "m", None, began=0.0, reason="r") is None
    assert pauses.begin("a", "m", None, began=later, reason="r") == 2.0
    assert pauses.begin("a", "m", None, began=later, reason="r") == 4.0
    assert pauses.begin("a", "other", None, began=later, reason="r") == 1.0
    pauses.answered("a", "m")
    assert pauses.begin("a", "m", None, began=later, reason="r") is None
    assert pauses.begin("a", "m", 86_400, began=0.0, reason="r") == 600.0
    with pytest.raises(ProviderError, match=r"the provider of m asked for a pause .* \(r\); name") as caught:
        await pauses.wait("a", "m", until=0.0)
    assert caught.value.retry_after_seconds == pytest.approx(600, abs=0.1)
    await pauses.wait("b", "m", until=0.0)


async def test_pauses_of_others_are_learnt_and_shorten_none() -> None:
    pauses = Pauses()
    assert pauses.learn([ProviderPause("a", "m", 10.0, "r"), ProviderPause("a", "n", 5.0, "r")]) == [
        ("a", "m"),
        ("a", "n"),
    ]
    pauses.learn([ProviderPause("a", "m", 1.0, "r")])
    refusal = pauses.refusal("a", "m")
    assert refusal and refusal.retry_after_seconds == pytest.approx(10, abs=0.1)
    assert (pauses.refusal("a", "other"), pauses.any) == (None, True)
