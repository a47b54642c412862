"""P(success | query, model): shrunk rates by category, corrected by what happened at queries like it.

Models inform each other: how hard a query is, is learned from all of them (a kernel regression over texts),
so a new model needs few outcomes. A small logistic regression over cross-fitted predictions says how much
each of these is worth, once for categories that are known and once for those that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from router.data import features
from router.data.arrays import Floats, Ints
from router.data.encoder import WIDTH
from router.data.features import Rows
from router.data.metrics import brier
from router.data.odds import logistic, logit, sigmoid
from router.statistics import shrinkage, similarity

FOLDS: Final = 5
MEANING: Final = WIDTH
"""Numbers of a row that hold a text's meaning; the others hold its spelling."""
_RANK: Final = 8
"""Directions in which models differ at queries; 4 to 12 did equally well."""


@dataclass(frozen=True)
class Stack:
    """A logistic regression over the parts: weights (1 + parts), its first the intercept."""

    weights: Floats


@dataclass(frozen=True)
class RepeatVariance:
    """Variances of what came of a query above what was expected: what a query asked twice is known by."""

    shared: float
    """Variance shared by all models: how hard the query is."""
    own: float
    """Variance of each model's own."""
    chance: float
    """Variance of one outcome by chance."""


@dataclass(frozen=True)
class Success:
    """Fitted success probabilities of M models."""

    categories: tuple[str, ...]
    rates: shrinkage.Rates
    plain: Floats
    """(K + 1, M): rates by category as the baseline has them, its last row for categories never seen."""
    kernel: similarity.Kernel
    kept: Ints
    """(N,): places of the queries that a decision looks at, among all that rates were learned from."""
    rows: Rows
    """(N, D): of `features.unit`."""
    category: Ints
    rest: Floats
    """(N, M): outcome minus rate; NaN where not known."""
    times: Floats
    """(N, M): of how many outcomes."""
    means: Floats
    """(1 + M,): of the kernel regression's targets: shared by all models, then each model's."""
    duals: Floats
    """(N, 1 + M)"""
    known: Stack
    unknown: Stack
    again: RepeatVariance

    @cached_property
    def counts(self) -> Floats:
        """(K + 1, M + 1): outcomes that are looked at, by category and model; 0 for who is not known."""
        known = np.isfinite(self.rest)
        found = np.zeros((len(self.categories) + 1, known.shape[1] + 1))
        for k in range(len(self.categories)):
            found[k, :-1] = known[self.category == k].sum(0)
        return found

    def predict(self, table: Floats, categories: np.typing.NDArray[np.str_]) -> Floats:
        """(N, M) probabilities for rows of `features.rows` and the queries' categories."""
        return self.told(table, categories)[0]

    def told(self, table: Floats, categories: np.typing.NDArray[np.str_]) -> tuple[Floats, Floats]:
        """`predict`, and (N,) novelty: how far a query is from all that was seen, 0 to 1, and 1 more in a
        category never seen."""
        category = places(categories, self.categories)
        parts, before, near = _parts(self, self.asked(table), category)
        p = _apply(self.known, parts)
        new = category == shrinkage.UNSEEN
        if new.any():
            p[new] = _apply(self.unknown, parts[new])
        at = np.flatnonzero(before != shrinkage.UNSEEN)
        if len(at):
            k = before[at]
            came = self.rest[k] + self.rates.by_category[self.category[k]]
            p[at] = _asked_again(p[at], came, self.times[k], self.again)
        return p, new + 1 - near

    def scores(self, chances: Floats, categories: np.typing.NDArray[np.str_]) -> Floats:
        """(N, M): what to choose by, from what `predict` said.

        The best of many estimates is mostly an overestimated one, and the best mean of three less so: it
        chooses as well as plain rates do among many models, and better than they do between two."""
        category = places(categories, self.categories)
        return _mixed(chances, self.rates.at(category), self.plain[category])

    def asked(self, table: Floats) -> Rows:
        return features.unit(table, self.kernel.letters_share)


