"""A/B tests: who gets which arm, and what the figures allow to say, however often they are looked at.

The interval for the difference of two means is an asymptotic confidence sequence (Waudby-Smith, Arbour,
Sinha, Kennedy and Ramdas, 2024), which is the mixture SPRT of Johari and others (2017) turned inside out: it
holds at all looks together. An ordinary t-test that is looked at every minute calls equal prompts different
far too often (`python -m bench.trials` measures both).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from schema.chance import point

Metric = Literal["quality", "success", "cost"]
Verdict = Literal["running", "won", "lost", "undecided"]

LOWER_IS_BETTER: Final = frozenset({"cost"})
MIN_UNITS: Final = 20
"""Fewest units of each arm: below, a mean is too far from a normal one."""


def gets_candidate(trial: str, unit: str, share: float) -> bool:
    """By the hash and not by chance: a unit keeps its arm, and other trials deal anew."""
    return point(f"{trial}/{unit}") < share


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of a trial: its ended runs with a known metric."""

    units: int = 0
    mean: float = 0.0
    variance: float = 0.0
    """Variance of the sample, by n - 1."""
    unmeasured: int = 0
    """Units that have ended and tell nothing of the metric."""


@dataclass(frozen=True, slots=True)
class Rules:
    metric: Metric = "quality"
    alpha: float = 0.05
    min_units: int = 30
    max_units: int = 2_000


@dataclass(frozen=True, slots=True)
class TrialReading:
    """The verdict of one look at a trial."""

    verdict: Verdict
    control: Arm
    candidate: Arm
    difference: float
    """The candidate's mean less the control's."""
    low: float | None
    high: float | None
    """The true difference lies between them at all looks together, but for `alpha`. None: too few units."""
    p: float
    """P-value of this look; it may be compared with alpha at every look."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read(rules: Rules, control: Arm, candidate: Arm) -> TrialReading:
    """Return the verdict that the data allow now."""
    difference = candidate.mean - control.mean
    low = high = None
    p = 1.0
    if min(control.units, candidate.units) >= max(rules.min_units, MIN_UNITS):
        error = _standard_error(rules, control, candidate)
        # As many as two equal arms would have: a small arm is what decides how little is known.
        units = 4 * control.units * candidate.units / (control.units + candidate.units)
        width = error * _factor(units, rules)
        low, high = difference - width, difference + width
        p = _p(abs(difference) / error if error else (math.inf if difference else 0.0), units, rules)
    ended = control.units + candidate.units + control.unmeasured + candidate.unmeasured
    verdict: Verdict = "running"
    if low is not None and high is not None and (low > 0 or high < 0):
        better = high < 0 if rules.metric in LOWER_IS_BETTER else low > 0
        verdict = "won" if better else "lost"
    elif ended >= rules.max_units:
        verdict = "undecided"
    return TrialReading(verdict, control, candidate, difference, low, high, p)


def _standard_error(rules: Rules, *arms: Arm) -> float:
    """Return the standard error of the difference.

    No arm counts as steadier than both together: a small one has not yet met rare failures, which may cause
    most of the variance.
    """
    if rules.metric == "success":
        # With one success and one failure more: thirty successes in a row do not prove that none ever fails.
        rates = [(arm.mean * arm.units + 1) / (arm.units + 2) for arm in arms]
        variances = [rate * (1 - rate) for rate in rates]
    else:
        variances = [arm.variance for arm in arms]
    all_units = sum(arm.units for arm in arms)
    pooled = sum(one * arm.units for one, arm in zip(variances, arms, strict=True)) / all_units
    return math.sqrt(sum(max(one, pooled) / arm.units for one, arm in zip(variances, arms, strict=True)))


def _rho_squared(rules: Rules) -> float:
    """Return the squared rho at which the sequence is narrowest: a quarter of max_units, chosen in
    advance."""
    aimed = max(2 * rules.min_units, rules.max_units / 4)
    log = -2 * math.log(rules.alpha)
    return (log + math.log(log) + 1) / aimed


def _factor(units: float, rules: Rules) -> float:
    """Half the interval in standard errors."""
    grown = units * _rho_squared(rules) + 1
    return math.sqrt(2 * grown / (grown - 1) * math.log(math.sqrt(grown) / rules.alpha))


def _p(z: float, units: float, rules: Rules) -> float:
    """The smallest alpha at which the interval leaves out zero."""
    grown = units * _rho_squared(rules) + 1
    exponent = 0.5 * math.log(grown) - z * z * (grown - 1) / (2 * grown)
    return min(1.0, math.exp(max(exponent, -700.0)))
