"""Choose the two reviewers that together find most of the known issues.

A pair's yield lies between what independence predicts and what was seen: both overstate on few pull requests.
Here singles and overlaps of pairs are each shrunk to their mean, as far as chance alone explains their
differences (empirical Bayes, Efron and Morris 1975).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from router.data.arrays import Floats, Ints
from router.data.outcomes import Reviews, split

_SPLITS = 40


@dataclass(frozen=True)
class Pairs:
    first: Ints
    second: Ints
    """(P,) places of reviewers, first < second."""
    recall: Floats
    """(P,): the share of known issues that at least one of the two is expected to find."""

    two_best: int
    """The place of the pair of the two that find most alone."""
    noise: Floats
    """(P,): the standard error of how far two overlap."""

    def best(self) -> int:
        """The place of the pair to take: the two best, unless another is better by more than chance may be.

        The best of very many estimates is mostly the luckiest."""
        gain = self.recall - self.recall[self.two_best]
        sure = np.where(gain > np.hypot(self.noise, self.noise[self.two_best]), gain, 0.0)
        sure[self.two_best] = 1e-9
        return int(np.argmax(sure))


def fit(found: Floats) -> Pairs:
    """From (I, T): how surely each of T >= 2 reviewers found each of I >= 1 issues, 0 to 1."""
    first, second = _pairs(found.shape[1])
    issues = len(found)
    mean = found.mean(0)
    noise = mean * (1 - mean)
    single = _drawn(mean, noise / issues)
    # How much less the two overlap than by chance: above zero where they look for different things.
    apart = mean[first] * mean[second] - (found[:, first] * found[:, second]).mean(0)
    apart_noise = noise[first] * noise[second] / issues
    apart = _drawn(apart, apart_noise)
    recall = single[first] + single[second] - single[first] * single[second] + apart
    one, two = sorted(np.argsort(-mean, kind="stable")[:2])
    two_best = int(np.flatnonzero((first == one) & (second == two))[0])
    return Pairs(first, second, np.clip(recall, 0.0, 1.0), two_best, np.sqrt(apart_noise))


def judge_reviews(reviews: Reviews) -> dict[str, float | None]:
    """Recall on pull requests not seen; `..._mean` is over seeded splits 70/30, the rest by hash of the id.

    `pair_mae_floor` is the error of the recall in all pull requests: no prediction can be much better.
    """
    pulls = len(reviews.pulls)
    if len(reviews.reviewers) < 2 or pulls < 4:
        return dict.fromkeys(("reviewer_pair_recall", "reviewer_pair_recall_mean", "pair_mae"))
    learned, judged = split(reviews.pulls)
    result: dict[str, float | None] = dict(_judge(reviews, learned, judged))
    orders = [np.random.default_rng(seed).permutation(pulls) for seed in range(_SPLITS)]
    several = [_judge(reviews, order[: round(0.7 * pulls)], order[round(0.7 * pulls) :]) for order in orders]
    for name in several[0]:
        result[f"{name}_mean"] = float(np.mean([one[name] for one in several]))
    return result


def _judge(reviews: Reviews, learned: Ints, judged: Ints) -> dict[str, float]:
    train, test = (reviews.found[np.isin(reviews.pull, part)] for part in (learned, judged))
    pairs = fit(train)
    truth, seen = _together(test, pairs), _together(train, pairs)
    mean = train.mean(0)
    chance = mean[pairs.first] + mean[pairs.second] - mean[pairs.first] * mean[pairs.second]
    return {
        "reviewer_pair_recall": float(truth[pairs.best()]),
        "reviewer_best_single": float(test.mean(0)[np.argmax(mean)]),
        "reviewer_two_best_singles": float(truth[pairs.two_best]),
        "reviewer_best_seen_pair": float(truth[np.argmax(seen)]),
        "reviewer_oracle_pair": float(truth.max()),
        "reviewer_random_pair": float(truth.mean()),
        "pair_mae": _error(pairs.recall, truth),
        "pair_mae_independence": _error(chance, truth),
        "pair_mae_seen": _error(seen, truth),
        "pair_mae_floor": _error(_together(reviews.found, pairs), truth),
    }


def _pairs(count: int) -> tuple[Ints, Ints]:
    places = np.array(list(combinations(range(count), 2)), dtype=np.int64)
    return places[:, 0], places[:, 1]


def _together(found: Floats, pairs: Pairs) -> Floats:
    """(P,): what share at least one of each two found."""
    share: Floats = (1 - (1 - found[:, pairs.first]) * (1 - found[:, pairs.second])).mean(0)
    return share


def _drawn(values: Floats, noise: Floats) -> Floats:
    """Each value drawn to the mean by the share of its distance that is chance."""
    spread = max(float(np.var(values)) - float(np.mean(noise)), 0.0)
    kept = spread / np.maximum(spread + noise, 1e-12)
    return np.asarray(values.mean() + kept * (values - values.mean()), dtype=np.float64)


def _error(told: Floats, truth: Floats) -> float:
    return float(np.abs(told - truth).mean())
