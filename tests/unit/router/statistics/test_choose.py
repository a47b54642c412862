"""The policy, its figures and the prices of old pools."""

import numpy as np
import pytest

from router.data import metrics
from router.evaluate.baselines import Pool, judge
from router.evaluate.old_prices import price_of
from router.statistics import choose
from router.statistics.choose import ChoicePolicy


def test_the_incumbent_is_left_for_more_than_the_margin_only() -> None:
    success = np.array([[0.80, 0.83], [0.80, 0.90], [0.80, 0.70]])
    free = np.zeros((3, 2))
    assert choose.choose(success, free, ChoicePolicy(0, 0.05)).tolist() == [0, 1, 0]
    assert choose.choose(success, free, ChoicePolicy(0, 0.0)).tolist() == [1, 1, 0]


def test_cost_and_time_weigh_against_success() -> None:
    success, cost = np.array([[0.9, 0.8]]), np.array([[0.10, 0.01]])
    assert choose.choose(success, cost, ChoicePolicy(0, 0.0, 1.0)).tolist() == [0]
    assert choose.choose(success, cost, ChoicePolicy(0, 0.0, 2.0)).tolist() == [1]
    seconds = np.array([[9.0, 1.0]])
    assert choose.choose(success, cost, ChoicePolicy(0, 0.0, 0.0, 0.02), seconds).tolist() == [1]


def test_a_margin_is_tuned_to_never_leave_where_estimates_are_noise() -> None:
    rng = np.random.default_rng(0)
    ok = (rng.random((400, 6)) < np.array([0.9, 0.8, 0.8, 0.8, 0.8, 0.8])).astype(np.float64)
    policy = choose.tune_margin(np.clip(0.85 + 0.1 * rng.normal(size=ok.shape), 0, 1), ok)
    assert policy == ChoicePolicy(0, choose.MARGINS[-1])


def test_a_margin_is_tuned_to_leave_where_estimates_know() -> None:
    rng = np.random.default_rng(0)
    truth = np.where((np.arange(400) % 3 == 0)[:, None], [0.2, 0.9], [0.95, 0.5])
    ok = (rng.random(truth.shape) < truth).astype(np.float64)
    policy = choose.tune_margin(truth, ok)
    assert policy.incumbent == 0 and policy.margin < 0.2


def test_a_margin_is_tuned_to_never_leave_where_only_one_model_is_known_at_a_query() -> None:
    rng = np.random.default_rng(0)
    ok = np.full((300, 3), np.nan)
    ok[np.arange(300), rng.integers(0, 3, 300)] = rng.random(300) < 0.7
    assert choose.tune_margin(rng.random(ok.shape), ok).margin == choose.MARGINS[-1]


