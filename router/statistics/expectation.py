"""Average a position-sensitive network over orders of its input (S4-01..04).

A transformer reads exchangeable things (neighbours, candidates' histories, upstream messages) in some order,
and says something else in another one: it is Bayesian only on average over orders (a martingale in
expectation and not in every realisation). So its answer is that average, and how far the answers of single
orders lie apart is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import TYPE_CHECKING, Final

import numpy as np

from router.data.arrays import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS: Final = 32.0
"""Tokens of reasoning that one unit of sqrt(n) log(1/error) is worth."""
MIN_BUDGET: Final = 256
MAX_BUDGET: Final = 8192
TOLERATED: Final = 0.05
"""The share of steps that may fail when they are reasoned about as long as recommended."""


@lru_cache(maxsize=256)
def orderings(size: int, count: int, seed: int = 0) -> Ints:
    """(k, size) orders of so many elements: all of them where `count` reaches that, else that many drawn.

    The first is the elements' own order. Cached: a network asks for the same ones at every step."""
    if size < 0 or count < 1:
        raise ValueError(f"found {count} orders of {size} elements; expected at least one of none or more.")
    # 9! orders would fill the memory of a worker, and nobody averages over as many.
    if size < 9 and factorial(size) <= count:
        found = np.array(list(permutations(range(size))), dtype=np.int64).reshape(factorial(size), size)
    else:
        rng = np.random.default_rng((seed, size))
        drawn = {tuple(range(size)): None}
        while len(drawn) < count:
            drawn[tuple(rng.permutation(size).tolist())] = None
        found = np.array(list(drawn), dtype=np.int64)
    return found


@dataclass(frozen=True)
class BayesianExpectationLayer:
    """Averages what `encode` says of a set over orders of its elements."""

    encode: Callable[[Tensor], Tensor]
    """(B, n, D) elements in an order to (B, W)."""
    orders: int = 8
    """Number of orders: the spread of the average falls with their root, and is zero for all orders."""
    seed: int = 0

    def each(self, elements: Tensor) -> Tensor:
        """(B, k, W): of (B, n, D) elements, by order; one call of `encode` for all of them."""
        batch, size, width = elements.shape
        order = orderings(size, self.orders, self.seed)
        turned = elements[:, order.ravel()].reshape(batch * len(order), size, width)
        return self.encode(turned).reshape(batch, len(order), -1)

    def __call__(self, elements: Tensor) -> tuple[Tensor, Tensor]:
        """((B, W) expectation, (B,) order sensitivity) of (B, n, D) elements."""
        said = self.each(elements)
        return said.mean(1), order_sensitivity(said)


def order_sensitivity(said: Tensor, counted: Tensor | None = None) -> Tensor:
    """(B,): the standard deviation over orders of (B, k, W), the mean of its numbers, or of those `counted`.

    How much the martingale property is violated: 0 where no order matters. `counted` (B, W): 1 or 0."""
    spread = said.std(1, correction=0)
    return spread.mean(1) if counted is None else (spread * counted).sum(1) / counted.sum(1).clamp(min=1)


def reasoning_budget(tokens: Floats, error: Floats) -> Ints:
    """Tokens that are worth reasoning: about sqrt(n) log(1/error), between LEAST_BUDGET and MOST_BUDGET.

    `tokens`: how long the answer is expected to be; `error` (0, 1]: the share of the failures expected
    without reasoning that may remain. NaN in either gives LEAST_BUDGET."""
    n, left = np.asarray(tokens, dtype=np.float64), np.asarray(error, dtype=np.float64)
    units = np.sqrt(np.maximum(n, 0.0)) * -np.log(np.clip(left, 1e-6, 1.0))
    bounded = np.clip(np.nan_to_num(_TOKENS * units, nan=0.0), MIN_BUDGET, MAX_BUDGET)
    return np.asarray(np.rint(bounded), dtype=np.int64)


def tolerated(failure: Floats) -> Floats:
    """The share of expected failures (chances, 0 to 1) that leaves TOLERATED of all steps failing."""
    return np.asarray(TOLERATED / np.clip(failure, TOLERATED, 1.0), dtype=np.float64)
