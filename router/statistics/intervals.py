"""90 % intervals for a positive value of a model on a query: output tokens, seconds, and so what it costs.

Conformal prediction on log values (Vovk, Gammerman and Shafer 2005), by model and category (Mondrian). The
quantiles of a (model, category) cell are those of its residuals out of fold, mixed with its category's and
its model's as far as the cell is small. Who or what is new has an effect that nobody knows: how far each
known one is from the rest widens the interval. `router.statistics.drift` follows the outcomes as they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints
from router.data.outcomes import Calls, split
from router.statistics import additive
from router.statistics.additive import AdditiveModel

LEVEL: Final = 0.9
_FOLDS: Final = 5
_GROUPS: Final = 20
"""At most so many fits tell how far off a category is that nobody has seen."""
_BINS: Final = 200
_SHRINK_SCALE: Final = 50.0
_SHRINK_QUANTILE: Final = 20.0
"""Outcomes for which the level above a cell counts; 10 to 50 differed by less than 0.005."""
_SPLITS: Final = 3
_TINY: Final = 1e-6
_JUDGED: Final = 40
"""A group of fewer says nothing of its coverage."""


@dataclass(frozen=True)
class Interval:
    """In the value's own unit; three arrays of one shape."""

    low: Floats
    expected: Floats
    """About the median: the exponential of the mean of the log."""
    high: Floats

    def cost(self, price: float | Floats, fixed: float | Floats = 0.0) -> "Interval":
        """At a price per unit, beside what is paid anyway. The order stays, and so does the coverage."""
        return Interval(self.low * price + fixed, self.expected * price + fixed, self.high * price + fixed)


@dataclass(frozen=True)
class Intervals:
    """C known categories, M known models; the last row and column are for those that are not known."""

    models: dict[str, int]
    categories: dict[str, int]
    means: AdditiveModel
    low: Floats
    high: Floats
    """(C + 1, M + 1): how far the ends lie from the expected log."""
    variance: float
    """Variance of the log's residual when model, category and text are known."""
    model_doubt: Floats
    category_doubt: Floats
    """(M + 1,), (C + 1,): the variance of what is not known of each effect."""

    def places(self, models: Sequence[str], categories: Sequence[str]) -> tuple[Ints, Ints]:
        """((Q,) rows of categories, (K,) columns of models)"""
        rows = [self.categories.get(name, len(self.categories)) for name in categories]
        columns = [self.models.get(name, len(self.models)) for name in models]
        return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)

    def predict(self, models: Sequence[str], categories: Sequence[str], features: Floats) -> Interval:
        """(Q, len(models)) for the categories and (Q, F) features of Q queries."""
        rows, columns = self.places(models, categories)
        doubt = self.category_doubt[rows][:, None] + self.model_doubt[columns]
        return self.around(rows, columns, features, 0.0, doubt, 0.0)

    def around(
        self,
        rows: Ints,
        columns: Ints,
        features: Floats,
        shift: float | Floats,
        doubt: float | Floats,
        widen: float | Floats,
    ) -> Interval:
        """Moved by `shift`, and wider by `doubt` (a variance) and by `widen` (a log)."""
        cells = np.ix_(rows, columns)
        expected = self.means.predict(rows, columns, features) + shift
        factor = np.exp(widen) * np.sqrt(1 + doubt / self.variance)
        low, high = expected + self.low[cells] * factor, expected + self.high[cells] * factor
        return Interval(np.exp(low), np.exp(expected), np.exp(high))


def fit(
    values: Floats,
    categories: Sequence[str],
    features: Floats,
    models: Sequence[str],
    level: float = LEVEL,
    seed: int = 0,
) -> Intervals:
    """From (Q, M) positive values, NaN where not known, and (Q, F) features of the queries."""
    names = sorted(set(categories))
    category = np.array([names.index(name) for name in categories], dtype=np.int64)
    logs = np.log(values)
    told = _out_of_fold(logs, category, len(names), features, seed)
    residuals = logs - told[:, :-1]
    known = ~np.isnan(residuals)
    variance = float(np.mean(residuals[known] ** 2)) + _TINY
    scale = _scales(residuals, category, len(names))
    low, high = _quantiles(residuals / scale[category, :-1], category, len(names), (1 - level) / 2)
    low, high = low * scale, high * scale
    # A model is new to the others; their mean without it is farther from it than the mean of all.
    new_model = (logs - told[:, -1:]) * len(models) / max(len(models) - 1, 1)
    new_category = logs - _as_new(logs, category, len(names), features)
    model_doubt = variance * _stretch(new_model, low[category, -1:], high[category, -1:], level)
    category_doubt = variance * _stretch(new_category, low[-1, :-1], high[-1, :-1], level)
    # Of one alone nobody can say how far another may be from it: as far as what is known to differ.
    model_doubt = category_doubt if len(models) == 1 else model_doubt
    category_doubt = model_doubt if len(names) == 1 else category_doubt
    # One query's outcomes share its text: a category is known by as many queries as it has, not outcomes.
    queries = np.bincount(category[known.any(1)], minlength=len(names) + 1)
    return Intervals(
        {name: place for place, name in enumerate(models)},
        {name: place for place, name in enumerate(names)},
        additive.fit(logs, category, len(names), features),
        low,
        high,
        variance,
        _left(model_doubt, variance, np.append(known.sum(0), 0)),
        _left(category_doubt, variance, queries),
    )


