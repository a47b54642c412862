"""Network input from past outcomes: numbers per model that need no training.

A new model, or one that improved, changes its history at once while the weights stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints
from router.data.encoder import WIDTH
from router.data.features import LETTERS, unit
from router.data.odds import logit
from router.data.outcomes import Bools, Calls
from router.statistics import additive, shrinkage, similarity
from router.statistics.success import places

Small = NDArray[np.float32]

MAX_PAST: Final = 5000
"""Latest steps that are searched: more would take longer than the rest of a decision."""
_RECENT: Final = 50
_SPELLED: Final = 0.5
HISTORY: Final = 9
"""Numbers of a history: rates (in the category, overall), counts of the same, expected seconds and tokens
(in, out), how long ago its last outcome is, and how far its latest outcomes are above its rate."""
SKIPPED: Final = 4
"""Inputs that bypass the network: both rates and their excess at similar steps, of the model and of all."""
TEXT: Final = WIDTH + LETTERS
"""Numbers of a text: what it means and how it is spelled, which weigh the same (`features.unit`)."""
ELEMENT: Final = TEXT + 3 + HISTORY
"""Numbers of a past outcome: its text, how alike it is, its surprise, how many were asked, their history."""


@dataclass(frozen=True)
class PastOutcomes:
    """Outcomes of P past steps and M models in C categories."""

    models: tuple[str, ...]
    categories: tuple[str, ...]
    rows: Small
    """(P, TEXT) of length 1, the latest steps'."""
    category: Ints
    rest: Small
    """(P, M): outcome minus rate; NaN where not known."""
    table: Small
    """(C + 1, M + 1, HISTORY): the last ones for a category and a model never met."""
    scale: Floats
    """(3, 2): mean and standard deviation of the logs of seconds, input tokens and output tokens."""


@dataclass(frozen=True)
class NetworkInput:
    """Network input for N steps with K candidates each."""

    rows: Small
    """(N, TEXT)"""
    group: Ints
    """(N,): places in `histories`."""
    histories: Small
    """(G, K, HISTORY)"""
    skipped: Small
    """(N, K, SKIPPED)"""
    memory: Small
    """(N, n, ELEMENT): the nearest past outcomes; zeros where there are fewer."""
    asked: Bools
    """(N, K): False where a step has fewer candidates than others."""

    def only(self, at: Ints) -> NetworkInput:
        """Some of the steps, and the histories that they need."""
        groups, group = np.unique(self.group[at], return_inverse=True)
        return NetworkInput(
            self.rows[at], group, self.histories[groups], self.skipped[at], self.memory[at], self.asked[at]
        )


def learn(calls: Calls, rows: Floats) -> PastOutcomes:
    """`rows` (Q, TEXT): of `features.rows(calls.texts)`; steps in the order in which they ended."""
    names = tuple(sorted(set(calls.categories.tolist())))
    category = places(calls.categories, names)
    rates = shrinkage.learn(category, calls.ok, len(names))
    rest = calls.ok - rates.at(category)
    of_models = np.vstack([rates.by_category, rates.overall])
    # A model never met is taken for a typical one.
    p = np.column_stack([of_models, of_models.mean(1)])
    known = np.isfinite(calls.ok)
    n = np.zeros((len(names) + 1, known.shape[1] + 1))
    for k in range(len(names)):
        n[k, :-1] = known[category == k].sum(0)
    overall = np.append(rates.overall, rates.overall.mean())
    values, scale = _values(calls, category, len(names))
    shape = p.shape
    table = np.stack(
        [
            logit(p),
            np.broadcast_to(logit(overall), shape),
            np.log1p(n) / 5,
            np.broadcast_to(np.log1p(n.sum(0)) / 5, shape),
            *values,
            *(np.broadcast_to(one, shape) for one in _recency(known, rest)),
        ],
        2,
    )
    late = slice(max(0, len(rest) - MAX_PAST), None)
    return PastOutcomes(
        calls.models,
        names,
        _texts(rows[late]),
        category[late],
        _small(rest[late]),
        _small(table),
        scale,
    )


