"""The expected log of a value: an additive mean of model and category, and a ridge on the query's text."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints

# Chosen on random splits of dev data; a factor of 3 in any moved the error of the log by less than 0.005.
_RIDGE_QUERY: Final = 10.0
_RIDGE_MODEL: Final = 30.0
_SHRINK: Final = 5.0
"""Zero outcomes with which an effect starts."""
_ROUNDS: Final = 5


@dataclass(frozen=True)
class AdditiveModel:
    """C categories and M models; the last row and column are for those that are not known."""

    cells: Floats
    """(C + 1, M + 1)"""
    centre: Floats
    slopes: Floats
    """(F, M + 1)"""

    def predict(self, rows: Ints, columns: Ints, features: Floats) -> Floats:
        """(Q, K) for (Q,) places of categories, (K,) places of models and (Q, F) features."""
        told: Floats = self.cells[np.ix_(rows, columns)] + (features - self.centre) @ self.slopes[:, columns]
        return told


def fit(logs: Floats, category: Ints, categories: int, features: Floats) -> AdditiveModel:
    """From (Q, M) logs, NaN where not known, (Q,) places of categories and (Q, F) features."""
    known = ~np.isnan(logs)
    member = np.eye(categories)[category]
    mean = float(np.mean(logs[known]))
    of_model, of_category = np.zeros(logs.shape[1]), np.zeros(categories)
    # Each given the other, in turn: not every model was given every category.
    for _ in range(_ROUNDS):
        of_model = _zeroed(logs - mean - of_category[category][:, None], known).sum(0)
        of_model /= known.sum(0) + _SHRINK
        of_category = (member.T @ _zeroed(logs - mean - of_model, known)).sum(1)
        of_category /= (member.T @ known).sum(1) + _SHRINK
    cells = mean + np.append(of_category, 0.0)[:, None] + np.append(of_model, 0.0)
    rest = _zeroed(logs - cells[category, :-1], known)
    of_both = (member.T @ rest) / (member.T @ known + _SHRINK)
    cells[:-1, :-1] += of_both
    rest = _zeroed(rest - of_both[category], known)
    # First what the text says of all models, then, held shorter, what it says of each.
    inputs = features - features.mean(0)
    common = _ridge(inputs, (rest.sum(1) / np.maximum(known.sum(1), 1))[:, None], _RIDGE_QUERY)
    own = _ridge(inputs, _zeroed(rest - inputs @ common, known), _RIDGE_MODEL)
    return AdditiveModel(cells, features.mean(0), np.hstack([common + own, common]))


def _zeroed(values: Floats, known: NDArray[np.bool_]) -> Floats:
    zeroed: Floats = np.where(known, values, 0.0)
    return zeroed


def _ridge(inputs: Floats, targets: Floats, penalty: float) -> Floats:
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ targets), dtype=np.float64)
