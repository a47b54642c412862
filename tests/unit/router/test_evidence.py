"""What outcomes say of a checkpoint since it is in its state, and of models that suddenly fail."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from db.router.outcomes import OutcomeDecision, OutcomeRow
from router.rollout import evidence
from router.rollout.stages import Evidence, State
from tests.unit.router.test_dataset import NOW, row

RATE = {"p/good": 0.9, "p/bad": 0.4}
GOOD = {"p/good": 0.98, "p/bad": 0.02}
BAD = {"p/good": 0.02, "p/bad": 0.98}
SINCE = NOW - timedelta(days=1)


def decided(
    count: int, chances: dict[str, float], features: Callable[[int], dict[str, Any]], seed: int = 0
) -> list[OutcomeRow]:
    """Steps whose model was drawn, and went well as often as it does."""
    random = np.random.default_rng(seed)
    names = list(chances)
    rows = []
    for n in range(count):
        model = names[int(random.choice(len(names), p=list(chances.values())))]
        decision = OutcomeDecision(
            "p", model, chances[model], chances, features(n), SINCE + timedelta(minutes=1)
        )
        ok = float(random.random() < RATE[model])
        at = NOW - timedelta(minutes=count - n)
        rows.append(row(n + seed * 100_000, model=model, decision=decision, ok=ok, at=at))
    return rows


def mixed(new: dict[str, float], old: dict[str, float]) -> dict[str, float]:
    return {name: 0.1 * new[name] + 0.9 * old[name] for name in new}


def found(rows: list[OutcomeRow], state: State, number: int = 3) -> Evidence:
    seen = evidence.of_checkpoint(number, state, SINCE, rows)
    assert seen is not None
    return seen


def test_in_shadow_it_is_compared_with_what_was_chosen() -> None:
    rows = decided(1_500, BAD, lambda n: {"shadow": {"3": GOOD}})
    seen = found(rows, "shadow")
    assert seen.outcomes == 1_500
    assert seen.gain.low > 0 and seen.gain.low < 0.48 < seen.gain.high
    worse = found(decided(1_500, GOOD, lambda n: {"shadow": {"3": BAD}}), "shadow")
    assert worse.gain.high < 0


def test_in_a_share_it_is_compared_with_the_other_part_of_the_mixture() -> None:
    rows = decided(3_000, mixed(GOOD, BAD), lambda n: {"shadow": {"3": GOOD, "2": BAD}})
    assert found(rows, "share").gain.mean == pytest.approx(0.48, abs=0.08)
    rows = decided(3_000, mixed(BAD, GOOD), lambda n: {"shadow": {"3": BAD}})
    assert found(rows, "share").gain.mean == pytest.approx(-0.48, abs=0.12)


def test_who_serves_all_is_compared_with_rules() -> None:
    rows = decided(1_500, GOOD, lambda n: {"checkpoint": 3, "votes": {"rules": "p/bad"}})
    assert found(rows, "all").gain.low > 0
    same = decided(1_500, GOOD, lambda n: {"checkpoint": 3, "votes": {"rules": "p/good"}})
    assert found(same, "all").gain.mean == pytest.approx(0, abs=1e-9)


def test_what_was_decided_before_or_without_it_does_not_count() -> None:
    rows = decided(100, BAD, lambda n: {"shadow": {"3": GOOD}} if n < 30 else {"shadow": {"2": GOOD}})
    assert found(rows, "shadow").outcomes == 30
    assert evidence.of_checkpoint(3, "shadow", NOW, rows) is None
    assert evidence.of_checkpoint(3, "shadow", SINCE, rows[:19]) is None


def test_it_waits_for_models_that_it_relies_on() -> None:
    rows = decided(100, BAD, lambda n: {"shadow": {"3": GOOD}})
    for out, waits in ((["p/good"], ("p/good",)), (["p/bad"], ()), (["p/other"], ())):
        seen = evidence.of_checkpoint(3, "shadow", SINCE, rows, out)
        assert seen is not None and seen.quarantined == waits


def history(bad: int, *, predicted: bool, seed: int = 0, well: int = 300) -> list[OutcomeRow]:
    """A model that is right in 9 of 10 steps, and then suddenly in 3 of 10."""
    random = np.random.default_rng(seed)
    rows = []
    for n in range(well + bad):
        ok = float(random.random() < (0.9 if n < well else 0.3))
        features = {"predicted": {"p/good": {"ok": 0.9, "doubt": 0.03}}} if predicted else {}
        decision = OutcomeDecision("p", "p/good", 1.0, {"p/good": 1.0}, features, NOW)
        at = NOW - timedelta(minutes=well + bad - n)
        rows.append(row(n, model="p/good", decision=decision, ok=ok, at=at))
    return rows


@pytest.mark.parametrize("predicted", [True, False])
def test_a_model_that_breaks_is_noticed_within_sixty_outcomes(predicted: bool) -> None:
    after = []
    for seed in range(20):
        rows = history(100, predicted=predicted, seed=seed)
        assert evidence.broken_models(rows[:300], NOW, {}) == []
        after.append(next(k for k in range(1, 101) if evidence.broken_models(rows[: 300 + k], NOW, {})))
    assert max(after) <= 60
    [broken] = evidence.broken_models(history(60, predicted=predicted), NOW, {})
    assert broken.model == "p/good" and "went well where" in broken.reason


def test_an_alarm_that_was_outlived_or_rested_off_is_none() -> None:
    rows = history(40, predicted=True)
    assert evidence.broken_models(rows, NOW, {})
    assert evidence.broken_models(rows, NOW, {"p/good": NOW}) == []
    assert evidence.broken_models(rows, NOW + timedelta(days=2), {}) == []
    well = [row(1_000 + n, model="p/good", at=NOW, ok=1.0) for n in range(70)]
    assert evidence.broken_models(rows + well, NOW, {}) == []


def test_who_was_never_good_is_not_broken() -> None:
    random = np.random.default_rng(0)
    rows = [row(n, model="p/bad", at=NOW, ok=float(random.random() < 0.3)) for n in range(3_000)]
    assert evidence.broken_models(rows, NOW, {}) == []
