"""Intervals on generated values whose spread differs by model and category: pooling them must fail."""

import numpy as np
import pytest

from router.data.arrays import Floats
from router.data.outcomes import Calls
from router.statistics import additive
from router.statistics.intervals import Interval, fit, judge_intervals

MODELS = tuple(f"m{i}" for i in range(6))
KINDS = ("long", "quick", "wild")


def _generated(queries: int, seed: int, models: int = 6) -> tuple[Floats, list[str], Floats]:
    """(Q, M) values, categories, (Q, 4) features: exp(effects + text + noise of a scale by cell)."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=queries)
    features = rng.normal(size=(queries, 4))
    spread = 0.2 * np.linspace(1, 2, models) * np.array([1.0, 0.5, 2.5])[kind][:, None]
    logs = np.linspace(0, 1, models) + np.array([1.0, -1.0, 0.0])[kind][:, None] + 0.3 * features[:, :1]
    logs = logs + spread * rng.normal(size=(queries, models))
    values = np.exp(logs)
    values[rng.random(values.shape) < 0.05] = np.nan
    return values, [KINDS[i] for i in kind], features


def _coverage(told: Interval, values: Floats) -> float:
    known = ~np.isnan(values)
    return float(((told.low <= values) & (values <= told.high))[known].mean())


def test_intervals_hold_in_every_cell() -> None:
    values, kinds, features = _generated(900, 0)
    fitted = fit(values, kinds, features, MODELS)
    fresh, their_kinds, theirs = _generated(3000, 1)
    told = fitted.predict(MODELS, their_kinds, theirs)
    assert 0.885 <= _coverage(told, fresh) <= 0.925
    for name in KINDS:
        rows = np.array(their_kinds) == name
        for m in range(len(MODELS)):
            cell = Interval(told.low[rows, m], told.expected[rows, m], told.high[rows, m])
            assert 0.83 <= _coverage(cell, fresh[rows, m]) <= 0.97, (name, m)
    wild, quick = (np.array(their_kinds) == name for name in ("wild", "quick"))
    assert np.log(told.high / told.low)[wild].mean() > 3 * np.log(told.high / told.low)[quick].mean()


def test_who_is_new_gets_a_wider_interval_that_holds() -> None:
    values, kinds, features = _generated(600, 0, models=12)
    names = [f"m{i}" for i in range(12)]
    known = [i for i in range(12) if i != 6]
    fitted = fit(values[:, known], kinds, features, [names[i] for i in known])
    told = fitted.predict(["m6", "m5"], kinds, features)
    ratio = np.log(told.high / told.low).mean(0)
    assert ratio[0] > 1.2 * ratio[1]
    assert _coverage(Interval(told.low[:, :1], told.expected[:, :1], told.high[:, :1]), values[:, 6:7]) > 0.85
    new, old = (
        fitted.predict(["m5"], ["never seen"], features[:1]),
        fitted.predict(["m5"], ["long"], features[:1]),
    )
    assert new.high[0, 0] / new.low[0, 0] > old.high[0, 0] / old.low[0, 0]


def test_cost_is_the_same_interval_in_money() -> None:
    tokens = Interval(np.array([[10.0]]), np.array([[20.0]]), np.array([[40.0]]))
    cost = tokens.cost(0.5, fixed=1.0)
    assert (cost.low[0, 0], cost.expected[0, 0], cost.high[0, 0]) == (6.0, 11.0, 21.0)


def test_one_model_one_category_and_values_all_alike_are_taken() -> None:
    fitted = fit(np.full((20, 1), 3.0), ["only"] * 20, np.zeros((20, 2)), ["m"])
    told = fitted.predict(["m", "new"], ["only"], np.zeros((1, 2)))
    np.testing.assert_allclose(told.expected, 3.0, rtol=1e-6)
    assert np.isfinite(told.high).all()
    assert (told.low <= told.high).all()


def test_judged_by_the_split_beside_the_pooled_interval() -> None:
    values, kinds, features = _generated(700, 2)
    nothing = np.full(values.shape, np.nan)
    calls = Calls(
        tuple(f"q{i}" for i in range(700)),
        ("",) * 700,
        np.array(kinds),
        MODELS,
        nothing,
        values,
        nothing,
        nothing,
    )
    told = judge_intervals(calls, features)
    assert told["coverage_marginal_tokens"] is None
    assert told["coverage_marginal"] == told["coverage_marginal_seconds"] == pytest.approx(0.9, abs=0.03)
    worst, pooled = told["coverage_worst_category"], told["coverage_worst_category_pooled_seconds"]
    assert worst is not None
    assert pooled is not None
    assert worst > 0.82
    assert pooled < 0.75
    assert judge_intervals(calls, features) == told


def test_the_mean_finds_the_effects_though_not_every_model_met_every_category() -> None:
    rng = np.random.default_rng(0)
    category = np.repeat([0, 1], 200)
    logs = (
        np.array([0.0, 2.0])[category][:, None] + np.array([0.0, 1.0, 3.0]) + 0.1 * rng.normal(size=(400, 3))
    )
    logs[category == 0, 2] = np.nan
    features = rng.normal(size=(400, 2))
    told = additive.fit(logs, category, 2, features).predict(np.array([0]), np.array([2]), np.zeros((1, 2)))
    assert told[0, 0] == pytest.approx(3.0, abs=0.4)
