"""Similarity of queries, and the outcomes of similar queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from router.data import features
from router.data.arrays import Floats, Ints
from router.data.features import Rows
from router.statistics.shrinkage import UNSEEN

SAME: Final = 0.9999
"""Product from which on two queries of a category are one that was asked twice."""
LOOKED_AT: Final = 2000
"""Queries that a decision looks at, however many were learned from: it must stay fast."""
_NEIGHBOURS: Final = 20
_SHARES: Final = (0.33, 0.67)
_WIDTHS: Final = (0.1, 0.3)
_PENALTIES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
_CHOSEN_ON: Final = 700
"""Queries that the kernel is chosen on: an eigendecomposition of more takes minutes."""


@dataclass(frozen=True)
class Kernel:
    """Similarity kernel over queries."""

    letters_share: float
    width: float
    penalty: float


def newest(category: Ints, most: int = LOOKED_AT) -> Ints:
    """Places of at most `most` queries, the last ones of each category, by its share of all."""
    if len(category) <= most:
        return np.arange(len(category))
    quota = np.maximum(np.bincount(category) * most // len(category), 1)
    from_end = np.zeros(len(category), dtype=np.int64)
    for name in range(len(quota)):
        at = np.flatnonzero(category == name)
        from_end[at] = np.arange(len(at))[::-1]
    return np.flatnonzero(from_end < quota[category])


def kernel(products: Rows, a_category: Ints, b_category: Ints, shape: Kernel) -> Rows:
    """(A, B) for the products of their rows."""
    alike = np.exp((products - 1) * np.float32(1 / shape.width))
    return np.asarray(alike * np.where(a_category[:, None] == b_category, np.float32(1), np.float32(0.5)))


def nearness(products: Rows) -> Floats:
    """(A,): the mean product with the five nearest among B."""
    few = min(5, products.shape[1])
    return np.asarray(np.partition(products, -few, 1)[:, -few:].mean(1), dtype=np.float64)


def repeats(products: Rows, a_category: Ints, b_category: Ints) -> Ints:
    """(A,): the place among B of the same query, UNSEEN where it was never asked."""
    alike = np.where(a_category[:, None] == b_category, products, np.float32(-1))
    place = alike.argmax(1)
    return np.where(alike[np.arange(len(place)), place] > SAME, place, UNSEEN)


def choose_kernel(table: Floats, category: Ints, rest: Floats, rng: np.random.Generator) -> Kernel:
    """By the exact leave-one-out error of the kernel regression of what models share."""
    at = np.sort(rng.permutation(len(rest))[:_CHOSEN_ON])
    target = rest[at].mean(1) - rest[at].mean()
    best, found = np.inf, Kernel(_SHARES[0], _WIDTHS[0], _PENALTIES[-1])
    for share in _SHARES:
        unit = features.unit(table[at], share)
        for width in _WIDTHS:
            inside = kernel(unit @ unit.T, category[at], category[at], Kernel(share, width, 0))
            values, vectors = np.linalg.eigh(inside.astype(np.float64))
            turned = vectors.T @ target
            for penalty in _PENALTIES:
                dual = vectors @ (turned / (values + penalty))
                error = float(((dual / (vectors**2 @ (1 / (values + penalty)))) ** 2).mean())
                if error < best:
                    best, found = error, Kernel(share, width, penalty)
    return found


def neighbours(products: Rows, category: Ints, learned: Ints, rest: Floats) -> Floats:
    """(N, M): the mean of what is above the rates at the nearest queries, of the same category first."""
    k = min(_NEIGHBOURS, products.shape[1])
    order = -products - np.float32(10) * (category[:, None] == learned)
    nearest = np.argpartition(order, k - 1, 1)[:, :k]
    near = np.take_along_axis(products, nearest, 1).astype(np.float64)
    # What came of the same query says more than a neighbour does, and is taken apart.
    weight = np.where(near > SAME, 0.0, np.exp((near - 1) / 0.05)) + 1e-9
    weight = weight / weight.sum(1, keepdims=True)
    values = rest[nearest]
    known = np.isfinite(values)
    held = np.einsum("nk,nkm->nm", weight, np.where(known, values, 0.0))
    mass = np.einsum("nk,nkm->nm", weight, known.astype(np.float64))
    # A model that was not asked there is given the others' outcome.
    typical = held.sum(1, keepdims=True) / np.maximum(mass.sum(1, keepdims=True), 1e-9)
    return np.asarray(held + (1 - mass) * typical, dtype=np.float64)
