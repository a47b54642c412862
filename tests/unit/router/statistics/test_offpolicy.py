"""Values of policies from logged choices, where the truth is known."""

import numpy as np
import pytest

from router.data.arrays import Floats
from router.data.logged_choices import LoggedChoices
from router.statistics.offpolicy import PolicyValue, dm, dr, ips, may_promote, snips

TRUTH = np.array([[0.9, 0.3], [0.6, 0.7], [0.5, 0.2]])
"""Of three models in two categories."""


def _log(seed: int, number: int = 1500, floor: float = 0.05) -> LoggedChoices:
    """Mostly the second model."""
    random = np.random.default_rng(seed)
    chances = np.tile([floor, 1 - 2 * floor, floor], (number, 1))
    category = random.integers(2, size=number)
    chosen = (random.random(number)[:, None] > chances.cumsum(1)).sum(1)
    ok = (random.random(number) < TRUTH[chosen, category]).astype(float)
    return LoggedChoices(chosen, chances, ok, category)


def _policy(log: LoggedChoices, by_category: list[int]) -> Floats:
    policy: Floats = np.eye(3)[np.array(by_category)[log.category]]
    return policy


def _true(by_category: list[int]) -> float:
    return float(np.mean([TRUTH[model, category] for category, model in enumerate(by_category)]))


def test_estimates_are_right_on_average() -> None:
    logs = [_log(seed) for seed in range(60)]
    for estimate, error in ((ips, 0.03), (snips, 0.02), (dr, 0.02), (dm, 0.04)):
        found = np.mean([estimate(log, _policy(log, [0, 1])).mean for log in logs])
        assert found == pytest.approx(_true([0, 1]), abs=error), estimate.__name__


def test_the_doubly_robust_one_errs_less_than_by_propensity_alone() -> None:
    logs, true = [_log(seed) for seed in range(60)], _true([0, 1])

    def error(estimates: list[PolicyValue]) -> float:
        return float(np.sqrt(np.mean([(estimate.mean - true) ** 2 for estimate in estimates])))

    by_both = error([dr(log, _policy(log, [0, 1])) for log in logs])
    assert by_both < 0.5 * error([ips(log, _policy(log, [0, 1])) for log in logs])


def test_nine_of_ten_intervals_hold_the_truth() -> None:
    logs, true = [_log(seed) for seed in range(100)], _true([0, 1])
    values = [dr(log, _policy(log, [0, 1])) for log in logs]
    assert 0.84 <= np.mean([value.low <= true <= value.high for value in values]) <= 0.98


def test_the_gate_lets_better_ones_through_and_holds_worse_ones() -> None:
    logs = [_log(seed) for seed in range(60)]

    def promoted(new: list[int]) -> float:
        return float(np.mean([may_promote(log, _policy(log, new), _policy(log, [1, 1]))[0] for log in logs]))

    assert promoted([0, 1]) > 0.9
    assert promoted([1, 0]) == 0
    assert promoted([2, 1]) <= 0.05
    assert promoted([1, 1]) == 1


def test_what_was_never_tried_is_unsure() -> None:
    log = _log(0)
    chances = log.chances.copy()
    chances[:, :2] += chances[:, 2:] / 2
    chances[:, 2] = 0
    kept = log.chosen != 2
    blind = LoggedChoices(log.chosen[kept], chances[kept], log.ok[kept], log.category[kept])
    value = dr(blind, _policy(blind, [2, 2]))
    assert value.high - value.low > 0.2
    assert not may_promote(blind, _policy(blind, [2, 2]), _policy(blind, [1, 1]))[0]


def test_a_log_without_chances_is_refused() -> None:
    with pytest.raises(ValueError, match="without a chance"):
        LoggedChoices(np.array([0]), np.array([[0.0, 1.0]]), np.array([1.0]), np.array([0]))
