"""Chances and their logits."""

import numpy as np

from router.outcomes import Floats


def sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), dtype=np.float64)


def logit(p: Floats) -> Floats:
    """Of chances above 0 and below 1."""
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)
