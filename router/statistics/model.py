"""The fitted model in a checkpoint: success, latency, tokens and cost per candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from router.data.arrays import Floats, Ints
from router.data.outcomes import Calls
from router.statistics import choose, intervals, shrinkage, success
from router.statistics.choose import PricePair
from router.statistics.drift import State, Tracker
from router.statistics.intervals import Interval, Intervals
from router.statistics.success import Success

MIN_OUTCOMES: Final = 50
"""Fewest successes in all; below that, rules know more."""
MIN_VALUES: Final = 20
"""Seconds or tokens; below that an interval says nothing."""
_SURE: Final = 2.0
"""Standard errors by which a cheaper policy must hold: what was logged says less than what all were asked."""
_SOME: Final = 5
"""Outcomes of a model in a category, from which on it is one of those that can be chosen among there."""
_MIN_CHANCE: Final = 0.02
"""Least chance with which a model was drawn: a rarer choice would weigh so much that one outcome decided."""


FOLLOWED: Final = ("seconds", "input_tokens", "output_tokens")
TrackerStates = Mapping[str, State]
"""Value in FOLLOWED → state of its interval's Tracker."""


@dataclass(frozen=True)
class IntervalShifts:
    """Shifts of intervals since they were learned."""

    until: str
    """The last outcome that they have moved with; another one means other moves."""
    of: TrackerStates


@dataclass(frozen=True)
class FittedModel:
    """Learned from M models on Q steps."""

    models: tuple[str, ...]
    success: Success
    seconds: Intervals | None
    input_tokens: Intervals | None
    output_tokens: Intervals | None
    """None where too few values were known."""
    incumbent: str
    """The best single model of what was learned from."""
    margin: float
    """Utility by which another must be better than the incumbent to be preferred."""
    economy: choose.ChoicePolicy
    """Return the cheapest that reached the incumbent's quality, less half a point; its `incumbent` is a place
    in `models`."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N steps and K candidates, in the order of the request."""

    success: Floats
    """(N, K) chances."""
    scores: Floats
    """(N, K): what to choose by: the best of many chances is mostly an overestimated one."""
    doubt: Floats
    """(N, K) standard deviations of those chances: how little is known."""
    seconds: Interval | None
    input_tokens: Interval | None
    output_tokens: Interval | None
    """(N, K) 90 % intervals."""
    novelty: Floats
    """(N,): how far a step is from all that was learned from, 0 to 1, and 1 more in a new category."""


def fit(
    calls: Calls, rows: Floats, seed: int = 0, prices: Mapping[str, PricePair] | None = None
) -> tuple[FittedModel, Floats]:
    """And (Q, M) chances of success for its own steps by fits without them.

    `rows`: of `features.rows(calls.texts)`; `prices`: US dollars for a million tokens in and out, by model.
    Raises ValueError below LEAST_OUTCOMES."""
    if (known := int(np.isfinite(calls.ok).sum())) < MIN_OUTCOMES:
        raise ValueError(f"found {known} outcomes; expected at least {MIN_OUTCOMES} to learn from.")
    learned, seen = success.fit(rows, calls.categories, calls.ok, seed, calls.times)
    told = intervals.text_features(calls.texts, rows[:, : success.MEANING])

    def interval(values: Floats) -> Intervals | None:
        if int(np.isfinite(values).sum()) < MIN_VALUES:
            return None
        return intervals.fit(values, list(calls.categories), told, calls.models, seed=seed)

    category = success.places(calls.categories, learned.categories)
    # A step that only ever one model did says nothing of choosing.
    open_ = contested(calls.ok, category)
    whole = completed(calls.ok, seen, category)[open_]
    scored = success.seen_scores(seen, calls.categories, calls.ok, seed)[open_]
    policy = choose.tune_margin(scored, whole)
    model = FittedModel(
        calls.models,
        learned,
        interval(calls.seconds),
        interval(calls.input_tokens),
        interval(calls.output_tokens),
        calls.models[policy.incumbent],
        policy.margin,
        policy,
    )
    into, out = (
        one.predict(model.models, list(calls.categories), told) if one else None
        for one in (model.input_tokens, model.output_tokens)
    )
    usd = expected_usd(into, out, [(prices or {}).get(name) for name in model.models])
    if usd is not None:
        model = replace(model, economy=choose.tune_cost(scored, whole, usd[open_], policy, sure=_SURE))
    return model, seen


