"""Metrics of routers. Quality is the share of right answers, cost is in US dollars per query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from router.data.arrays import Floats, Ints

BINS: Final = 15


def brier(predicted: Floats, ok: Floats) -> float:
    """Mean squared error of probabilities; NaN without any that are known."""
    squares = (predicted - ok) ** 2
    known = np.isfinite(squares)
    return float(squares[known].mean()) if known.any() else float("nan")


def ece(predicted: Floats, ok: Floats, bins: int = BINS) -> float:
    """Expected calibration error over equally wide bins (Naeini et al. 2015)."""
    known = ~np.isnan(ok)
    p, y = predicted[known], ok[known]
    if not len(p):
        return float("nan")
    bin = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.bincount(bin, weights=p - y, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def auroc(score: Floats, positive: ArrayLike) -> float:
    """The chance that a positive has the higher score, ties by half; NaN where one side is empty."""
    is_positive = np.asarray(positive, dtype=bool)
    n, m = int(is_positive.sum()), int((~is_positive).sum())
    if not n or not m:
        return float("nan")
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]
    return float((rank[is_positive].sum() - n * (n + 1) / 2) / (n * m))


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """The non-decreasing upper hull of (cost, quality) points, from the cheapest on: mixing two of them
    by chance reaches what lies between."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(
        zip(cost.tolist(), quality.tolist(), strict=True), key=lambda point: (point[0], -point[1])
    ):
        if kept and y <= kept[-1][1]:
            continue
        while len(kept) > 1:
            (x0, y0), (x1, y1) = kept[-2:]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            kept.pop()
        if not kept or x > kept[-1][0]:
            kept.append((x, y))
    found = np.array(kept)
    return found[:, 0], found[:, 1]


def aiq(cost: Floats, quality: Floats, dearest: float) -> float:
    """The area under the hull up to the dearest single's cost, over that cost (RouterBench,
    evaluation/AIQ.py: what is cheaper than the cheapest point counts for nothing)."""
    x, y = hull(cost, quality)
    inside = x < dearest
    end = float(np.interp(dearest, x, y))
    x, y = np.append(x[inside], dearest), np.append(y[inside], end)
    return float(np.trapezoid(y, x) / dearest)


def apgr(gain: Floats, weak: Floats, strong: Floats) -> float | None:
    """Average performance gap recovered (RouteLLM, evals/evaluate.py), over all shares of strong calls.

    `gain` (Q,): predicted gain of the strong model; `weak`, `strong` (Q,): their outcomes.
    None without a gap."""
    gap = float((strong - weak).mean())
    if gap <= 0:
        return None
    order = np.argsort(-gain, kind="stable")
    quality = weak.mean() + np.append(0.0, np.cumsum((strong - weak)[order])) / len(gain)
    area = float(np.trapezoid(quality, np.linspace(0, 1, len(quality))))
    return (area - float(weak.mean())) / gap


def cost_saved(cost: Floats, quality: Floats, single_cost: float, least: float) -> float:
    """The share of the best single's cost saved by the cheapest point of at least `least` quality."""
    good = cost[quality >= least]
    return max(0.0, 1 - float(good.min()) / single_cost) if len(good) else 0.0


def interval(
    measure: Callable[[Ints], float], queries: int, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a measure of drawn places of queries."""
    rng = np.random.default_rng(seed)
    found = [measure(rng.integers(0, queries, queries)) for _ in range(rounds)]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)
