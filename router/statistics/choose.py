"""The policy: success - cost - time, and no leaving the incumbent for less than a margin.

The best of many estimates is mostly an overestimated one: argmax can be worse than the best single model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from router.data.arrays import Floats, Ints
from router.statistics import shrinkage

MARGINS: Final = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 2.0)
"""The last one never leaves."""
_MIN_OUTCOMES: Final = 30
"""Queries at which both are known; of fewer a gain is luck."""


PricePair = tuple[float, float]
"""US dollars for a million tokens in and out."""


@dataclass(frozen=True)
class ChoicePolicy:
    incumbent: int
    margin: float
    """Utility by which another model must be better."""
    cost_weight: float = 0.0
    """Success that one US dollar is worth."""
    seconds_weight: float = 0.0
    """Success that one second is worth."""


def choose(success: Floats, cost_usd: Floats, policy: ChoicePolicy, seconds: Floats | None = None) -> Ints:
    """(Q,) places of models, from (Q, M) predictions of each."""
    utility = success - policy.cost_weight * cost_usd
    if seconds is not None:
        utility = utility - policy.seconds_weight * seconds
    best = utility.argmax(1)
    gain = utility[np.arange(len(best)), best] - utility[:, policy.incumbent]
    return np.where(gain > policy.margin, best, policy.incumbent)


def cheap_then_verify(
    cheap: Floats,
    strong: Floats,
    cheap_usd: Floats,
    strong_usd: Floats,
    verify_usd: float,
    catches: float,
    false_alarms: float,
) -> tuple[Floats, Floats]:
    """(success, cost) of asking the cheap model, then the strong one where a verifier rejects.

    `catches`, `false_alarms`: the share of wrong and of right answers that it rejects. `strong` is the strong
    model's chance where it is asked, which is lower than elsewhere: the cheap one has mostly failed there.
    """
    rejected = (1 - cheap) * catches + cheap * false_alarms
    return cheap * (1 - false_alarms) + rejected * strong, cheap_usd + verify_usd + rejected * strong_usd


def best_single(ok: Floats) -> int:
    """By (Q, M) outcomes, NaN where not known, less a standard error: one right answer makes no best."""
    rate = shrinkage.overall(ok)
    doubt = np.sqrt(np.clip(rate * (1 - rate), 0, None) / (np.isfinite(ok).sum(0) + 2))
    return int((rate - doubt).argmax())


def picked(values: Floats, choice: Ints) -> Floats:
    """(Q,): each query's value at its choice."""
    return np.asarray(values[np.arange(len(choice)), choice], dtype=np.float64)


def qualities(ok: Floats) -> Floats:
    """(M,): each model's share of right answers, NaN where it was never asked."""
    known = np.isfinite(ok)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, ok, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def gain(ok: Floats, choice: Ints, incumbent: int) -> Floats:
    """(Q' <= Q,): how much better the choice did than the incumbent, where both are known.

    Empty where that is not even half of the queries: who was asked is then mostly who was chosen anyway, and
    the others are no fair part of all."""
    both = picked(ok, choice) - ok[:, incumbent]
    known = np.isfinite(both)
    return both[known] if known.mean() >= 0.5 else both[:0]


def tune_margin(success: Floats, ok: Floats) -> ChoicePolicy:
    """The margin whose gain over the incumbent is surest on queries that predictions had not seen: the mean
    less its standard error, which is 0 for never leaving. Only where both the chosen model and the incumbent
    are known: with few such queries the policy never leaves.
    """
    incumbent = best_single(ok)
    free = np.zeros_like(success)
    best, found = 0.0, MARGINS[-1]
    for margin in MARGINS[:-1]:
        gain = picked(ok, choose(success, free, ChoicePolicy(incumbent, margin))) - ok[:, incumbent]
        if (sure := _surely(gain)) > best:
            best, found = sure, margin
    return ChoicePolicy(incumbent, found)


def weights(cost_usd: Floats) -> Floats:
    """Cost weights from none to nothing but cost, in terms of the pool's own prices."""
    typical = float(np.median(cost_usd.mean(0)))
    return np.append(0.0, np.geomspace(1e-3, 1e2, 60)) / max(typical, 1e-12)


def tune_cost(
    success: Floats,
    ok: Floats,
    cost_usd: Floats,
    policy: ChoicePolicy,
    loss: float = 0.005,
    sure: float = 1.0,
) -> ChoicePolicy:
    """The cheapest policy with quality at the best single's, less `loss`, where predictions had not seen.

    The mean less `sure` standard errors has to be: of many that are tried, the cheapest that seems to hold is
    mostly one that was lucky. `policy` guards quality at no cost weight; its margin is one of two tried."""
    found, cheapest = policy, float(cost_usd[:, policy.incumbent].mean())
    for margin in (0.0, policy.margin):
        for weight in weights(cost_usd):
            tried = ChoicePolicy(policy.incumbent, margin, float(weight))
            choice = choose(success, cost_usd, tried)
            cost = float(picked(cost_usd, choice).mean())
            if cost < cheapest and _surely(picked(ok, choice) - ok[:, policy.incumbent], sure) >= -loss:
                found, cheapest = tried, cost
    return found


def curve(
    success: Floats, expected_usd: Floats, usd: Floats, ok: Floats, incumbent: int
) -> tuple[Floats, Floats]:
    """(cost, quality) of the router at every weight, in US dollars per query and share of right answers."""
    points = []
    for weight in weights(expected_usd):
        choice = choose(success, expected_usd, ChoicePolicy(incumbent, 0.0, float(weight)))
        points.append((float(picked(usd, choice).mean()), _mean(picked(ok, choice))))
    found = np.array(points)
    return found[:, 0], found[:, 1]


def _surely(gain: Floats, errors: float = 1.0) -> float:
    """The mean of those known, less its standard errors; of few of them nothing can be said."""
    known = gain[np.isfinite(gain)]
    return (
        float(known.mean() - errors * known.std() / np.sqrt(len(known)))
        if len(known) >= _MIN_OUTCOMES
        else -np.inf
    )


def _mean(values: Floats) -> float:
    """Return the mean of the known values; 0 if there is none, so that nothing relies on it."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
