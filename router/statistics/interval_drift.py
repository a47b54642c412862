"""Track how far intervals have moved since they were learned, outcome by outcome, by model and step type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from db.router.outcomes import OutcomeRow
from router.data.arrays import Floats
from router.data.dataset import category_of, text_of
from router.statistics import intervals, success
from router.statistics.drift import State, Tracker
from router.statistics.intervals import Intervals
from router.statistics.model import FOLLOWED, FittedModel

WINDOW: Final = 500
"""Outcomes that the coverage of late is counted over."""


@dataclass(frozen=True)
class OutcomeErrors:
    """Interval errors of one outcome, for each value in FOLLOWED that the model has an interval for."""

    moved: dict[str, State]
    held: dict[str, list[int]]
    """Whether each of the last WINDOW outcomes lay within its interval, 1 or 0, the newest last."""

    def as_json(self) -> dict[str, Any]:
        return {"moved": self.moved, "held": self.held}


def follow(
    learned: FittedModel, before: Mapping[str, Any], rows: Sequence[OutcomeRow], table: Floats
) -> OutcomeErrors:
    """Learns from outcomes in their order, going on from `before` (of `as_json`, or empty).

    `table`: (N, D) of `features.rows` of the rows' texts. An interval is asked before it learns."""
    told = intervals.text_features([text_of(row) for row in rows], table[:, : success.MEANING])
    moved: dict[str, State] = {}
    held: dict[str, list[int]] = {}
    for name in FOLLOWED:
        interval: Intervals | None = getattr(learned, name)
        if interval is None:
            continue
        state = before.get("moved", {}).get(name)
        tracker = Tracker.restore(interval, state) if state else Tracker(interval)
        seen = list(before.get("held", {}).get(name, []))
        for row, features in zip(rows, told, strict=True):
            value: float | None = getattr(row, name)
            if value:
                seen.append(int(tracker.update(row.model, category_of(row), features, float(value))))
        moved[name], held[name] = tracker.state(), seen[-WINDOW:]
    return OutcomeErrors(moved, held)
