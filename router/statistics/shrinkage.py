"""Rates of success by category, each pulled towards what is known above it: the baseline, and where we start.

`hierarchical` is the baseline of HierShrink (vllm-project/semantic-router#3459): global, category, clusters.
`learn` goes one further: what categories have in common is learned from all models (empirical Bayes)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from router.data.arrays import Floats, Ints

_WIDER: Final = (1.0, 1.5, 2.5, 4.0, 8.0)
UNSEEN = -1
"""The place of a category that nothing is known of."""


@dataclass(frozen=True)
class Rates:
    """K categories, M models."""

    by_category: Floats
    """(K, M)"""
    overall: Floats
    """(M,): for a category never seen."""
    mean: Floats
    """(K,): of the models."""
    spread: Floats
    """(K, K): how models differ from the mean, together; after `widened` how one more may."""
    noise: float
    """The share of p(1 - p) that is left of an outcome's variance once its query's difficulty is known."""
    difficulty: Floats
    """(Q,): how far the models' mean at each query learned from is above its category's."""

    def at(self, category: Ints) -> Floats:
        """(Q, M), `overall` where a category was never seen."""
        return np.vstack([self.by_category, self.overall])[category]


def levels(values: Ints, ok: Floats, prior: Floats, weight: float, count: int) -> Floats:
    """(count, M): each group's rates, with `weight` outcomes' worth of its prior (count, M)."""
    known = np.isfinite(ok)
    held = np.zeros((count, ok.shape[1]))
    n = np.zeros_like(held)
    np.add.at(held, values, np.where(known, ok, 0.0))
    np.add.at(n, values, known.astype(np.float64))
    return (held + weight * prior) / (n + weight)


def overall(ok: Floats) -> Floats:
    """(M,): each model's rate, a model without outcomes like the others."""
    held, n = np.nansum(ok, 0), np.isfinite(ok).sum(0)
    middle = held.sum() / max(n.sum(), 1)
    return np.asarray((held + 2 * middle) / (n + 2), dtype=np.float64)


def crossfit(category: Ints, ok: Floats, folds: Iterable[Ints], weight: float = 10.0) -> Floats:
    """(Q, M): rates of each query's category as learned without its fold."""
    found = np.zeros(ok.shape)
    for fold in folds:
        rest = np.delete(category, fold), np.delete(ok, fold, 0)
        found[fold] = hierarchical(*rest, category[fold], weight=weight)
    return found


def hierarchical(
    category: Ints,
    ok: Floats,
    at: Ints,
    alike: tuple[Floats, Floats] | None = None,
    weight: float = 24.0,
    clusters: tuple[int, ...] = (20, 100),
) -> Floats:
    """(len(at), M): rates of the categories `at`, or of clusters within them where `alike` has rows of
    (learned from, asked)."""
    top = overall(ok)
    count = int(max(category.max(initial=0), at.max(initial=0))) + 1
    rates = levels(category, ok, np.tile(top, (count, 1)), weight, count)
    learned, asked = rates[category], np.vstack([rates, top])[at]
    if alike is None:
        return np.asarray(asked, dtype=np.float64)
    from sklearn.cluster import MiniBatchKMeans

    for k in clusters:
        means = MiniBatchKMeans(min(k, len(ok)), n_init=1, random_state=0).fit(alike[0])
        here, there = means.labels_.astype(np.int64), means.predict(alike[1])
        size = int(means.n_clusters)
        # The level above is the queries' own: a cluster can hold more than one category.
        above = np.nan_to_num(np.where(np.isfinite(ok), ok - learned, np.nan))
        shift = levels(here, above, np.zeros((size, ok.shape[1])), weight, size)
        learned, asked = learned + shift[here], asked + shift[there]
    return np.clip(asked, 0.005, 0.995)


def learn(category: Ints, ok: Floats, count: int) -> Rates:
    """Rates of `count` categories from outcomes (Q, M) with gaps (NaN)."""
    known = np.isfinite(ok)
    n = _by(category, known.astype(np.float64), count)
    top = overall(ok)
    typical = _typical(ok, top)
    mean = _category_means(category, typical, count)
    # An outcome at a hard query says more for a model than one at an easy query: difficulty is taken out.
    difficulty = (
        typical
        - np.bincount(category, typical, count)[category]
        / np.maximum(np.bincount(category, minlength=count), 1)[category]
    )
    adjusted = ok - difficulty[:, None]
    raw = _by(category, np.where(known, adjusted, 0.0), count) / np.maximum(n, 1)
    # Of one outcome alone nobody can say how far it is from its rate.
    several = known & (n > 1)[category]
    rest = (adjusted - raw[category])[several]
    inside = (raw * (1 - raw))[category][several]
    noise = float(np.clip((rest**2).mean() / max(inside.mean(), 1e-6), 0.2, 1)) if len(rest) else 1.0
    deviation = np.where(n > 0, raw - mean[:, None], 0.0)
    full = (n > 0).all(0)
    variance = noise * _binomial(raw, n, mean) / np.maximum(n, 1)
    spread = _spread(deviation[:, full], variance[:, full])
    posterior = np.column_stack(
        [_posterior(deviation[:, m], n[:, m], variance[:, m], spread) for m in range(ok.shape[1])]
    )
    rates = np.clip(mean[:, None] + posterior, 0.005, 0.995)
    unseen = np.clip(rates.mean(0), 0.005, 0.995)
    return Rates(rates, unseen, mean, spread, noise, difficulty)