def contested(ok: Floats, category: Ints) -> Ints:
    """Places of the steps in categories where more than one model did some; all where there are none."""
    some = np.zeros((int(category.max()) + 1, ok.shape[1]))
    np.add.at(some, category, np.isfinite(ok).astype(np.float64))
    found = np.flatnonzero(((some >= _SOME).sum(1) > 1)[category])
    return found if len(found) else np.arange(len(ok))


def completed(ok: Floats, seen: Floats, category: Ints) -> Floats:
    """(Q, M) outcomes as if every model had been asked: what was predicted, corrected by what came, which
    weighs the more the rarer a model is asked in that category. On average right where either is (doubly
    robust: Dudík, Langford and Li, 2011); of a model that was asked everywhere just what came."""
    known = np.isfinite(ok)
    asked = np.zeros((int(category.max()) + 1, ok.shape[1]))
    np.add.at(asked, category, known.astype(np.float64))
    chance = np.maximum(asked / np.maximum(np.bincount(category), 1)[:, None], _MIN_CHANCE)[category]
    return np.asarray(seen + np.where(known, (ok - seen) / chance, 0.0), dtype=np.float64)


def expected_usd(
    into: Interval | None, out: Interval | None, prices: Sequence[PricePair | None]
) -> Floats | None:
    """(N, K) by expected tokens in and out; None where those are not known, or a price is not: what costs
    nothing would always be chosen."""
    if into is None or out is None or None in prices:
        return None
    each = np.array(prices, dtype=np.float64) / 1e6
    return np.asarray(into.expected * each[:, 0] + out.expected * each[:, 1], dtype=np.float64)


def predict(
    model: FittedModel,
    rows: Floats,
    texts: Sequence[str],
    categories: Sequence[str],
    candidates: Sequence[str],
    moved: TrackerStates | None = None,
) -> Predictions:
    """For N steps (`rows` of `features.rows(texts)`) and K candidates; one never met is taken for typical.

    `moved`: how far intervals have moved since they were learned, where they were followed."""
    names = np.array(categories, dtype=np.str_)
    at = {name: place for place, name in enumerate(model.models)}
    wide = model.success
    if any(name not in at for name in candidates):
        wide = success.with_model(wide, np.full(len(wide.rows), np.nan))
    places = [at.get(name, len(model.models)) for name in candidates]
    every, novelty = wide.told(rows, names)
    chances = every[:, places]
    told = intervals.text_features(texts, rows[:, : success.MEANING])

    def interval(name: str) -> Interval | None:
        one: Intervals | None = getattr(model, name)
        if one is None:
            return None
        if not moved or name not in moved:
            return one.predict(candidates, categories, told)
        tracker = Tracker.restore(one, moved[name])
        each = [tracker.among(candidates, category, told[i]) for i, category in enumerate(categories)]
        return Interval(
            *(np.vstack([getattr(row, end) for row in each]) for end in ("low", "expected", "high"))
        )

    return Predictions(
        chances,
        wide.scores(every, names)[:, places],
        _doubt(model.success, names, places, chances),
        interval("seconds"),
        interval("input_tokens"),
        interval("output_tokens"),
        novelty,
    )


def _doubt(learned: Success, names: np.typing.NDArray[np.str_], places: Sequence[int], p: Floats) -> Floats:
    """As of a rate from the outcomes that its category has of the model, and a few beforehand."""
    category = success.places(names, learned.categories)
    n = learned.counts[np.where(category == shrinkage.UNSEEN, len(learned.categories), category)][:, places]
    return np.asarray(np.sqrt(p * (1 - p) / (n + 4)), dtype=np.float64)
