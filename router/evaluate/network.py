"""Judge the network beside the serving model, on the split that the rest of the table uses."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np

from router.data import metrics
from router.data.arrays import Floats, Ints
from router.data.outcomes import Calls, split
from router.evaluate.calls import costs
from router.evaluate.old_prices import POOL_PRICES
from router.network import adapter
from router.statistics import choose, ensemble, shrinkage, success

Figures = dict[str, float | None]


def judge_neural(
    calls: Calls, rows: Floats, prices: Mapping[str, tuple[float, float]] = POOL_PRICES, seed: int = 0
) -> Figures:
    """`memory_…` is `router.statistics.success`, `neural_…` the network, `ensemble_…` both (`ensemble.py`).

    Of the models with a price, or of all where there are none; `…_all_models` of all. `neural_serves`, and
    the gain that decides it, come from what is learned from alone. `rows`: of `features.rows(calls.texts)`.
    """
    dev, judged = split(calls.queries)
    known, ok = calls.only(dev), calls.ok[judged]
    memory, seen_memory = success.fit(rows[dev], known.categories, known.ok, seed)
    # From the first epoch's end on: before it, torch is loaded.
    ends: list[float] = []
    learned, seen = adapter.fit(known, rows[dev], seed, lambda epoch, state, row: ends.append(perf_counter()))
    samples = (len(ends) - 1) * len(dev) * (1 - 1 / adapter.FOLDS)
    both = ensemble.fit(seen_memory, seen, known.ok, seed=seed)
    categories = calls.categories[judged]
    told = adapter.predict(learned, rows[judged], categories.tolist(), calls.models)
    of_memory = memory.predict(rows[judged], categories)
    views = {"memory": of_memory, "neural": told.success, "ensemble": both.predict(of_memory, told.success)}
    usd, priced = costs(calls, prices)
    pool = priced if len(priced) > 1 else np.arange(len(calls.models))
    found: Figures = {
        "neural_serves": float(both.serves),
        "neural_gain_on_dev": both.gain,
        "neural_gain_on_dev_low": both.low,
        "neural_gain_on_dev_high": both.high,
        "neural_samples_per_s": samples / (ends[-1] - ends[0]),
        "neural_order_sensitivity": float(told.order_sensitivity.mean()),
        "neural_confidence_auroc": _confidence(told, ok),
    }
    for name, p in views.items():
        found[f"{name}_brier"] = metrics.brier(p[:, pool], ok[:, pool])
        found[f"{name}_ece"] = metrics.ece(p[:, pool], ok[:, pool])
        found[f"{name}_brier_all_models"] = metrics.brier(p, ok)
        found[f"{name}_aiq"] = _aiq(p, usd, calls, pool, dev, judged) if len(priced) > 1 else None
    found |= _classified(told.success, ok)
    for name, values, truth in (
        ("seconds", told.seconds, calls.seconds),
        ("output_tokens", told.output_tokens, calls.output_tokens),
        ("input_tokens", told.input_tokens, calls.input_tokens),
    ):
        found |= _errors(f"neural_{name}", values, truth[judged])
    return found


def _aiq(p: Floats, usd: Floats, calls: Calls, pool: Ints, dev: Ints, judged: Ints) -> float:
    p, usd = p[:, pool], usd[:, pool]
    names = tuple(sorted(set(calls.categories[dev].tolist())))
    here, there = (success.places(calls.categories[at], names) for at in (dev, judged))
    # As `judge_calls` expects costs: by category, with 10 calls' worth of the model's mean.
    top = usd[dev].mean(0)
    by_category = shrinkage.levels(here, usd[dev], np.tile(top, (len(names), 1)), 10.0, len(names))
    expected = np.vstack([by_category, top])[there]
    ok = np.nan_to_num(calls.ok[judged][:, pool])
    cost, quality = choose.curve(p, expected, usd[judged], ok, 0)
    return metrics.aiq(cost, quality, float(usd[judged].mean(0).max()))


def _confidence(told: adapter.NetworkPrediction, ok: Floats) -> float:
    """Return how well confidence predicts that the network's first choice succeeds (area under the curve)."""
    chosen = choose.picked(ok, told.agents.argmax(1))
    known = np.isfinite(chosen)
    return metrics.auroc(told.confidence[known], chosen[known] > 0.5)


def _classified(p: Floats, ok: Floats) -> Figures:
    """Precision, recall and F1 of "it will succeed", where that is likelier than not."""
    known = np.isfinite(ok)
    said, came = p[known] > 0.5, ok[known] > 0.5
    hits = float((said & came).sum())
    precision, recall = hits / max(said.sum(), 1), hits / max(came.sum(), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"neural_precision": precision, "neural_recall": recall, "neural_f1": f1}


def _errors(name: str, told: Floats, truth: Floats) -> Figures:
    """In the value's own unit: the mean error, its root mean square; and the mean error of the log."""
    known = np.isfinite(truth)
    if not known.any():
        return dict.fromkeys((f"{name}_mae", f"{name}_rmse", f"{name}_log_mae"))
    off = told[known] - truth[known]
    return {
        f"{name}_mae": float(np.abs(off).mean()),
        f"{name}_rmse": float(np.sqrt((off**2).mean())),
        f"{name}_log_mae": float(np.abs(np.log(told[known] / truth[known])).mean()),
    }