def test_gains_are_counted_where_both_are_known() -> None:
    ok = np.array([[0.0, 1.0], [np.nan, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert choose.gain(ok, np.ones(4, dtype=np.int64), 0).tolist() == [1, 0, -1]
    assert not len(choose.gain(ok[1:2], np.ones(1, dtype=np.int64), 0))
    np.testing.assert_array_equal(choose.qualities(np.array([[1.0, np.nan], [0.0, np.nan]])), [0.5, np.nan])


def test_one_right_answer_does_not_make_the_best_single() -> None:
    ok = np.full((40, 2), np.nan)
    ok[:, 0] = (np.arange(40) % 10 > 0).astype(np.float64)
    ok[0, 1] = 1
    assert choose.best_single(ok) == 0


def test_the_cheapest_policy_keeps_the_quality_or_stays() -> None:
    rng = np.random.default_rng(1)
    easy = np.arange(600) % 2 == 0
    truth = np.where(easy[:, None], [0.95, 0.95], [0.9, 0.3])
    # One draw for both: at easy queries they are right together.
    ok = (rng.random((600, 1)) < truth).astype(np.float64)
    cost = np.tile([1.0, 0.1], (600, 1))
    tuned = choose.tune_cost(truth, ok, cost, ChoicePolicy(0, 0.02), loss=0.02)
    assert choose.choose(truth, cost, tuned)[easy].mean() == 1
    assert choose.choose(truth, cost, tuned)[~easy].mean() == 0
    blind = choose.tune_cost(np.full_like(truth, 0.8), ok, cost, ChoicePolicy(0, 0.02), loss=0.02)
    assert blind == ChoicePolicy(0, 0.02)


def test_verifying_is_priced_as_what_it_comes_to() -> None:
    one = np.array([0.8]), np.array([0.5]), np.array([1.0]), np.array([10.0])
    success, cost = choose.cheap_then_verify(*one, 0.5, catches=1.0, false_alarms=0.0)
    assert (success[0], cost[0]) == (pytest.approx(0.9), pytest.approx(3.5))
    success, cost = choose.cheap_then_verify(*one, 0.5, catches=0.0, false_alarms=0.25)
    assert (success[0], cost[0]) == (pytest.approx(0.7), pytest.approx(3.5))


def test_calibration_error_is_the_gap_within_bins() -> None:
    p = np.array([0.1, 0.1, 0.9, 0.9])
    assert metrics.ece(p, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(0.1)
    assert metrics.ece(p, np.array([0.0, np.nan, 0.0, 1.0])) == pytest.approx((0.1 + 0.8) / 3)
    assert metrics.brier(p, np.array([0.0, 0.0, 1.0, np.nan])) == pytest.approx(0.01)
    assert metrics.auroc(np.array([1.0, 2.0, 2.0, 3.0]), [False, False, True, True]) == pytest.approx(7 / 8)


def test_aiq_is_the_area_under_the_hull_over_the_dearest_cost() -> None:
    cost, quality = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.5, 0.9, 0.8])
    x, y = metrics.hull(cost, quality)
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [0.5, 0.9])
    assert metrics.aiq(cost, quality, 5.0) == pytest.approx((2 * 0.7 + 2 * 0.9) / 5)
    assert metrics.cost_saved(cost, quality, 4.0, 0.85) == pytest.approx(0.25)
    assert metrics.cost_saved(cost, quality, 4.0, 0.95) == 0


def test_apgr_is_half_by_chance_and_more_for_who_knows() -> None:
    weak, strong = np.tile([1.0, 0.0, 0.0, 1.0], 50), np.tile([1.0, 1.0, 1.0, 1.0], 50)
    assert metrics.apgr(strong - weak, weak, strong) == pytest.approx(0.75, abs=0.01)
    assert metrics.apgr(np.zeros(200), weak, strong) == pytest.approx(0.5, abs=0.01)
    assert metrics.apgr(np.zeros(200), strong, weak) is None


def test_intervals_hold_the_mean_and_come_from_a_seed() -> None:
    values = np.random.default_rng(0).normal(1, 1, 400)
    low, high = metrics.interval(lambda at: float(values[at].mean()), 400)
    assert low < values.mean() < high and high - low == pytest.approx(4 / 20, rel=0.2)
    assert (low, high) == metrics.interval(lambda at: float(values[at].mean()), 400)


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("gpt-4-0613-FC", (30, 60)),
        ("gpt-4o-mini-2024-07-18", (0.15, 0.6)),
        ("gpt-4-turbo-2024-04-09-FC", (10, 30)),
        ("mistral-large-2407-FC-Any", (2, 6)),
        ("open-mistral-nemo-2407-FC-Auto", (0.15, 0.15)),
        ("claude-3-5-sonnet-20240620", (3, 15)),
        ("WizardLM/WizardLM-13B-V1.2", (0.3, 0.3)),
        ("databricks-dbrx-instruct", None),
        ("gpt-40", None),
        ("", None),
    ],
)
def test_old_models_have_their_price_and_unknown_ones_none(
    name: str, price: tuple[float, float] | None
) -> None:
    assert price_of(name) == price


def test_prices_of_later_models_are_asked_for_by_their_longest_name() -> None:
    later = {"gpt-4.1-mini": (0.4, 1.6), "o1-pro": (150.0, 600.0)}
    assert price_of("gpt-4.1-mini-2025-04-14-FC", listed=later.get) == (0.4, 1.6)
    assert price_of("o1-pro", listed=later.get) == (150, 600)
    assert price_of("GPT-4o-2024-11-20 (FC)", listed=later.get) == (2.5, 10)
    assert price_of("someone/else", listed=later.get) is None


def test_baselines_are_between_chance_and_the_oracle() -> None:
    ok = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    cost = np.tile([2.0, 1.0], (4, 1))
    category = np.array([0, 0, 1, 0])
    found = judge(Pool(category, ok, category, ok, cost, cost), priced=True)
    assert found["best_single_quality"] == 0.75
    assert found["best_per_category_quality"] == 1.0
    assert found["oracle_quality"] == 1.0 and found["oracle_usd_per_1k"] == pytest.approx(1500)
    assert found["random_quality"] == pytest.approx(5 / 8)
    assert judge(Pool(category, ok, category, ok, cost, cost), priced=False)["random_usd_per_1k"] is None