def places(values: np.typing.NDArray[np.str_], known: tuple[str, ...]) -> Ints:
    """(N,): each value's place, UNSEEN where it has none."""
    at = {value: i for i, value in enumerate(known)}
    return np.array([at.get(str(value), shrinkage.UNSEEN) for value in values], dtype=np.int64)


def fit(
    table: Floats,
    categories: np.typing.NDArray[np.str_],
    ok: Floats,
    seed: int = 0,
    times: Floats | None = None,
) -> tuple[Success, Floats]:
    """Fit success probabilities. Return the fit and, to choose by, predictions (Q, M) of its own queries by
    fits without them.

    `table`: rows of `features.rows`; `ok` (Q, M): 0 to 1, NaN where unknown; `times` (Q, M): number of
    outcomes behind each mean, None for one.
    """
    rng = np.random.default_rng(seed)
    names = tuple(sorted(set(categories.tolist())))
    category = places(categories, names)
    base = shrinkage.learn(category, ok, len(names)).at(category)
    kept = similarity.newest(category)
    kernel = similarity.choose_kernel(table[kept], category[kept], _filled((ok - base)[kept]), rng)
    unit = features.unit(table, kernel.letters_share)

    parts = np.zeros((*ok.shape, _PARTS))
    by_query = folds(rng.permutation(len(ok)), FOLDS)
    for fold in by_query:
        rest = np.setdiff1d(np.arange(len(ok)), fold)
        part = _learn(unit[rest], category[rest], ok[rest], names, kernel)
        parts[fold], _, _ = _parts(part, unit[fold], category[fold])
    known, seen = _stack(parts, ok), np.zeros(ok.shape)
    for fold in by_query:
        rest = np.setdiff1d(np.arange(len(ok)), fold)
        seen[fold] = _apply(_stack(parts[rest], ok[rest]), parts[fold])
    # Never worse than the rates alone.
    if brier(seen, ok) > brier(shrinkage.crossfit(category, ok, by_query), ok):
        known, seen = _RATES_ALONE, _apply(_RATES_ALONE, parts)
    unknown = known
    if len(names) > 2:
        for left in folds(rng.permutation(len(names)), 8):
            fold = np.flatnonzero(np.isin(category, left))
            rest = np.setdiff1d(np.arange(len(ok)), fold)
            others = np.setdiff1d(np.arange(len(names)), left)
            part = _learn(
                unit[rest],
                np.searchsorted(others, category[rest]),
                ok[rest],
                tuple(names[k] for k in others),
                kernel,
            )
            parts[fold], _, _ = _parts(part, unit[fold], np.full(len(fold), shrinkage.UNSEEN))
        unknown = _stack(parts, ok)
    whole = _learn(unit, category, ok, names, kernel)
    wider = shrinkage.widened(whole.rates, category, ok, seed)
    rates = replace(wider, difficulty=wider.difficulty[whole.kept])
    kept_times = whole.times if times is None else times[whole.kept]
    return replace(
        whole, times=kept_times, rates=rates, known=known, unknown=unknown, again=_again(seen, ok, times)
    ), seen


def seen_scores(seen: Floats, categories: np.typing.NDArray[np.str_], ok: Floats, seed: int = 0) -> Floats:
    """(Q, M): `Success.scores` of the queries learned from, by fits without them; `seen` is of `fit`."""
    names = tuple(sorted(set(categories.tolist())))
    category = places(categories, names)
    by_query = folds(np.random.default_rng(seed).permutation(len(ok)), FOLDS)
    rates = np.zeros(ok.shape)
    for fold in by_query:
        rest = np.delete(category, fold), np.delete(ok, fold, 0)
        rates[fold] = shrinkage.learn(*rest, len(names)).at(category[fold])
    return _mixed(seen, rates, shrinkage.crossfit(category, ok, by_query))


