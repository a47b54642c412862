"""When a cheap model and a verifier are expected to beat one model that is asked outright."""

from typing import Any

import numpy as np
import pytest

from activities.routing.cheap_first import pair_of
from db.router.decisions import RoutingDecision
from router.serve.cheap_first import (
    Cascade,
    ExpectedOutcome,
    Verifier,
    by_price,
    cheap_first,
    plan,
    seen,
    where_rejected,
)

CHEAP, STRONG = ExpectedOutcome(0.85, 0.1), ExpectedOutcome(0.9, 2.0)
PERFECT = Verifier(1.0, 0.0)


def test_a_perfect_verifier_makes_two_models_better_than_each() -> None:
    found = plan({"c": CHEAP, "s": STRONG}, 0.05, cost_weight=0.01, verifier=PERFECT)
    # Where the cheap one fails, a strong one with 0.9 is right at (0.9 + 0.05 / 0.15) / 2 of the steps.
    after = (0.9 + 0.05 / 0.15) / 2
    ok, usd = 0.85 + 0.15 * after, 0.1 + 0.05 + 0.15 * 2.0
    assert found is not None
    assert (found.cheap, found.strong) == ("c", "s")
    assert (found.ok, found.usd) == pytest.approx((ok, usd))
    assert found.gain == pytest.approx(ok - 0.01 * usd - (0.9 - 0.01 * 2.0))


def test_what_is_written_down_of_it() -> None:
    found = Cascade("c", "s", 0.94321, 0.123456, 0.05, Verifier())
    assert found.as_json() == {
        "cheap": "c",
        "strong": "s",
        "expected": {"ok": 0.9432, "usd": 0.1235, "gain": 0.05},
        "catches": 0.7,
        "false_alarms": 0.1,
    }


@pytest.mark.parametrize(
    ("expected", "verify_usd", "verifier"),
    [
        # It costs more than it saves.
        ({"c": CHEAP, "s": STRONG}, 5.0, PERFECT),
        # It rejects what is right as often as what is wrong.
        ({"c": ExpectedOutcome(0.85, 1.9), "s": STRONG}, 0.05, Verifier(0.5, 0.5)),
        # The cheap one is the better one.
        ({"c": ExpectedOutcome(0.95, 0.1), "s": ExpectedOutcome(0.6, 2.0)}, 0.05, Verifier()),
        ({"c": CHEAP}, 0.0, PERFECT),
        ({}, 0.0, PERFECT),
    ],
)
def test_one_model_outright_where_a_verifier_does_not_pay(
    expected: dict[str, ExpectedOutcome], verify_usd: float, verifier: Verifier
) -> None:
    assert plan(expected, verify_usd, cost_weight=0.05, verifier=verifier) is None


def test_the_strong_one_of_the_rule_counts_alone() -> None:
    models = {"c": CHEAP, "s": STRONG, "t": ExpectedOutcome(0.95, 3.0)}
    found = plan(models, 0.0, cost_weight=0.02, then="s", verifier=PERFECT)
    assert found is not None and (found.cheap, found.strong) == ("c", "s")
    assert plan({"c": CHEAP}, 0.0, cost_weight=0.02, then="s", verifier=PERFECT) is None


def test_a_dearer_verdict_or_a_blinder_verifier_never_helps() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        models = {f"m{k}": ExpectedOutcome(*rng.uniform((0.3, 0.01), (0.99, 3.0))) for k in range(4)}
        catches, price = rng.uniform(0.3, 1.0), rng.uniform(0, 0.3)
        better = plan(models, price, cost_weight=0.1, verifier=Verifier(catches, 0.05))
        for worse in (
            plan(models, price + 0.1, cost_weight=0.1, verifier=Verifier(catches, 0.05)),
            plan(models, price, cost_weight=0.1, verifier=Verifier(catches, 0.3)),
        ):
            assert (worse.gain if worse else 0.0) <= (better.gain if better else 0.0) + 1e-12
        if better:
            assert 0 <= better.ok <= 1
            assert models[better.cheap].usd < models[better.strong].usd


def test_the_harder_steps_come_to_the_strong_one() -> None:
    cheap = np.linspace(0.05, 0.95, 19)
    found = where_rejected(cheap, 0.9)
    assert (found <= 0.9 + 1e-12).all() and (found > 0).all()
    # A verifier that draws lots leaves it the steps as they are.
    assert where_rejected(cheap, 0.97, Verifier(0.4, 0.4)) == pytest.approx(0.97)


