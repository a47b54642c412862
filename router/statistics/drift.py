"""Following outcomes as they come: intervals that move with them, and an alarm when what is expected ends.

`Tracker` moves an interval's centre (a scalar Kalman gain) and width (adaptive conformal inference, Gibbs and
Candès 2021), so that coverage returns by itself. `Alarm` is Page's CUSUM of a log-likelihood ratio: it tells
that a model does otherwise than was expected of it, for whom following is not enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Final

import numpy as np

from router.data.arrays import Floats
from router.statistics.intervals import LEVEL, Interval, Intervals

_GAIN: Final = 0.01
"""The least gain of a centre, so that it can follow a drift."""
_WIDEN: Final = 0.05
"""Step by which a miss widens the log of the width; a hit narrows it by a ninth of that."""

_MAX_LOG_WIDTH: Final = 1.5
"""Bound on the log of the width, each way: otherwise a long failure would be remembered as long."""


@dataclass
class _IntervalShift:
    shift: float
    """Shift of the log."""
    doubt: float
    """A variance: how little is known of the shift."""
    widen: float = 0.0


State = Mapping[str, Mapping[str, Mapping[str, float]]]


class Tracker:
    """Moves as all outcomes do, as each model's do and as each category's do."""

    def __init__(self, intervals: Intervals) -> None:
        self.intervals = intervals
        self._floor = _GAIN * intervals.variance
        self._all = _IntervalShift(0.0, self._floor)
        self._models: dict[str, _IntervalShift] = {}
        self._categories: dict[str, _IntervalShift] = {}

    def predict(self, model: str, category: str, features: Floats) -> Interval:
        """(1, 1), for the (F,) features of one query."""
        return self.among([model], category, features)

    def among(self, models: Sequence[str], category: str, features: Floats) -> Interval:
        """(1, K), of K models for the (F,) features of one query."""
        rows, columns = self.intervals.places(models, [category])
        moved = [self._moved(model, category) for model in models]
        # The floor is there to learn by: it is no doubt of the interval's.
        doubt = np.array([sum(one.doubt for one in each if one.doubt > self._floor) for each in moved])
        shift = np.array([sum(one.shift for one in each) for each in moved])
        widen = np.array([sum(one.widen for one in each) for each in moved])
        return self.intervals.around(rows, columns, features[None], shift, doubt, widen)

    def update(self, model: str, category: str, features: Floats, value: float) -> bool:
        """Learns from one outcome; returns whether the interval had held it."""
        interval = self.predict(model, category, features)
        held = bool(interval.low[0, 0] <= value <= interval.high[0, 0])
        moved = self._moved(model, category)
        total = sum(one.doubt for one in moved) + self.intervals.variance
        # One outcome far out must not move the centre far.
        rest = float(np.clip(log(value / interval.expected[0, 0]), -3 * total**0.5, 3 * total**0.5))
        for one in moved:
            gain = one.doubt / total
            one.shift += gain * rest
            one.doubt = max(one.doubt * (1 - gain), self._floor)
            step = _WIDEN / len(moved) * ((not held) - (1 - LEVEL))
            one.widen = min(max(one.widen + step, -_MAX_LOG_WIDTH), _MAX_LOG_WIDTH)
        self._models.setdefault(model, moved[1])
        self._categories.setdefault(category, moved[2])
        return held

    def state(self) -> State:
        """Return the state as JSON, for `restore`."""
        return {
            "all": {"": asdict(self._all)},
            "models": {name: asdict(one) for name, one in self._models.items()},
            "categories": {name: asdict(one) for name, one in self._categories.items()},
        }

    @classmethod
    def restore(cls, intervals: Intervals, state: State) -> "Tracker":
        found = cls(intervals)
        found._all = _IntervalShift(**state["all"][""])
        found._models = {name: _IntervalShift(**one) for name, one in state["models"].items()}
        found._categories = {name: _IntervalShift(**one) for name, one in state["categories"].items()}
        return found

    def _moved(self, model: str, category: str) -> tuple[_IntervalShift, _IntervalShift, _IntervalShift]:
        rows, columns = self.intervals.places([model], [category])
        of_model = float(self.intervals.model_doubt[columns[0]])
        of_category = float(self.intervals.category_doubt[rows[0]])
        return (
            self._all,
            self._models.get(model) or _IntervalShift(0.0, max(of_model, self._floor)),
            self._categories.get(category) or _IntervalShift(0.0, max(of_category, self._floor)),
        )


class Alarm:
    """Detect a change in outcomes of 0 or 1 that each had a chance: a model's successes, or an interval's
    misses (chance 0.1).

    `odds` is the change worth an alarm, as a factor of the odds: below 1 for successes that grow rare, above
    1 for misses that grow frequent (0.4 and 2.5 did well). False alarms are exp(threshold) outcomes apart or
    more where the chances are right (Lorden 1971), and by simulation some 25 times that. At 8 a chance that
    is 0.02 off costs one in 10,000 outcomes; at 9.3 half of that and a fifth more delay.
    """

    def __init__(self, odds: float, threshold: float = 8.0) -> None:
        self.log_odds = log(odds)
        self.threshold = threshold
        self.weight = 0.0
        self.seen = 0
        self.since = 0
        """Outcomes seen when the change began, if there is one."""

    def see(self, outcome: bool, chance: float) -> bool:
        """Take an outcome and tell whether the alarm goes off; it then starts anew."""
        self.seen += 1
        chance = min(max(chance, 1e-3), 1 - 1e-3)
        self.weight += outcome * self.log_odds - log(1 - chance + chance * exp(self.log_odds))
        if self.weight <= 0:
            self.weight, self.since = 0.0, self.seen
        if self.weight < self.threshold:
            return False
        self.weight = 0.0
        return True