def with_model(success: Success, ok: Floats) -> Success:
    """One more model, the last, by its outcomes (N,) at the queries `kept`; NaN where it was not asked.

    Nothing is trained anew: the difficulty of queries and the spread of models are known from the others."""
    rates, overall = shrinkage.one_more(success.rates, success.category, ok)
    wider = replace(
        success.rates,
        by_category=np.column_stack([success.rates.by_category, rates]),
        overall=np.append(success.rates.overall, overall),
    )
    return replace(
        success,
        rates=wider,
        plain=np.column_stack([success.plain, np.append(rates, overall)]),
        rest=np.column_stack([success.rest, ok - rates[success.category]]),
        times=np.column_stack([success.times, np.ones(len(ok))]),
        means=np.append(success.means, success.means[0]),
        duals=np.column_stack([success.duals, success.duals[:, 0]]),
    )


def only_models(success: Success, models: Ints) -> Success:
    """Some of the models, by their places."""
    rates, shared = success.rates, np.append(0, 1 + models)
    return replace(
        success,
        plain=success.plain[:, models],
        rest=success.rest[:, models],
        times=success.times[:, models],
        rates=replace(rates, by_category=rates.by_category[:, models], overall=rates.overall[models]),
        means=success.means[shared],
        duals=success.duals[:, shared],
    )


_PARTS: Final = 6
_MIN_OUTCOMES: Final = 50
_MIN_VARIANCE: Final = 0.01
"""Outcomes, and the variance of 1 / times among them, below which nothing is told by asking again."""
_AT_ONCE: Final = 2000
"""Queries of whose likeness to all others there is memory."""
_RATES_ALONE: Final = Stack(np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))


def _learn(
    unit: Rows, category: Ints, ok: Floats, names: tuple[str, ...], kernel: similarity.Kernel
) -> Success:
    rates = shrinkage.learn(category, ok, len(names))
    every, kept = category, similarity.newest(category)
    unit, category = unit[kept], category[kept]
    rest = ok[kept] - rates.at(category)
    targets, back = _targets(rest)
    means = targets.mean(0)
    inside = similarity.kernel(unit @ unit.T, category, category, kernel).astype(np.float64)
    duals = np.linalg.solve(inside + kernel.penalty * np.eye(len(kept)), targets - means)
    plain = shrinkage.hierarchical(every, ok, np.array([*range(len(names)), -1]), weight=10.0)
    return Success(
        names,
        rates,
        plain,
        kernel,
        kept,
        unit,
        category,
        rest,
        np.ones(rest.shape),
        means @ back,
        duals @ back,
        _RATES_ALONE,
        _RATES_ALONE,
        RepeatVariance(0.0, 0.0, 1.0),
    )


def _mixed(*estimates: Floats) -> Floats:
    return np.asarray(np.mean(estimates, axis=0), dtype=np.float64)


def _filled(rest: Floats) -> Floats:
    """Replace unknown residuals of a model at a query by those of the other models there."""
    n = np.isfinite(rest).sum(1)
    row = np.nansum(rest, 1) / np.maximum(n, 1)
    return np.where(np.isfinite(rest), rest, row[:, None])


def _targets(rest: Floats) -> tuple[Floats, Floats]:
    """(Q, 1 + rank) the shared difficulty and the main directions; (1 + rank, 1 + M) the way back."""
    filled = _filled(rest)
    _, _, directions = np.linalg.svd(filled, full_matrices=False)
    directions = directions[:_RANK]
    back = np.zeros((1 + len(directions), 1 + rest.shape[1]))
    back[0, 0] = 1
    back[1:, 1:] = directions
    return np.column_stack([filled.mean(1), filled @ directions.T]), back