def judge_intervals(calls: Calls, rows: Floats | None = None) -> dict[str, float | None]:
    """Learned on `split(calls.queries)`'s first part, judged on its second; the worse of seconds and tokens.

    `rows` are the (Q, 384) MiniLM rows of the texts, where they are at hand. `..._mean`: over random splits.
    `..._pooled` is the same point with one pair of quantiles for all.
    """
    result: dict[str, float | None] = {}
    features = text_features(calls.texts, rows)
    parts = [split(calls.queries)]
    for seed in range(_SPLITS):
        order = np.random.default_rng(seed).permutation(len(calls.queries))
        parts.append((order[: round(0.7 * len(order))], order[round(0.7 * len(order)) :]))
    for name, values in (("seconds", calls.seconds), ("tokens", calls.output_tokens)):
        judged = [_judge(calls, values, features, *part) for part in parts]
        for key in judged[0]:
            result[f"{key}_{name}"] = judged[0][key]
            result[f"{key}_{name}_mean"] = _mean([one[key] for one in judged[1:]])
    return result | worst(result)


def worst(covered: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the coverage of seconds or of tokens, whichever is farther from its target."""
    found: dict[str, float | None] = {}
    for key in ("coverage_marginal", "coverage_worst_model", "coverage_worst_category"):
        both = [x for name in ("seconds", "tokens") if (x := covered.get(f"{key}_{name}")) is not None]
        farthest = max(both, key=lambda x: abs(x - LEVEL), default=None)
        found[key] = farthest if key == "coverage_marginal" else min(both, default=None)
    return found


def text_features(texts: Sequence[str], rows: Floats | None = None) -> Floats:
    """(Q, 385): MiniLM rows, and the log of the length in characters."""
    if rows is None:
        from router.data.encoder import encode

        rows = np.array(encode(texts), dtype=np.float64)
    # About as wide as all of the row's other numbers together.
    lengths = np.log([len(text) + 1.0 for text in texts]) / 3
    return np.hstack([rows, lengths[:, None]])


def _judge(
    calls: Calls, values: Floats, features: Floats, learn: Ints, judge: Ints
) -> dict[str, float | None]:
    models = np.flatnonzero((~np.isnan(values[learn])).any(0))
    names = [calls.models[place] for place in models]
    if not len(models) or np.isnan(values[np.ix_(judge, models)]).all():
        keys = ("coverage_marginal", "coverage_worst_model", "coverage_worst_category", "interval_ratio")
        return dict.fromkeys([*keys, *(f"{key}_pooled" for key in keys)])
    train, test = values[np.ix_(learn, models)], values[np.ix_(judge, models)]
    learned, judged = list(calls.categories[learn]), calls.categories[judge]
    fitted = fit(train, learned, features[learn], names)
    told = fitted.predict(names, list(judged), features[judge])
    place = fitted.places(names, learned)[0]
    apart = _out_of_fold(np.log(train), place, len(fitted.categories), features[learn], 0)[:, :-1]
    ends = np.exp(np.nanquantile(np.log(train) - apart, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    point = fitted.means.predict(*fitted.places(names, list(judged)), features[judge])
    pooled = Interval(np.exp(point) * ends[0], np.exp(point), np.exp(point) * ends[1])
    baseline = {f"{key}_pooled": value for key, value in coverage(pooled, test, judged).items()}
    return {**coverage(told, test, judged), **baseline}


def coverage(told: Interval, values: Floats, categories: NDArray[np.str_]) -> dict[str, float | None]:
    """Shares of (Q, M) values that are held: of all, of the worst model and of the worst category."""
    known = ~np.isnan(values)
    held = (told.low <= values) & (values <= told.high)
    by_model = [held[known[:, m], m].mean() for m in range(values.shape[1]) if known[:, m].sum() >= _JUDGED]
    of = [categories == name for name in np.unique(categories)]
    by_category = [held[one][known[one]].mean() for one in of if known[one].any(1).sum() >= _JUDGED]
    return {
        "coverage_marginal": float(held[known].mean()),
        "coverage_worst_model": float(min(by_model)) if by_model else None,
        "coverage_worst_category": float(min(by_category)) if by_category else None,
        "interval_ratio": float(np.exp(np.log(told.high / told.low)[known].mean())),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _out_of_fold(logs: Floats, category: Ints, count: int, features: Floats, seed: int) -> Floats:
    """(Q, M + 1): what is expected of every query by a fit that has not seen it."""
    told = np.full((len(logs), logs.shape[1] + 1), np.nan)
    order = np.random.default_rng(seed).permutation(len(logs))
    for part in np.array_split(order, min(_FOLDS, len(order))):
        rest = np.setdiff1d(order, part)
        means = additive.fit(logs[rest], category[rest], count, features[rest])
        told[part] = means.predict(category[part], np.arange(told.shape[1]), features[part])
    return told


def _as_new(logs: Floats, category: Ints, count: int, features: Floats) -> Floats:
    """(Q, M): what is expected of every query by a fit that has not seen its category; NaN if it is alone."""
    told = np.full(logs.shape, np.nan)
    for group in np.array_split(np.arange(count), min(_GROUPS, count)):
        out = np.isin(category, group)
        if out.all():
            continue
        means = additive.fit(logs[~out], category[~out], count, features[~out])
        nobody = np.full(int(out.sum()), count)
        told[out] = means.predict(nobody, np.arange(logs.shape[1]), features[out])
    return told


def _scales(residuals: Floats, category: Ints, count: int) -> Floats:
    """(C + 1, M + 1): the mean distance from what was expected, small cells drawn to model times category."""
    known = ~np.isnan(residuals)
    member = np.eye(count)[category]
    distances = member.T @ np.where(known, np.abs(residuals), 0.0)
    counts = member.T @ known
    whole = distances.sum() / counts.sum() + _TINY
    of_model = (distances.sum(0) + _SHRINK_SCALE * whole) / (counts.sum(0) + _SHRINK_SCALE)
    of_category = (distances.sum(1) + _SHRINK_SCALE * whole) / (counts.sum(1) + _SHRINK_SCALE)
    scales = np.append(of_category, whole)[:, None] * np.append(of_model, whole) / whole
    scales[:-1, :-1] = (distances + _SHRINK_SCALE * scales[:-1, :-1]) / (counts + _SHRINK_SCALE)
    return np.asarray(scales, dtype=np.float64)


def _quantiles(scores: Floats, category: Ints, count: int, tail: float) -> tuple[Floats, Floats]:
    """(C + 1, M + 1) lower and upper quantiles of scaled residuals, of histograms mixed with those above."""
    known = ~np.isnan(scores)
    edges = np.unique(np.quantile(scores[known], np.linspace(0, 1, _BINS + 1)))
    # All alike: an interval as narrow as nothing.
    edges = edges if len(edges) > 1 else np.array([edges[0] - _TINY, edges[0] + _TINY])
    queries, columns = np.nonzero(known)
    bins = np.clip(np.searchsorted(edges, scores[known], side="right") - 1, 0, len(edges) - 2)
    counts = np.zeros((count + 1, scores.shape[1] + 1, len(edges) - 1))
    np.add.at(counts, (category[queries], columns, bins), 1.0)
    whole = counts.sum((0, 1)) / counts.sum()
    of_model, of_category = counts.sum(0), counts.sum(1)
    # A category's outcomes come by the query: it is as small as its number of queries.
    size = np.bincount(category, minlength=count + 1)
    of_category *= (size / np.maximum(of_category.sum(1), 1))[:, None]
    above = _mixed(of_model, whole)[None] / 2 + _mixed(of_category, whole)[:, None] / 2
    below = np.cumsum(_mixed(counts, above), axis=2)
    return _at(below, edges, tail), _at(below, edges, 1 - tail)


def _mixed(counts: Floats, above: Floats) -> Floats:
    mixed: Floats = (counts + _SHRINK_QUANTILE * above) / (counts.sum(-1, keepdims=True) + _SHRINK_QUANTILE)
    return mixed


def _at(below: Floats, edges: Floats, share: float) -> Floats:
    """Return the value at which a distribution reaches a share, linear within a bin."""
    place = np.minimum((below < share).sum(2), below.shape[2] - 1)[:, :, None]
    end = np.take_along_axis(below, place, 2)
    start = np.where(place > 0, np.take_along_axis(below, np.maximum(place - 1, 0), 2), 0.0)
    part = np.clip((share - start) / np.maximum(end - start, 1e-12), 0, 1)
    return np.asarray((edges[place] + part * (edges[place + 1] - edges[place]))[:, :, 0], dtype=np.float64)


def _stretch(residuals: Floats, low: Floats, high: Floats, level: float) -> float:
    """Return the factor on the remaining variance at which intervals hold the residuals of unseen models."""
    # An end on the wrong side of the expected says nothing of how far to stretch.
    factors = np.where(
        residuals > 0, residuals / np.maximum(high, _TINY), residuals / np.minimum(low, -_TINY)
    )
    factors = factors[~np.isnan(factors)]
    return max(float(np.quantile(factors, level)) ** 2 - 1, 0.0) if len(factors) else 3.0


def _left(doubt: float, variance: float, counts: Ints) -> Floats:
    """The variance of an effect when so many outcomes are known of it: all of it for who is new."""
    return np.asarray(doubt * variance / (counts * doubt + variance), dtype=np.float64)
