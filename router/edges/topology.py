"""Decide from runs with and without an edge whether it helps. Pure.

An edge that does not help is pruned: few runs have it, enough to notice when it begins to help.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from db.router.edges import EdgeTrial, State
from router.statistics.offpolicy import PolicyValue
from schema.chance import point

KEPT_CHANCE: Final = 0.95
DOUBTED_CHANCE: Final = 0.5
"""Chance of an edge forecast not to help: equal shares of runs with and without it decide soonest."""
PRUNED_CHANCE: Final = 0.05
MARGIN: Final = 0.02
"""Quality that an edge must surely not bring before it is pruned: less is not worth what reading costs."""
MIN_RUNS: Final = 20
"""Runs with it, and as many without, before anything is said."""
_NINETY: Final = 1.645


@dataclass(frozen=True)
class Effect:
    """Quality with an edge less quality without, with its 90 % interval."""

    value: PolicyValue
    told: int
    """Runs that had it, in part at least."""
    spared: int

    @property
    def runs(self) -> int:
        return self.told + self.spared

    @property
    def is_known(self) -> bool:
        return min(self.told, self.spared) >= MIN_RUNS


def chance(state: State, foreseen: float | None = None) -> float:
    """That a run has the edge. `foreseen`: what the network says that it brings at most; None: nothing."""
    if state == "kept" and foreseen is not None and foreseen < MARGIN:
        return DOUBTED_CHANCE
    return {"kept": KEPT_CHANCE, "pruned": PRUNED_CHANCE, "pinned": 1.0}[state]


def drawn(key: str, chance: float) -> bool:
    """By the hash of the key and not by chance, so that a retry draws the same."""
    return point(key) < chance


def effect(trials: Sequence[EdgeTrial]) -> Effect:
    """By inverse chances, each side's normalised by their sum.

    Means of both sides alone would take good times for a good edge: chances change when an edge is pruned.
    Trials of one run are one observation.
    """
    told = len({one.run for one in trials if one.delivered})
    spared = len({one.run for one in trials if not one.delivered})
    if not told or not spared:
        return Effect(PolicyValue(0.0, -1.0, 1.0), told, spared)
    delivered = np.array([one.delivered for one in trials])
    chances = np.array([one.chance for one in trials])
    quality = np.array([one.quality for one in trials], dtype=np.float64)
    names = {run: at for at, run in enumerate(dict.fromkeys(one.run for one in trials))}
    run = np.array([names[one.run] for one in trials])
    difference, influence, spread = 0.0, np.zeros(len(trials)), 0.0
    for sign, side, weight in ((1, delivered, 1 / chances), (-1, ~delivered, 1 / (1 - chances))):
        share = np.where(side, weight, 0.0) / weight[side].sum()
        mean = float(share @ quality)
        difference += sign * mean
        influence += sign * share * (quality - mean)
        spread += float((share**2).sum())
    by_run = np.bincount(run, influence)
    # Neither side counts as steadier than all: a small one has not yet met what is rare.
    error = max(float((by_run**2).sum()), spread * float(quality.var())) ** 0.5
    around = _NINETY * error
    return Effect(PolicyValue(difference, difference - around, difference + around), told, spared)


def decide(state: State, found: Effect) -> State:
    """Return the next state of an edge. Uncertain edges are kept, and pinned edges stay."""
    if state == "pinned" or not found.is_known:
        return state
    if state == "kept":
        return "pruned" if found.value.high < MARGIN else "kept"
    # More is wanted to prune than to bring back: to keep one in vain costs less than to miss one.
    return "kept" if found.value.mean > MARGIN else "pruned"
