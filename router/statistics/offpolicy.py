"""Estimate the value of another policy from logged choices and their chances.

IPS, SNIPS, the direct method and the doubly robust estimate (Dudík, Langford and Li, 2011), each with a 90 %
interval, and the gate that a new policy has to pass before it serves.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from router.data.arrays import Floats
from router.data.logged_choices import LoggedChoices
from router.statistics.bandit import BanditConfig, effects

WORSE: Final = 0.01
"""A policy that is worse by more than this does harm."""
_NINETY: Final = 1.645
"""Standard deviations to either side of a 90 % interval, or to one side of a 95 % bound."""
_FOLDS: Final = 5
SHRINK: Final = 300.0
"""Weights well below its root count as they are; tried from 30 to infinity, see docs/router-log.md."""
_WIDE: Final = BanditConfig(ability_sd=0.15, special_sd=0.15)
"""To choose well is to be careful with what is special, to judge is not to shrink it away."""


@dataclass(frozen=True)
class PolicyValue:
    """A share of successes, with its 90 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class OutcomeModel:
    """(N, M) chances of success, and how uncertain they are."""

    mean: Floats
    sd: Floats


def predict(log: LoggedChoices) -> OutcomeModel:
    """Every model's chance of success, each row by the other folds: no choice speaks for itself."""
    number, models = log.chances.shape
    mean, sd = np.empty((number, models)), np.empty((number, models))
    columns = int(log.category.max()) + 1
    # By turns and not by chance, so the same log has the same value.
    fold = np.arange(number) % _FOLDS
    for k in range(_FOLDS):
        rest = fold != k
        calls, right = np.zeros((models, columns)), np.zeros((models, columns))
        np.add.at(calls, (log.chosen[rest], log.category[rest]), 1)
        np.add.at(right, (log.chosen[rest], log.category[rest]), log.ok[rest])
        found = effects(calls, right, _WIDE)
        mean[~rest], sd[~rest] = found.mean[:, log.category[~rest]].T, found.sd[:, log.category[~rest]].T
    return OutcomeModel(mean, sd)


def ips(log: LoggedChoices, policy: Floats) -> PolicyValue:
    """Inverse propensity; `policy` (N, M) is each model's chance under it. No bias, most variance."""
    return _value(_weights(log, policy) * log.ok)


def snips(log: LoggedChoices, policy: Floats) -> PolicyValue:
    """Self-normalised: a little bias for much less variance."""
    weights = _weights(log, policy)
    if not weights.sum():
        return PolicyValue(0.5, 0.0, 1.0)
    mean = float((weights * log.ok).sum() / weights.sum())
    return _value(mean + weights / weights.mean() * (log.ok - mean))


def dm(log: LoggedChoices, policy: Floats, predicted: OutcomeModel | None = None) -> PolicyValue:
    """By the predictions alone. The interval knows nothing of their bias, so it is far too narrow."""
    predicted = predict(log) if predicted is None else predicted
    return _value((policy * predicted.mean).sum(1))


def dr(
    log: LoggedChoices, policy: Floats, predicted: OutcomeModel | None = None, shrink: float = SHRINK
) -> PolicyValue:
    """By the predictions, corrected by what was observed; `policy` may be a difference of two.

    Heavy weights are shrunk towards the predictions (Su et al., 2020), w -> w * shrink / (w^2 + shrink), and
    the interval allows for what the predictions may be wrong by there. With `shrink` infinite it is the plain
    estimate, right when either chances or predictions are.
    """
    predicted = predict(log) if predicted is None else predicted
    rows = np.arange(len(log.chosen))
    weights = np.divide(policy, log.chances, out=np.zeros_like(policy), where=log.chances > 0)
    # What has no chance in the log can only be predicted.
    kept = (1 / (1 + weights**2 / shrink)) * (log.chances > 0)
    guessed = (policy * predicted.mean).sum(1)
    taken = rows, log.chosen
    corrected = (weights * kept)[taken] * (log.ok - predicted.mean[taken])
    # Few of the heavy weights were drawn, so the sample says too little of its own variance: what the chances
    # and the predictions expect it to be is the other judge.
    expected = (policy * weights * kept**2 * predicted.mean * (1 - predicted.mean)).sum(1).mean()
    noise = max(float((corrected**2).mean()), float(expected)) / len(rows)
    # Within one category a prediction is wrong in the same direction everywhere.
    left = np.zeros((int(log.category.max()) + 1, policy.shape[1]))
    unsure = np.zeros_like(left)
    np.add.at(left, log.category, policy * (1 - kept) / len(rows))
    unsure[log.category] = predicted.sd
    bias = float(((left * unsure) ** 2).sum())
    # Both come from the same few outcomes, so their deviations add up and not their variances.
    variance = float(guessed.var()) / len(rows) + (noise**0.5 + bias**0.5) ** 2
    return _around(float((guessed + corrected).mean()), variance)


def may_promote(
    log: LoggedChoices, new: Floats, old: Floats, predicted: OutcomeModel | None = None
) -> tuple[bool, PolicyValue]:
    """Tell whether `new` is certainly not worse than `old` by WORSE, and return the value of new - old.

    Wrong about a harmful policy in at most 5 % of cases. A policy that was hardly tried has a wide interval
    and waits.
    """
    gain = dr(log, new - old, predicted)
    return gain.low > -WORSE, gain


def _weights(log: LoggedChoices, policy: Floats) -> Floats:
    rows = np.arange(len(log.chosen))
    return policy[rows, log.chosen] / log.chances[rows, log.chosen]


def _value(terms: Floats) -> PolicyValue:
    return _around(float(terms.mean()), float(terms.var()) / len(terms))


def _around(mean: float, variance: float) -> PolicyValue:
    spread = _NINETY * variance**0.5
    return PolicyValue(mean, mean - spread, mean + spread)