def _parts(success: Success, unit: Rows, category: Ints) -> tuple[Floats, Ints, Floats]:
    """(N, M, 6): logits of rates by category and overall, then what is above them at neighbours
    (of the model, of all models) and by the kernel (of all models, of the model); (N,) the place of the
    same query where it was asked before: that says nothing of how much a neighbour's outcomes are worth; and
    (N,) how near the nearest are.
    """
    before, nearness = np.full(len(unit), shrinkage.UNSEEN), np.zeros(len(unit))
    found = np.zeros((len(unit), len(success.rates.overall), _PARTS))
    found[:, :, 0] = logit(success.rates.at(category))
    found[:, :, 1] = logit(success.rates.overall)
    duals = success.duals.astype(np.float32)
    for start in range(0, len(unit), _AT_ONCE):
        at = slice(start, start + _AT_ONCE)
        products = unit[at] @ success.rows.T
        nearness[at] = similarity.nearness(products)
        near = similarity.neighbours(products, category[at], success.category, success.rest)
        before[at] = similarity.repeats(products, category[at], success.category)
        weights = similarity.kernel(products, category[at], success.category, success.kernel)
        again = np.flatnonzero(before[at] != shrinkage.UNSEEN)
        weights[again, before[at][again]] = 0
        far = weights @ duals + success.means
        found[at, :, 2], found[at, :, 3] = near, near.mean(1, keepdims=True)
        found[at, :, 4], found[at, :, 5] = far[:, :1], far[:, 1:]
    return found, before, nearness


def _again(seen: Floats, ok: Floats, times: Floats | None) -> RepeatVariance:
    """From what came of queries above what fits without them had expected.

    What models share there is the query's. What comes again of a model's own is what is left of it in means
    of many outcomes. Where all were asked equally often nobody can tell: of agents that were asked five times
    it was half of what they did not share; a third is careful."""
    known = np.isfinite(ok)
    above = np.where(known, ok - seen, 0.0)
    n = known.sum(1).astype(np.float64)
    pairs = float((n * (n - 1)).sum())
    squares = above[known] ** 2
    one = np.ones(len(squares)) if times is None else 1 / np.maximum(times[known], 1)
    if len(one) > _MIN_OUTCOMES and float(one.var()) > _MIN_VARIANCE:
        chance, stays = np.polyfit(one, squares, 1)
        whole = max(float(chance + stays), 1e-6)
        stays = float(np.clip(stays, 0.0, 0.9 * whole))
    else:
        whole = float(squares.mean()) if len(squares) else 1e-6
        stays = np.nan
    together = float((above.sum(1) ** 2 - (above**2).sum(1)).sum()) / pairs if pairs else 0.1 * whole
    shared = float(np.clip(together, 0.0, 0.8 * whole))
    if np.isnan(stays):
        stays = shared + (whole - shared) / 3
    shared = min(shared, stays)
    return RepeatVariance(shared, stays - shared, max(whole - stays, 1e-6))


def _asked_again(p: Floats, came: Floats, times: Floats, again: RepeatVariance) -> Floats:
    """(N, M) chances at queries of which (N, M) means of `times` outcomes are known, NaN where not: their
    posterior mean. What all models share makes it a matrix of rank one and a diagonal, which is inverted by
    hand (Sherman and Morrison 1950)."""
    # What is nearly sure is less left to chance.
    typical = np.maximum((p * (1 - p)).mean(1, keepdims=True), 1e-6)
    chance = again.chance * p * (1 - p) / typical / np.maximum(times, 1) + 1e-6
    inverse = np.where(np.isfinite(came), 1 / (again.own + chance), 0.0)
    above = inverse * np.nan_to_num(came - p)
    shared = again.shared * above.sum(1, keepdims=True) / (1 + again.shared * inverse.sum(1, keepdims=True))
    moved = shared + again.own * (above - inverse * shared)
    return np.asarray(np.clip(p + moved, 0.005, 0.995), dtype=np.float64)


def _stack(parts: Floats, ok: Floats) -> Stack:
    """A logistic regression with a ridge of 1 on scaled parts; targets may be fractions."""
    known = np.isfinite(ok)
    scale = parts[known].std(0) + 1e-6
    weights = logistic(parts[known] / scale, ok[known])
    return Stack(np.append(weights[:1], weights[1:] / scale))


def _apply(stack: Stack, parts: Floats) -> Floats:
    return sigmoid(stack.weights[0] + parts @ stack.weights[1:])


def folds(order: Ints, count: int) -> list[Ints]:
    return [fold for fold in np.array_split(order, count) if len(fold)]
