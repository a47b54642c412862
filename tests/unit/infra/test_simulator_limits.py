"""Requests and tokens per sliding minute."""

import math
import random
from collections import deque

import pytest

from infra.simulator.limits import AdmittedCall, LimitError, Rejection, SimulatedLimits


def _limits(**limit: int) -> SimulatedLimits:
    limits = SimulatedLimits()
    limits.set({"model": "a", **limit})
    return limits


def test_where_nothing_is_limited_nothing_is_counted() -> None:
    limits = _limits(requests_per_minute=1)
    assert limits.ask("b", 10, 0.0) is None
    assert limits.headers("b", 0.0) == {}


def test_requests_beyond_the_limit_wait_for_the_oldest_to_leave() -> None:
    limits = _limits(requests_per_minute=2)
    assert isinstance(limits.ask("a", 10, 100.0), AdmittedCall)
    assert isinstance(limits.ask("a", 10, 110.0), AdmittedCall)
    rejection = limits.ask("a", 10, 115.5)
    assert isinstance(rejection, Rejection)
    assert (rejection.kind, rejection.wait_seconds) == ("requests", 44.5)
    assert rejection.message == (
        "Rate limit reached for a on requests per min (RPM): Limit 2, Used 2, Requested 1. "
        "Please try again in 44.5s."
    )
    assert rejection.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "44.5s",
    }
    # Exactly when it was told to.
    assert isinstance(limits.ask("a", 10, 115.5 + 44.5), AdmittedCall)


def test_tokens_count_as_estimated_until_they_are_billed() -> None:
    limits = _limits(tokens_per_minute=100)
    first = limits.ask("a", 60, 0.0)
    assert isinstance(first, AdmittedCall)
    assert isinstance(limits.ask("a", 60, 1.0), Rejection)
    first.correct(30)
    assert limits.headers("a", 1.0)["x-ratelimit-remaining-tokens"] == "70"
    second = limits.ask("a", 60, 1.0)
    assert isinstance(second, AdmittedCall)
    second.correct(200)
    rejection = limits.ask("a", 1, 2.0)
    assert isinstance(rejection, Rejection)
    # 230 of 100 are used: both have to leave.
    assert (rejection.kind, rejection.wait_seconds) == ("tokens", 59.0)
    # What is corrected after its minute changes nothing any more.
    assert isinstance(limits.ask("a", 100, 61.5), AdmittedCall)
    first.correct(0)
    second.correct(0)
    assert limits.windows["a"].tokens == 100


def test_what_never_fits_is_told_so() -> None:
    rejection = _limits(tokens_per_minute=100).ask("a", 101, 0.0)
    assert isinstance(rejection, Rejection)
    assert math.isinf(rejection.wait_seconds)
    assert rejection.message == ("Request too large for a on tokens per min (TPM): Limit 100, Requested 101.")
    none = _limits(requests_per_minute=0).ask("a", 1, 0.0)
    assert isinstance(none, Rejection) and math.isinf(none.wait_seconds)


def test_the_limit_of_all_models_holds_beside_a_models_own() -> None:
    limits = _limits(requests_per_minute=1)
    limits.set({"model": "*", "requests_per_minute": 2})
    assert isinstance(limits.ask("a", 1, 0.0), AdmittedCall)
    assert isinstance(limits.ask("a", 1, 0.0), Rejection)
    assert isinstance(limits.ask("b", 1, 0.0), AdmittedCall)
    assert isinstance(limits.ask("c", 1, 0.0), Rejection)
    rows = limits.as_json(0.0)
    assert rows["rejected"] == 2
    assert isinstance(rows["limits"], list)
    assert [(row["model"], row["requests"], row["rejected"]) for row in rows["limits"]] == [
        ("a", 1, 1),
        ("*", 2, 1),
    ]


def test_a_changed_limit_goes_on_counting() -> None:
    limits = _limits(requests_per_minute=5)
    limits.ask("a", 1, 0.0)
    limits.set({"model": "a", "requests_per_minute": 1})
    assert isinstance(limits.ask("a", 1, 1.0), Rejection)
    limits.clear()
    assert limits.ask("a", 1, 1.0) is None


def test_no_sliding_minute_ever_holds_too_much() -> None:
    draw = random.Random(7)
    limits = _limits(requests_per_minute=20, tokens_per_minute=900)
    now, admitted = 0.0, deque[tuple[float, int]]()
    for _ in range(3000):
        now += draw.expovariate(2)
        tokens = draw.randint(1, 150)
        found = limits.ask("a", tokens, now)
        if isinstance(found, AdmittedCall):
            admitted.append((now, tokens))
        while admitted and admitted[0][0] <= now - 60:
            admitted.popleft()
        assert len(admitted) <= 20
        assert sum(tokens for _, tokens in admitted) <= 900


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("fast", "a limit is an object"),
        ({"model": 3}, "model is 3"),
        ({"requests_per_minute": -1}, "requests_per_minute is -1"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute is 1.5"),
        ({"requests": 3}, "unknown fields: requests"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(document: object, said: str) -> None:
    with pytest.raises(LimitError, match=said):
        SimulatedLimits().set(document)