def one_more(rates: Rates, category: Ints, ok: Floats) -> tuple[Floats, float]:
    """((K,) rates by category, overall) of one more model by outcomes (Q,), NaN where it was not asked."""
    known = np.flatnonzero(np.isfinite(ok))
    count = len(rates.mean)
    n = np.bincount(category[known], minlength=count).astype(np.float64)
    held = np.bincount(category[known], (ok - rates.difficulty)[known], count)
    raw = held / np.maximum(n, 1)
    variance = rates.noise * _binomial(raw[:, None], n[:, None], rates.mean)[:, 0] / np.maximum(n, 1)
    found = np.clip(rates.mean + _posterior(raw - rates.mean, n, variance, rates.spread), 0.005, 0.995)
    return found, float(found.mean())


def widened(
    rates: Rates, category: Ints, ok: Floats, seed: int = 0, few: int = 20, models: int = 20
) -> Rates:
    """With a spread that fits one more model: known ones are taken for it, each known by `few` outcomes.

    A newcomer can be unlike all that are known, so it is mostly wider than theirs."""
    rng = np.random.default_rng(seed)
    errors = np.zeros(len(_WIDER))
    for model in rng.permutation(ok.shape[1])[:models] if ok.shape[1] > 2 else ():
        asked = np.flatnonzero(np.isfinite(ok[:, model]))
        if len(asked) < 2 * few:
            continue
        others = learn(category, np.delete(ok, model, 1), len(rates.mean))
        for _ in range(3):
            at = rng.permutation(asked)
            known = np.full(len(ok), np.nan)
            known[at[:few]] = ok[at[:few], model]
            for i, factor in enumerate(_WIDER):
                told, _ = one_more(replace(others, spread=factor * others.spread), category, known)
                errors[i] += float(((told[category[at[few:]]] - ok[at[few:], model]) ** 2).mean())
    return replace(rates, spread=_WIDER[int(errors.argmin())] * rates.spread)


def _by(category: Ints, values: Floats, count: int) -> Floats:
    held = np.zeros((count, values.shape[1]))
    np.add.at(held, category, values)
    return held


def _typical(ok: Floats, top: Floats) -> Floats:
    """(Q,): the mean of the models at each query, as if all of them had been asked."""
    known = np.isfinite(ok)
    rest = np.where(known, ok - top, 0.0).sum(1)
    return np.asarray(top.mean() + rest / (known.sum(1) + 1.0), dtype=np.float64)


def _category_means(category: Ints, typical: Floats, count: int) -> Floats:
    n = np.bincount(category, minlength=count).astype(np.float64)
    raw = np.bincount(category, typical, count) / np.maximum(n, 1)
    seen = n > 0
    middle = float(raw[seen].mean())
    # A category of one query says nothing of how queries differ within one.
    inside = max(float(((typical - raw[category]) ** 2).mean()), 1e-6)
    between = max(float(raw[seen].var()) - float((inside / n[seen]).mean()), 1e-4)
    weight = n / (n + inside / between)
    return np.asarray(middle + weight * (raw - middle), dtype=np.float64)


def _binomial(raw: Floats, n: Floats, mean: Floats) -> Floats:
    """p(1 - p) of rates that are not taken for 0 or 1 after a few outcomes."""
    p = np.clip((raw * n + 4 * mean[:, None]) / (n + 4), 0.03, 0.97)
    return np.asarray(p * (1 - p), dtype=np.float64)


def _spread(deviation: Floats, variance: Floats) -> Floats:
    """(K, K): how models differ; with few of them mostly 'all categories alike', which two numbers say."""
    count, models = deviation.shape
    if models < 2:
        return np.full((count, count), 0.02) + np.eye(count) * 0.01
    raw = deviation @ deviation.T / models - np.diag(variance.mean(1))
    own = max(float(np.trace(raw)) / count, 1e-4)
    shared = (float(raw.sum()) - float(np.trace(raw))) / (count * (count - 1)) if count > 1 else own
    shared = float(np.clip(shared, 0.0, 0.98 * own))
    plain = np.full((count, count), shared) + np.eye(count) * (own - shared)
    trust = models / (models + count)
    values, vectors = np.linalg.eigh(trust * raw + (1 - trust) * plain)
    return np.asarray((vectors * np.maximum(values, 1e-5)) @ vectors.T, dtype=np.float64)


def _posterior(deviation: Floats, n: Floats, variance: Floats, spread: Floats) -> Floats:
    seen = np.flatnonzero(n > 0)
    if not len(seen):
        return np.zeros(len(n))
    inside = spread[np.ix_(seen, seen)] + np.diag(variance[seen])
    return np.asarray(spread[:, seen] @ np.linalg.solve(inside, deviation[seen]), dtype=np.float64)
