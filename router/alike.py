"""How alike queries are, and what happened at those that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from router import features
from router.outcomes import Floats, Ints

_NEIGHBOURS: Final = 20
_SHARES: Final = (0.33, 0.67)
_WIDTHS: Final = (0.1, 0.3)
_PENALTIES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
_CHOSEN_ON: Final = 700
"""Queries that the kernel is chosen on: an eigendecomposition of more takes minutes."""


@dataclass(frozen=True)
class Kernel:
    """How alike two queries are."""

    letters_share: float
    width: float
    penalty: float


def kernel(a: Floats, a_category: Ints, b: Floats, b_category: Ints, shape: Kernel) -> Floats:
    alike = np.exp((a @ b.T - 1) / shape.width)
    return np.asarray(alike * np.where(a_category[:, None] == b_category, 1.0, 0.5), dtype=np.float64)


def choose_kernel(
    table: Floats, told: Floats, category: Ints, rest: Floats, rng: np.random.Generator
) -> Kernel:
    """By the exact leave-one-out error of the kernel regression of what models share."""
    at = np.sort(rng.permutation(len(rest))[:_CHOSEN_ON])
    target = rest[at].mean(1) - rest[at].mean()
    best, found = np.inf, Kernel(_SHARES[0], _WIDTHS[0], _PENALTIES[-1])
    for share in _SHARES:
        unit = features.unit(table[at], told, share)
        for width in _WIDTHS:
            values, vectors = np.linalg.eigh(
                kernel(unit, category[at], unit, category[at], Kernel(share, width, 0))
            )
            turned = vectors.T @ target
            for penalty in _PENALTIES:
                dual = vectors @ (turned / (values + penalty))
                error = float(((dual / (vectors**2 @ (1 / (values + penalty)))) ** 2).mean())
                if error < best:
                    best, found = error, Kernel(share, width, penalty)
    return found


def neighbours(products: Floats, category: Ints, learned: Ints, rest: Floats) -> Floats:
    """(N, M): the mean of what is above the rates at the nearest queries, of the same category first."""
    k = min(_NEIGHBOURS, products.shape[1])
    order = -products - 10.0 * (category[:, None] == learned)
    nearest = np.argpartition(order, k - 1, 1)[:, :k]
    weight = np.exp((np.take_along_axis(products, nearest, 1) - 1) / 0.05) + 1e-9
    weight = weight / weight.sum(1, keepdims=True)
    values = rest[nearest]
    known = np.isfinite(values)
    held = (weight[:, :, None] * np.where(known, values, 0.0)).sum(1)
    mass = (weight[:, :, None] * known).sum(1)
    # A model that was not asked there is taken for what the others came to.
    typical = held.sum(1, keepdims=True) / np.maximum(mass.sum(1, keepdims=True), 1e-9)
    return np.asarray(held + (1 - mass) * typical, dtype=np.float64)
