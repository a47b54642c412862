"""Averages over orders: they fall as they should, all orders leave nothing, and budgets have their unit."""

import numpy as np
import pytest

from router.data.arrays import Floats
from router.statistics.expectation import (
    MAX_BUDGET,
    MIN_BUDGET,
    TOLERATED,
    BayesianExpectationLayer,
    orderings,
    reasoning_budget,
    tolerated,
)


def spreads(orders: tuple[int, ...], size: int = 7, turns: int = 100) -> list[float]:
    """Over random orders of the same inputs, of the layer's average over so many orders; several draws."""
    import torch

    from router.network.net import SetEncoder

    torch.manual_seed(0)
    encoder = SetEncoder(16, size).eval()
    torch.nn.init.normal_(encoder.position)
    elements = torch.randn(1, size, 16)
    rng = np.random.default_rng(1)
    turned = torch.cat([elements[:, rng.permutation(size)] for _ in range(turns)])
    with torch.inference_mode():
        found = [
            [BayesianExpectationLayer(encoder, k, seed)(turned)[0].var(0).mean() for seed in range(8)]
            for k in orders
        ]
    return [float(np.sqrt(np.mean(variances))) for variances in found]


def test_the_spread_over_orders_falls_with_the_root_of_how_many_are_averaged() -> None:
    one, four, sixteen, many = spreads((1, 4, 16, 64))
    for wider, narrower in ((one, four), (four, sixteen), (sixteen, many)):
        assert wider / narrower == pytest.approx(2.0, rel=0.2)


def test_all_orders_leave_no_trace_of_the_order() -> None:
    one, every = spreads((1, 24), size=4)
    assert one > 1e-3
    assert every < 1e-6


def test_order_sensitivity_is_the_spread_over_orders_and_nothing_where_none_matters() -> None:
    import torch

    elements = torch.arange(6.0).reshape(2, 3, 1)
    first = BayesianExpectationLayer(lambda x: x[:, 0], 6)
    expected, sensitivity = first(elements)
    assert expected[:, 0].tolist() == [1.0, 4.0]
    assert sensitivity.tolist() == pytest.approx([np.std([0, 1, 2])] * 2)
    assert BayesianExpectationLayer(lambda x: x.sum(1), 6)(elements)[1].tolist() == [0.0, 0.0]


def test_orders_begin_with_the_elements_own_differ_and_are_cached() -> None:
    drawn = orderings(6, 10, seed=3)
    assert drawn.shape == (10, 6)
    assert drawn[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len({tuple(order) for order in drawn.tolist()}) == 10
    assert orderings(6, 10, seed=3) is drawn
    assert len(orderings(3, 100)) == 6
    with pytest.raises(ValueError, match="expected at least one"):
        orderings(3, 0)


def budget(tokens: float, error: float) -> int:
    return int(reasoning_budget(np.array(tokens), np.array(error)))


def test_a_budget_grows_with_the_root_of_the_answer_and_the_log_of_what_must_not_remain() -> None:
    assert budget(1600, 0.1) == pytest.approx(2 * budget(400, 0.1), rel=0.01)
    assert budget(400, 0.01) == pytest.approx(2 * budget(400, 0.1), rel=0.01)
    assert budget(400, 0.1) == round(32 * 20 * np.log(10))


@pytest.mark.parametrize(
    ("tokens", "error", "expected"),
    [
        (0.0, 0.1, MIN_BUDGET),
        (400.0, 1.0, MIN_BUDGET),
        (1e9, 1e-9, MAX_BUDGET),
        (float("nan"), 0.1, MIN_BUDGET),
        (-5.0, 0.1, MIN_BUDGET),
    ],
)
def test_a_budget_is_bounded(tokens: float, error: float, expected: int) -> None:
    assert budget(tokens, error) == expected


def test_what_may_remain_leaves_the_tolerated_share_of_all() -> None:
    failure: Floats = np.array([0.0, TOLERATED, 0.1, 1.0])
    assert tolerated(failure).tolist() == pytest.approx([1.0, 1.0, 0.5, TOLERATED])