def given(
    past: PastOutcomes,
    rows: Floats,
    categories: NDArray[np.str_],
    candidates: Sequence[Sequence[str]],
    memory: int,
) -> NetworkInput:
    """For N steps: `rows` (N, TEXT), and each step's candidates or, where there is one list, all's."""
    at = {name: place for place, name in enumerate(past.models)}
    width = max((len(names) for names in candidates), default=0)
    column = np.full((len(candidates), width), len(at))
    asked = np.zeros(column.shape, dtype=np.bool_)
    for i, names in enumerate(candidates):
        column[i, : len(names)] = [at.get(name, len(at)) for name in names]
        asked[i, : len(names)] = True
    category = places(categories, past.categories)
    # Steps that share category and candidates share histories, which are then encoded once.
    several = np.arange(len(candidates)) if len(candidates) > 1 else np.zeros(len(category), dtype=np.int64)
    keys = np.column_stack([category, several, column[several]])
    unique, group = np.unique(keys[:, [0, *range(2, keys.shape[1])]], axis=0, return_inverse=True)
    group = group.ravel()
    histories = past.table[unique[:, :1], unique[:, 1:]]
    text = _texts(rows)
    products = text @ past.rows.T
    near = similarity.neighbours(products, category, past.category, past.rest.astype(np.float64))
    both = np.stack([near, np.broadcast_to(near.mean(1, keepdims=True), near.shape)], 2)
    # The last one stands for models never met: like all together.
    both = np.concatenate([both, np.repeat(near.mean(1)[:, None, None], 2, axis=2)], axis=1)
    above = np.take_along_axis(both, column[several][:, :, None], 1)
    skipped = np.concatenate([histories[group][:, :, :2], above], axis=2)
    return NetworkInput(
        text, group, histories, _small(skipped), _memory(past, products, memory), asked[several]
    )


def together(parts: Sequence[tuple[Ints, NetworkInput]]) -> NetworkInput:
    """Join inputs of steps that were prepared apart, given as (their indices, input); the indices cover all
    steps once."""
    order = np.argsort(np.concatenate([at for at, _ in parts]))
    starts = np.cumsum([0, *(len(one.histories) for _, one in parts)])
    group = np.concatenate([one.group + starts[i] for i, (_, one) in enumerate(parts)])

    def joined(name: str) -> Small:
        return np.asarray(np.concatenate([getattr(one, name) for _, one in parts])[order])

    histories = np.concatenate([one.histories for _, one in parts])
    asked = np.concatenate([one.asked for _, one in parts])[order]
    return NetworkInput(joined("rows"), group[order], histories, joined("skipped"), joined("memory"), asked)


def _memory(past: PastOutcomes, products: Small, count: int) -> Small:
    """(N, count, ELEMENT)"""
    found = np.zeros((len(products), count, ELEMENT), dtype=np.float32)
    n = min(count, len(past.rows))
    if not n:
        return found
    nearest = np.argpartition(-products, n - 1, 1)[:, :n]
    nearness = np.take_along_axis(products, nearest, 1)
    by_nearness = np.argsort(-nearness, 1, kind="stable")
    nearest = np.take_along_axis(nearest, by_nearness, 1)
    known = np.isfinite(past.rest)
    many = np.maximum(known.sum(1), 1)
    surprise = np.where(known, past.rest, 0).sum(1) / many
    # Of the models that were asked there: with one of them, its own history.
    theirs = np.zeros((len(known), HISTORY))
    for k in range(len(past.categories)):
        inside = past.category == k
        theirs[inside] = known[inside] @ past.table[k, :-1] / many[inside, None]
    told = np.column_stack([surprise, np.log1p(many) / 5, theirs])
    found[:, :n, :TEXT] = past.rows[nearest]
    found[:, :n, TEXT] = np.take_along_axis(nearness, by_nearness, 1)
    found[:, :n, TEXT + 1 :] = told[nearest]
    return found


def _values(calls: Calls, category: Ints, count: int) -> tuple[list[Floats], Floats]:
    """((C + 1, M + 1) scaled expected logs each of seconds, input and output tokens; their scales)."""
    found, scale = [], np.tile([0.0, 1.0], (3, 1))
    for i, values in enumerate((calls.seconds, calls.input_tokens, calls.output_tokens)):
        logs = np.log(values)
        known = logs[np.isfinite(logs)]
        if not len(known):
            found.append(np.zeros((count + 1, logs.shape[1] + 1)))
            continue
        scale[i] = known.mean(), known.std() + 1e-3
        means = additive.fit((logs - scale[i, 0]) / scale[i, 1], category, count, np.zeros((len(logs), 1)))
        found.append(means.cells)
    return found, scale


def _recency(known: Bools, rest: Floats) -> tuple[Floats, Floats]:
    """((M + 1,) how long ago its last outcome is, (M + 1,) what its latest are above its rate)."""
    steps = np.arange(1, len(known) + 1)[:, None]
    ago = np.log1p(len(known) - np.where(known, steps, 0).max(0)) / 5
    late = known & (known[::-1].cumsum(0)[::-1] <= _RECENT)
    above = np.where(late, rest, 0.0).sum(0) / (late.sum(0) + 10)
    return np.append(ago, np.log1p(len(known)) / 5), np.append(above, 0.0)


def _texts(rows: Floats) -> Small:
    if rows.shape[1] != TEXT:
        raise ValueError(f"found rows of {rows.shape[1]} numbers; expected the {TEXT} of features.rows.")
    return unit(rows, _SPELLED)


def _small(values: NDArray[np.float64] | Small) -> Small:
    return np.asarray(values, dtype=np.float32)
