"""Reviewers of whom it is known what they find."""

import numpy as np

from router.data.arrays import Floats
from router.data.outcomes import Reviews
from router.evaluate.pairs import fit, judge_reviews


def _found(issues: int, seed: int) -> Floats:
    """0 and 1 are the best and find the same; 2 finds what they do not; 3 finds little."""
    rng = np.random.default_rng(seed)
    kind = rng.random(issues) < 0.6
    chances = np.stack([0.95 * kind, 0.93 * kind, 0.85 * ~kind, np.full(issues, 0.1)], axis=1)
    return (rng.random(chances.shape) < chances).astype(np.float64)


def test_two_who_find_different_things_are_taken_where_that_is_sure() -> None:
    pairs = fit(_found(400, 0))
    best = pairs.best()
    assert (pairs.first[best], pairs.second[best]) == (0, 2)
    assert pairs.recall[best] > 0.85


def test_the_two_best_are_taken_where_another_pair_may_be_luck() -> None:
    rng = np.random.default_rng(1)
    found = (rng.random((30, 6)) < np.array([0.6, 0.55, 0.45, 0.45, 0.45, 0.45])).astype(np.float64)
    pairs = fit(found)
    assert pairs.best() == pairs.two_best


def test_recall_is_told_better_than_by_independence() -> None:
    found = _found(400, 2)
    pulls = tuple(f"p{i}" for i in range(100))
    told = judge_reviews(Reviews(tuple("abcd"), pulls, np.arange(400) % 100, found))
    pair, two_best = told["reviewer_pair_recall_mean"], told["reviewer_two_best_singles_mean"]
    assert pair is not None
    assert two_best is not None
    assert pair > two_best + 0.2
    for name in ("pair_mae", "pair_mae_mean"):
        error, chance = told[name], told[name.replace("mae", "mae_independence")]
        assert error is not None
        assert chance is not None
        assert error < 0.6 * chance


def test_nothing_is_said_of_one_reviewer() -> None:
    reviews = Reviews(("a",), ("p", "q"), np.array([0, 1]), np.ones((2, 1)))
    assert judge_reviews(reviews)["reviewer_pair_recall"] is None