def test_by_price_where_nothing_is_learned() -> None:
    usd = {"a": 3.0, "b": 0.1, "c": 10.0}
    assert by_price(usd, "a") == {"cheap": "b", "strong": "a", "expected": None}
    assert by_price(usd, "b") == {"cheap": "b", "strong": "c", "expected": None}
    assert by_price(usd, "a", then="x") == {"cheap": "b", "strong": "x", "expected": None}
    assert by_price({"b": 1.0}, "b") is None
    assert by_price({}, "b") is None


def test_a_verifiers_quality_from_its_verdicts() -> None:
    assert seen(0, 0, 0, 0) == Verifier(0.7, 0.1)
    found = seen(wrong=30, wrong_rejected=30, right=60, right_rejected=0)
    assert (found.catches, found.false_alarms) == pytest.approx((0.85, 3 / 90))
    with pytest.raises(ValueError, match="found 3 of 2 wrong"):
        seen(2, 3, 0, 0)


def decided(model: str, features: dict[str, Any] | None = None) -> RoutingDecision:
    chances = {"c": 0.02, "s": 0.93, "t": 0.05}
    return RoutingDecision(model, chances[model], "checkpoint-1", features or {}, chances, fallback=False)


def test_the_cheap_one_takes_the_place_of_whom_the_decision_prefers() -> None:
    pair = {"cheap": "c", "strong": "t", "expected": None}
    swapped = {"c": 0.93, "s": 0.02, "t": 0.05}
    for drawn, asked, verified in (("s", "c", True), ("c", "s", False), ("t", "t", False)):
        found = cheap_first(decided(drawn), pair)
        assert (found.model, found.candidates) == (asked, swapped)
        assert found.propensity == found.candidates[found.model]
        assert found.features == ({"verify": pair} if verified else {})
    preferred = {"cheap": "s", "strong": "t", "expected": None}
    assert cheap_first(decided("s"), preferred).candidates == decided("s").candidates
    assert cheap_first(decided("c"), preferred) == decided("c")


PREDICTED: dict[str, Any] = {
    "c": {"ok": 0.85, "doubt": 0.1, "seconds": None, "tokens": [50, 100, 300], "usd": [0.1, 0.1, 0.2]},
    "s": {"ok": 0.9, "doubt": 0.05, "seconds": None, "tokens": [50, 100, 400], "usd": [1.0, 2.0, 4.0]},
}


def test_what_is_said_of_the_model_that_was_drawn_is_said_of_the_one_that_is_asked() -> None:
    features = {"checkpoint": 1, "predicted": PREDICTED, "confidence": 0.85, "budget_tokens": 400}
    pair = {"cheap": "c", "strong": "s", "expected": {"ok": 0.93, "usd": 0.4, "gain": 0.1}}
    found = cheap_first(decided("s", features), pair).features
    assert (found["confidence"], found["verify"]) == (0.83, pair)
    assert found["budget_tokens"] >= 300
    outright = cheap_first(decided("c", features | {"confidence": 0.75}), pair).features
    assert (outright["confidence"], outright["budget_tokens"] >= 400) == (0.85, True)


def test_the_pair_by_what_is_expected_and_by_price_where_nothing_is() -> None:
    priced = {"c": (0.15, 0.6), "s": (30.0, 60.0), "t": (3.0, 9.0), "judge": (1.0, 1.0)}
    names = ["c", "s", "t"]

    def pair(features: dict[str, Any], then: str | None = None, **prices: Any) -> Any:
        decision = decided("s", features)
        return pair_of(decision, names, then, 400, priced | prices, "judge", Verifier(1.0, 0.0))

    learned = {"checkpoint": 1, "predicted": PREDICTED, "cost_weight": 0.05}
    found = pair(learned)
    assert (found["cheap"], found["strong"], found["catches"]) == ("c", "s", 1.0)
    # A verdict of ten dollars is not worth it.
    assert pair(learned, judge=(50_000.0, 50_000.0)) is None
    # What a checkpoint expects that does not decide is nothing to go by; nor a model that it does not know.
    assert pair(learned | {"checkpoint": None}) == {"cheap": "c", "strong": "s", "expected": None}
    assert pair(learned, then="x") == {"cheap": "c", "strong": "x", "expected": None}
    assert pair({}, then="t") == {"cheap": "c", "strong": "t", "expected": None}
