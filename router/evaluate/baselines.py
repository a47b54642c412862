"""Baselines that a router must beat, each judged on queries that nothing was learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.data import metrics
from router.data.arrays import Floats, Ints
from router.statistics import choose, shrinkage


@dataclass(frozen=True)
class Pool:
    """Queries learned from and judged on, M models of one pool; US dollars per call, 0 without prices."""

    category: Ints
    ok: Floats
    judged_category: Ints
    """UNSEEN where nothing was learned of it."""
    judged_ok: Floats
    judged_usd: Floats
    expected_usd: Floats
    """(judged, M): what calls are expected to cost."""


def judge(pool: Pool, priced: bool) -> dict[str, float | None]:
    """Quality (share of right answers), US dollars per 1,000 queries and AIQ of each baseline."""
    single = choose.best_single(pool.ok)
    per_category = shrinkage.hierarchical(pool.category, pool.ok, pool.judged_category, weight=0.5)
    shrunk = shrinkage.hierarchical(pool.category, pool.ok, pool.judged_category, weight=10.0)
    ok, usd = pool.judged_ok, pool.judged_usd
    known = np.nan_to_num(ok)
    queries = len(ok)
    # Among those that are right, the cheapest; one that is not known is taken for wrong.
    best = (known - 1e-6 * usd / max(float(usd.max()), 1e-12)).argmax(1)
    found: dict[str, float | None] = {}
    choices = {
        "best_single": np.full(queries, single),
        "best_per_category": per_category.argmax(1),
        "shrinkage": shrunk.argmax(1),
        "oracle": best,
    }
    for name, choice in choices.items():
        found[f"{name}_quality"] = _mean(choose.picked(ok, choice))
        found[f"{name}_usd_per_1k"] = 1000 * float(choose.picked(usd, choice).mean()) if priced else None
    found["random_quality"] = _mean(ok)
    found["random_usd_per_1k"] = 1000 * float(usd.mean()) if priced else None
    found["shrinkage_brier"] = metrics.brier(shrunk, ok)
    found["shrinkage_ece"] = metrics.ece(shrunk, ok)
    qualities = choose.qualities(ok)
    if not priced or np.isnan(qualities).any():
        return found
    dearest = float(usd.mean(0).max())
    found["hull_of_singles_aiq"] = metrics.aiq(usd.mean(0), qualities, dearest)
    for name, predicted in (("best_per_category", per_category), ("shrinkage", shrunk), ("oracle", known)):
        costs = usd if name == "oracle" else pool.expected_usd
        found[f"{name}_aiq"] = metrics.aiq(*choose.curve(predicted, costs, usd, ok, single), dearest)
    return found


def _mean(values: Floats) -> float | None:
    """Return the mean of the known values; None if there is none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
