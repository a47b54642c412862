"""One probability from three views: rules' vote, memory of outcomes (`success.py`), the network (S2-15).

The network has a say only where it is shown to help: on outcomes that neither had seen, by more than noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from router.data import metrics
from router.data.arrays import Floats
from router.data.odds import logistic, logit, sigmoid

RULES, MEMORY, NEURAL = 0, 1, 2
"""Places of the parts."""
PARTS: Final = 3
_ROUNDS: Final = 2000
_EDGE: Final = 1e-3


@dataclass(frozen=True)
class Ensemble:
    weights: Floats
    """(1 + PARTS,): intercept, then of rules' vote and of the logits of memory and network, none below 0."""
    serves: bool
    """Whether the network has a say."""
    gain: float
    low: float
    high: float
    """Reduction of the others' Brier score by the network on held-out outcomes; a 95 % interval."""
    reason: str
    """Why it has a say, or none."""

    def predict(self, memory: Floats, neural: Floats | None = None, votes: Floats | None = None) -> Floats:
        """(N, K) chances, from chances of the same shape; `votes`: 1 where rules would choose, else 0.

        A part that is None says what memory says, or, of votes, nothing."""
        parts = _parts(memory, memory if neural is None else neural, votes)
        return np.asarray(sigmoid(self.weights[0] + parts @ self.weights[1:]), dtype=np.float64)


def fit(memory: Floats, neural: Floats, ok: Floats, votes: Floats | None = None, seed: int = 0) -> Ensemble:
    """From (Q, M) chances that had not seen the outcomes `ok` (Q, M), NaN where not known.

    Without votes, and where the network does not help, it is memory as it stands."""
    parts = _parts(memory, neural, votes)
    without = (MEMORY,) if votes is None else (RULES, MEMORY)
    gain, low, high = gained(parts, ok, without, (*without, NEURAL), seed)
    if low > 0:
        reason = f"lowers the Brier score by {gain:.4f} ({low:.4f} to {high:.4f}) on outcomes held out"
        return Ensemble(stacked(parts, ok, (*without, NEURAL)), True, gain, low, high, reason)
    reason = (
        f"has no say: its gain in Brier score on outcomes held out, {gain:.4f} ({low:.4f} to {high:.4f}), is "
        "not more than noise"
    )
    plain = _ALONE
    if votes is not None and gained(parts, ok, (MEMORY,), without, seed)[1] > 0:
        plain = stacked(parts, ok, without)
    return Ensemble(plain, False, gain, low, high, reason)


def gained(
    parts: Floats, ok: Floats, without: tuple[int, ...], with_more: tuple[int, ...], seed: int = 0
) -> tuple[float, float, float]:
    """(gain, low, high): what more parts take off the Brier score, in a 95 % paired bootstrap over steps.

    Each half of the steps is judged by weights of the other. Outcomes of a step go together: models fail at
    the same ones."""
    half = np.random.default_rng(seed).permutation(len(ok)) % 2 == 0
    known = np.isfinite(ok)
    off = np.zeros((2, *ok.shape))
    for learned in (half, ~half):
        for i, used in enumerate((without, with_more)):
            # Memory alone is judged as it would serve: as it stands.
            weights = _ALONE if used == (MEMORY,) else stacked(parts[learned], ok[learned], used)
            p = sigmoid(weights[0] + parts[~learned] @ weights[1:])
            off[i, ~learned] = np.where(known[~learned], (p - np.nan_to_num(ok[~learned])) ** 2, 0.0)
    less, count = (off[0] - off[1]).sum(1), known.sum(1)
    if not count.any():
        return 0.0, 0.0, 0.0
    low, high = metrics.interval(
        lambda drawn: float(less[drawn].sum() / max(count[drawn].sum(), 1)), len(ok), _ROUNDS, seed
    )
    return float(less.sum() / count.sum()), low, high


def stacked(parts: Floats, ok: Floats, used: tuple[int, ...]) -> Floats:
    """(1 + PARTS,): the logistic regression over `used` parts whose weights are not below 0.

    The best of such is the best without that bound over some of the parts: few enough to try them all."""
    known = np.isfinite(ok)
    x, y = parts[known], ok[known]
    best, found = np.inf, np.zeros(1 + PARTS)
    for count in range(len(used) + 1):
        for some in combinations(used, count):
            weights = np.zeros(1 + PARTS)
            weights[[0, *(1 + part for part in some)]] = logistic(x[:, some], y)
            p = np.clip(sigmoid(weights[0] + x @ weights[1:]), 1e-6, 1 - 1e-6)
            loss = -float((y * np.log(p) + (1 - y) * np.log(1 - p)).mean()) if len(y) else 0.0
            if (weights[1:] >= 0).all() and loss < best:
                best, found = loss, weights
    return found


_ALONE: Final = np.array([0.0, 0.0, 1.0, 0.0])


def _parts(memory: Floats, neural: Floats, votes: Floats | None) -> Floats:
    said = np.zeros_like(memory) if votes is None else np.asarray(votes, dtype=np.float64)
    return np.stack([said, _logit(memory), _logit(neural)], 2)


def _logit(p: Floats) -> Floats:
    return logit(np.clip(p, _EDGE, 1 - _EDGE))
