"""Choices as they were logged, each with the chance it had."""

from dataclasses import dataclass

import numpy as np

from router.data.arrays import Floats, Ints


@dataclass(frozen=True)
class LoggedChoices:
    """N choices among M models."""

    chosen: Ints
    """(N,) places of the models."""
    chances: Floats
    """(N, M) every model's chance when it was chosen; rows sum to 1."""
    ok: Floats
    """(N,) 1 where the chosen one succeeded."""
    category: Ints
    """(N,) from 0."""

    def __post_init__(self) -> None:
        taken = self.chances[np.arange(len(self.chosen)), self.chosen]
        if not len(taken) or taken.min() <= 0 or not np.allclose(self.chances.sum(1), 1):
            raise ValueError("found choices without a chance; expected rows of chances > 0 that sum to 1.")
