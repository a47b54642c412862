"""Chances, their logits, and what is linear in those."""

import numpy as np

from router.data.arrays import Floats


def sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), dtype=np.float64)


def logit(p: Floats) -> Floats:
    """Return the log odds of chances strictly between 0 and 1."""
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def logistic(x: Floats, y: Floats, ridge: float = 1.0) -> Floats:
    """(1 + F,): intercept and weights, by Newton's method; `y` (n,) may be fractions, x is (n, F)."""
    x = np.column_stack([np.ones(len(x)), x])
    penalty = np.diag([1e-6, *[ridge] * (x.shape[1] - 1)])
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = sigmoid(x @ weights)
        slope = x.T @ (y - p) - penalty @ weights
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + penalty, slope)
        # From afar a whole step can overshoot where all is nearly certain.
        weights = weights + step * min(1.0, 2.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights
