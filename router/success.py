"""P(success | query, model): shrunk rates by category, corrected by what happened at queries like it.

Models inform each other: how hard a query is, is learned from all of them (a kernel regression over texts),
so a new model needs few outcomes. A small logistic regression over cross-fitted predictions says how much
each of these is worth, once for categories that are known and once for those that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from router import alike, features, shrinkage
from router.metrics import brier
from router.outcomes import Floats, Ints

FOLDS: Final = 5
_RANK: Final = 8
"""Directions in which models differ at queries; 4 to 12 came to the same."""


@dataclass(frozen=True)
class Stack:
    """A logistic regression over the parts: weights (1 + parts), its first the intercept."""

    weights: Floats


@dataclass(frozen=True)
class Success:
    """What `fit` learned from Q queries and M models."""

    categories: tuple[str, ...]
    rates: shrinkage.Rates
    kernel: alike.Kernel
    told: Floats
    rows: Floats
    """(Q, D): of `features.unit`."""
    category: Ints
    rest: Floats
    """(Q, M): outcome minus rate; NaN where not known."""
    means: Floats
    """(1 + M,): of the kernel regression's targets: shared by all models, then each model's."""
    duals: Floats
    """(Q, 1 + M)"""
    known: Stack
    unknown: Stack

    def predict(self, table: Floats, categories: np.typing.NDArray[np.str_]) -> Floats:
        """(N, M) probabilities for rows of `features.rows` and the queries' categories."""
        category = places(categories, self.categories)
        parts = _parts(self, self.asked(table), category)
        p = _apply(self.known, parts)
        new = category == shrinkage.UNSEEN
        if new.any():
            p[new] = _apply(self.unknown, parts[new])
        return p

    def novelty(self, table: Floats, categories: np.typing.NDArray[np.str_]) -> Floats:
        """(N,): how far a query is from all that was seen, 0 to 1, and 1 more in a category never seen."""
        products = self.asked(table) @ self.rows.T
        nearest = np.partition(products, -min(5, products.shape[1]), 1)[:, -5:].mean(1)
        return np.asarray((places(categories, self.categories) < 0) + 1 - nearest, dtype=np.float64)

    def asked(self, table: Floats) -> Floats:
        return features.unit(table, self.told, self.kernel.letters_share)


def places(values: np.typing.NDArray[np.str_], known: tuple[str, ...]) -> Ints:
    """(N,): each value's place, UNSEEN where it has none."""
    at = {value: i for i, value in enumerate(known)}
    return np.array([at.get(str(value), shrinkage.UNSEEN) for value in values], dtype=np.int64)


def fit(
    table: Floats, categories: np.typing.NDArray[np.str_], ok: Floats, seed: int = 0
) -> tuple[Success, Floats]:
    """What was learned, and predictions (Q, M) of its own queries by fits without them, to choose by.

    `table`: of `features.rows`; `ok` (Q, M): 0 to 1, NaN where not known."""
    rng = np.random.default_rng(seed)
    names = tuple(sorted(set(categories.tolist())))
    category = places(categories, names)
    told = features.rarity(table)
    base = shrinkage.learn(category, ok, len(names)).at(category)
    kernel = alike.choose_kernel(table, told, category, _filled(ok - base), rng)
    unit = features.unit(table, told, kernel.letters_share)

    parts = np.zeros((len(ok), ok.shape[1], _PARTS))
    by_query = folds(rng.permutation(len(ok)), FOLDS)
    for fold in by_query:
        part = _learn(
            unit,
            told,
            np.delete(category, fold),
            np.delete(ok, fold, 0),
            names,
            kernel,
            np.delete(np.arange(len(ok)), fold),
        )
        parts[fold] = _parts(part, unit[fold], category[fold])
    known = _stack(parts, ok)
    seen = _apply(known, parts)
    if brier(seen, ok) > brier(
        shrinkage.crossfit(category, ok, by_query), ok
    ):  # never worse than the rates alone
        known, seen = _RATES_ALONE, _apply(_RATES_ALONE, parts)
    unknown = known
    if len(names) > 2:
        strange = np.zeros_like(parts)
        for left in folds(rng.permutation(len(names)), 8):
            fold = np.flatnonzero(np.isin(category, left))
            rest = np.setdiff1d(np.arange(len(ok)), fold)
            kept = np.setdiff1d(np.arange(len(names)), left)
            part = _learn(
                unit,
                told,
                np.searchsorted(kept, category[rest]),
                ok[rest],
                tuple(names[k] for k in kept),
                kernel,
                rest,
            )
            strange[fold] = _parts(part, unit[fold], np.full(len(fold), shrinkage.UNSEEN))
        unknown = _stack(strange, ok)
    whole = _learn(unit, told, category, ok, names, kernel, np.arange(len(ok)))
    rates = shrinkage.widened(whole.rates, category, ok, seed)
    return replace(whole, rates=rates, known=known, unknown=unknown), seen


def with_model(success: Success, ok: Floats) -> Success:
    """One more model, the last, by its outcomes (Q,) at the queries learned from; NaN where it was not asked.

    Nothing is trained anew: the difficulty of queries and the spread of models are known from the others."""
    rates, overall = shrinkage.one_more(success.rates, success.category, ok)
    wider = replace(
        success.rates,
        by_category=np.column_stack([success.rates.by_category, rates]),
        overall=np.append(success.rates.overall, overall),
    )
    return replace(
        success, rates=wider,
        rest=np.column_stack([success.rest, ok - rates[success.category]]),
        means=np.append(success.means, success.means[0]),
        duals=np.column_stack([success.duals, success.duals[:, 0]]),
    )  # fmt: skip


_PARTS: Final = 6
_RATES_ALONE: Final = Stack(np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))


def _learn(
    unit: Floats,
    told: Floats,
    category: Ints,
    ok: Floats,
    names: tuple[str, ...],
    kernel: alike.Kernel,
    at: Ints,
) -> Success:
    rates = shrinkage.learn(category, ok, len(names))
    rest = ok - rates.at(category)
    targets, back = _targets(rest)
    means = targets.mean(0)
    inside = alike.kernel(unit[at], category, unit[at], category, kernel)
    duals = np.linalg.solve(inside + kernel.penalty * np.eye(len(at)), targets - means)
    return Success(
        names,
        rates,
        kernel,
        told,
        unit[at],
        category,
        rest,
        means @ back,
        duals @ back,
        _RATES_ALONE,
        _RATES_ALONE,
    )


def _filled(rest: Floats) -> Floats:
    """What is not known of a model at a query is taken for what the others came to there."""
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


def _parts(success: Success, unit: Floats, category: Ints) -> Floats:
    """(N, M, 6): logits of rates by category and overall, then what is above them at neighbours
    (of the model, of all models) and by the kernel (of all models, of the model).
    """
    base = success.rates.at(category)
    near = alike.neighbours(unit @ success.rows.T, category, success.category, success.rest)
    far = (
        alike.kernel(unit, category, success.rows, success.category, success.kernel) @ success.duals
        + success.means
    )
    shape = base.shape
    return np.stack(
        [
            _logit(base), np.broadcast_to(_logit(success.rates.overall), shape), near,
            np.broadcast_to(near.mean(1, keepdims=True), shape), np.broadcast_to(far[:, :1], shape),
            far[:, 1:],
        ], 2,
    )  # fmt: skip


def _stack(parts: Floats, ok: Floats) -> Stack:
    """Newton's method on the log-loss with a ridge of 1 on scaled parts; targets may be fractions."""
    known = np.isfinite(ok)
    x, y = parts[known], ok[known]
    scale = x.std(0) + 1e-6
    x = np.column_stack([np.ones(len(x)), x / scale])
    ridge = np.diag([1e-6, *[1.0] * _PARTS])
    weights = np.array([0.0, scale[0], *[0.0] * (_PARTS - 1)])
    for _ in range(30):
        p = _sigmoid(x @ weights)
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, x.T @ (y - p) - ridge @ weights)
        weights = weights + step
        if np.abs(step).max() < 1e-6:
            break
    return Stack(np.append(weights[:1], weights[1:] / scale))


def _apply(stack: Stack, parts: Floats) -> Floats:
    return _sigmoid(stack.weights[0] + parts @ stack.weights[1:])


def folds(order: Ints, count: int) -> list[Ints]:
    return [fold for fold in np.array_split(order, count) if len(fold)]


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), dtype=np.float64)


def _logit(p: Floats) -> Floats:
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)
