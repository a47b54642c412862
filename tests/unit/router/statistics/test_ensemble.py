"""Three views as one: the network has a say where it knows more, and none where it does not."""

import numpy as np

from router.data import metrics
from router.data.arrays import Floats
from router.data.odds import logistic
from router.statistics.ensemble import MEMORY, NEURAL, Ensemble, fit, stacked


def sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)), dtype=np.float64)


def world(seed: int = 0, queries: int = 400, models: int = 5) -> tuple[Floats, Floats, Floats]:
    """(ok, what one half of the truth says, what the other does), chances."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, queries, models))
    ok = (rng.random(one.shape) < sigmoid(one + other)).astype(np.float64)
    ok[rng.random(ok.shape) < 0.1] = np.nan
    return ok, sigmoid(0.8 * one), sigmoid(0.8 * other)


def test_a_network_that_knows_more_has_a_say_and_lowers_the_score() -> None:
    ok, memory, neural = world()
    both = fit(memory, neural, ok)
    assert both.serves
    assert both.low > 0
    assert "lowers the Brier score" in both.reason
    fresh, their_memory, their_neural = world(1)
    found = metrics.brier(both.predict(their_memory, their_neural), fresh)
    assert found < metrics.brier(their_memory, fresh) - 0.02
    assert metrics.ece(both.predict(their_memory, their_neural), fresh) < 0.05


def test_a_network_that_knows_nothing_new_has_no_say_and_memory_stays_as_it_is() -> None:
    ok, memory, _ = world()
    noisy = np.clip(memory + np.random.default_rng(2).normal(0, 0.1, memory.shape), 0.01, 0.99)
    both = fit(memory, noisy, ok)
    assert not both.serves
    assert both.low <= 0
    assert "has no say" in both.reason
    np.testing.assert_allclose(both.predict(memory, noisy), memory)
    np.testing.assert_allclose(both.predict(memory), memory)


def test_one_lucky_difference_is_not_enough() -> None:
    """Models fail together: what 50 of them say of the same 12 queries is 12 differences, not 600."""
    served = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hard = rng.normal(size=(12, 1))
        ok = np.repeat(rng.random((12, 1)) < sigmoid(hard), 50, axis=1).astype(np.float64)
        memory = np.full(ok.shape, 0.6)
        neural = np.repeat(rng.uniform(0.4, 0.8, (12, 1)), 50, axis=1)
        served += fit(memory, neural, ok, seed=seed).serves
    assert served <= 2


def test_votes_of_rules_count_where_they_tell_something() -> None:
    ok, memory, _ = world()
    rng = np.random.default_rng(0)
    votes = np.where(rng.random(ok.shape) < 0.8, np.nan_to_num(ok), rng.integers(0, 2, ok.shape))
    told = fit(memory, memory, ok, votes)
    assert not told.serves
    assert told.weights[1] > 0.5
    assert metrics.brier(told.predict(memory, votes=votes), ok) < metrics.brier(memory, ok) - 0.02
    useless = fit(memory, memory, ok, rng.integers(0, 2, ok.shape).astype(np.float64))
    np.testing.assert_allclose(useless.predict(memory), memory)


def test_no_weight_is_below_zero() -> None:
    ok, memory, neural = world()
    parts = np.stack(
        [np.zeros_like(memory), np.log(memory / (1 - memory)), -np.log(neural / (1 - neural))], 2
    )
    weights = stacked(parts, ok, (MEMORY, NEURAL))
    assert weights[1 + NEURAL] == 0
    assert weights[1 + MEMORY] > 0.5


def test_a_logistic_regression_finds_what_made_the_outcomes() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2))
    y = (rng.random(20_000) < sigmoid(0.5 + x @ np.array([1.0, -2.0]))).astype(np.float64)
    np.testing.assert_allclose(logistic(x, y), [0.5, 1.0, -2.0], atol=0.07)


def test_nothing_known_is_no_reason_to_change_anything() -> None:
    memory = np.full((10, 2), 0.7)
    none: Ensemble = fit(memory, memory, np.full((10, 2), np.nan))
    assert not none.serves
    np.testing.assert_allclose(none.predict(memory), memory)
