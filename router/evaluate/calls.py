"""Judge the choice among models on real outcomes: targets 1 to 6 and 12 of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from router.data import features, metrics
from router.data.arrays import Floats, Ints
from router.data.outcomes import Calls, split
from router.evaluate import baselines
from router.evaluate.old_prices import POOL_PRICES, price_of
from router.statistics import choose, shrinkage, success
from router.statistics.choose import PricePair

MIN_QUERIES: Final = 30
"""Outcomes to learn from; of fewer nothing can be said."""
COLD_OUTCOMES: Final = 20
"""Outcomes that are known of a cold model."""


def judge_calls(
    calls: Calls,
    table: Floats | None = None,
    prices: Mapping[str, PricePair] = POOL_PRICES,
    seed: int = 0,
    listed: Callable[[str], PricePair | None] | None = None,
) -> dict[str, float | None]:
    """The table's keys, None for what the data cannot say.

    `table`: of `features.rows(calls.texts)`, where it is at hand; `prices`: US dollars for a million
    tokens in and out, by model; `listed`: asked for what these do not have."""
    dev, judged = split(calls.queries)
    known = np.isfinite(calls.ok)
    if known[dev].sum() < MIN_QUERIES or not known[judged].any():
        return {}
    # What nothing was learned of can be neither chosen nor judged.
    calls = calls.of_models(np.flatnonzero(known[dev].any(0)))
    table = features.rows(calls.texts) if table is None else table
    usd, priced = costs(calls, prices, listed)
    # A pool is what can be chosen among; difficulty is learned from all models.
    pool = priced if len(priced) > 1 else np.arange(len(calls.models))
    usd = usd[:, pool] if len(priced) > 1 else np.zeros((len(calls.ok), len(pool)))
    learned, seen = success.fit(table[dev], calls.categories[dev], calls.ok[dev], seed)
    predicted = learned.predict(table[judged], calls.categories[judged])
    category = success.places(calls.categories[dev], learned.categories)
    asked = success.places(calls.categories[judged], learned.categories)
    found: dict[str, float | None] = {
        "brier": metrics.brier(predicted[:, pool], calls.ok[judged][:, pool]),
        "ece": metrics.ece(predicted[:, pool], calls.ok[judged][:, pool]),
        "brier_all_models": metrics.brier(predicted, calls.ok[judged]),
        "ece_all_models": metrics.ece(predicted, calls.ok[judged]),
        "models": float(len(calls.models)),
        "models_in_pool": float(len(pool)),
        "queries_judged": float(len(judged)),
    }
    expected_dev, expected = _expected(usd[dev], category, category), _expected(usd[dev], category, asked)
    own = success.seen_scores(seen, calls.categories[dev], calls.ok[dev], seed)
    others = learned.scores(predicted, calls.categories[judged])
    found |= _choices(
        calls.ok[dev][:, pool],
        own[:, pool],
        expected_dev,
        usd[dev],
        calls.ok[judged][:, pool],
        others[:, pool],
        expected,
        usd[judged],
        len(priced) > 1,
    )
    bases = baselines.Pool(
        category, calls.ok[dev][:, pool], asked, calls.ok[judged][:, pool], usd[judged], expected
    )
    found |= {f"baseline_{key}": value for key, value in baselines.judge(bases, len(priced) > 1).items()}
    found |= unseen(calls, table, pool, seed) | cold(calls, table, dev, judged, seed)
    return found


def costs(
    calls: Calls, prices: Mapping[str, PricePair], listed: Callable[[str], PricePair | None] | None = None
) -> tuple[Floats, Ints]:
    """(Q, M) US dollars, and the places of models whose price and tokens are known.

    A call whose tokens were not counted is taken for the model's mean."""
    usd = np.full(calls.ok.shape, np.nan)
    for m, model in enumerate(calls.models):
        if (price := price_of(model, prices, listed)) is not None:
            usd[:, m] = (calls.input_tokens[:, m] * price[0] + calls.output_tokens[:, m] * price[1]) / 1e6
    counted = np.isfinite(usd).sum(0)
    usd = np.where(np.isfinite(usd), usd, np.nansum(usd, 0) / np.maximum(counted, 1))
    return usd, np.flatnonzero(counted > 0.5 * len(usd))


def _expected(usd: Floats, category: Ints, at: Ints) -> Floats:
    """(len(at), M): mean cost by category, with 10 calls' worth of the model's mean."""
    count = int(max(category.max(initial=0), at.max(initial=0))) + 1
    top = usd.mean(0)
    return np.vstack([shrinkage.levels(category, usd, np.tile(top, (count, 1)), 10.0, count), top])[at]


def _choices(
    ok: Floats,
    seen: Floats,
    expected_dev: Floats,
    usd_dev: Floats,
    judged: Floats,
    predicted: Floats,
    expected: Floats,
    usd: Floats,
    priced: bool,
) -> dict[str, float | None]:
    """Every choice (incumbent, margin, weight, pair) is made on the dev part."""
    policy = choose.tune_margin(seen, ok)
    single = policy.incumbent
    free = np.zeros_like(predicted)
    gain = choose.gain(judged, choose.choose(predicted, free, policy), single)
    argmax = choose.gain(judged, predicted.argmax(1), single)
    found: dict[str, float | None] = {
        **_told("quality_minus_best_single", gain),
        "quality_minus_best_single_in_hindsight": None,
        "argmax_minus_best_single": float(argmax.mean()) if len(argmax) else None,
        "margin": policy.margin,
        "aiq": None,
        "cost_saved": None,
        "apgr": None,
    }
    qualities = choose.qualities(judged)
    if len(gain):
        hindsight = float(gain.mean() + qualities[single] - np.nanmax(qualities))
        found["quality_minus_best_single_in_hindsight"] = hindsight
    if not priced or not len(gain) or np.isnan(qualities).any():
        return found
    dearest = float(usd.mean(0).max())
    cost, quality = choose.curve(predicted, expected, usd, judged, single)
    choice = choose.choose(predicted, expected, choose.tune_cost(seen, ok, expected_dev, policy))
    weak = int(usd_dev.mean(0).argmin())
    both = np.isfinite(judged[:, [weak, single]]).all(1)
    cheap, strong = judged[both, weak], judged[both, single]
    verified = np.where(cheap > 0.5, cheap, strong) - strong
    return (
        found
        | _told("cost_saved_quality", choose.gain(judged, choice, single), "_minus_best_single")
        | {
            "aiq": metrics.aiq(cost, quality, dearest),
            "cost_saved": 1 - float(choose.picked(usd, choice).mean() / usd[:, single].mean()),
            "cost_saved_best_weight": metrics.cost_saved(
                cost, quality, float(usd[:, single].mean()), float(qualities[single]) - 0.005
            ),
            "apgr": metrics.apgr((predicted[:, single] - predicted[:, weak])[both], cheap, strong),
            "perfect_verifier_after_cheapest_minus_best_single": float(verified.mean()),
        }
    )


def _told(name: str, gain: Floats, mean: str = "") -> dict[str, float | None]:
    """The mean of gains and the ends of its 95 % interval."""
    if not len(gain):
        return {f"{name}{mean}": None, f"{name}_low": None, f"{name}_high": None}
    low, high = metrics.interval(lambda drawn: float(gain[drawn].mean()), len(gain))
    return {f"{name}{mean}": float(gain.mean()), f"{name}_low": low, f"{name}_high": high}


def unseen(calls: Calls, table: Floats, pool: Ints, seed: int, groups: int = 12) -> dict[str, float | None]:
    """Each category in turn is kept from learning (in groups where there are many), then judged.

    `ece_unseen_category`: over all of those predictions; `..._each`: within each category, then their mean,
    which no calibration can lower where categories differ and texts do not tell. `unseen_flag_auroc`: novelty
    of a strange category's queries against that of new queries in known ones; `..._by_text`: without labels.
    """
    names = sorted(set(calls.categories.tolist()))
    if len(names) < 3:
        return {"ece_unseen_category": None, "ece_unseen_category_each": None, "unseen_flag_auroc": None}
    rng = np.random.default_rng(seed)
    predicted = np.full((len(calls.ok), len(pool)), np.nan)
    flags: list[Floats] = []
    strange: list[Floats] = []
    for left in np.array_split(rng.permutation(len(names)), min(groups, len(names))):
        out = np.isin(calls.categories, [names[k] for k in left])
        rest = np.flatnonzero(~out)
        known = rest[split([calls.queries[i] for i in rest])[0]]
        learned, _ = success.fit(table[known], calls.categories[known], calls.ok[known], seed)
        at, held = np.flatnonzero(out), np.setdiff1d(rest, known)
        told, novel = learned.told(table[at], calls.categories[at])
        predicted[at] = told[:, pool]
        flags += [novel, learned.told(table[held], calls.categories[held])[1]]
        strange += [np.ones(len(at)), np.zeros(len(held))]
    ok = calls.ok[:, pool]
    each = [
        (metrics.ece(predicted[at], ok[at]), len(at))
        for at in (np.flatnonzero(calls.categories == name) for name in names)
    ]
    return {
        "ece_unseen_category": metrics.ece(predicted, ok),
        "brier_unseen_category": metrics.brier(predicted, ok),
        "ece_unseen_category_each": sum(e * n for e, n in each) / sum(n for _, n in each),
        "unseen_flag_auroc": metrics.auroc(np.concatenate(flags), np.concatenate(strange) > 0),
        "unseen_flag_auroc_by_text": metrics.auroc(
            np.concatenate(flags) - np.concatenate(strange), np.concatenate(strange) > 0
        ),
    }


def cold(
    calls: Calls,
    table: Floats,
    dev: Ints,
    judged: Ints,
    seed: int,
    few: int = COLD_OUTCOMES,
    models: int = 30,
) -> dict[str, float | None]:
    """Models in turn are kept from learning, then known by `few` outcomes at queries learned from."""
    if len(calls.models) < 3:
        return {"cold_model_brier_at_20": None, "cold_model_ability_error_at_20": None}
    rng = np.random.default_rng(seed)
    errors: list[float] = []
    off: list[float] = []
    # Learning without each of many models is slow, and learning without three at once says the same.
    turn = rng.permutation(len(calls.models))
    for left in np.array_split(turn, max(3, min(20, len(turn) // 3))):
        others = np.setdiff1d(np.arange(len(turn)), left)
        learned, _ = success.fit(table[dev], calls.categories[dev], calls.ok[dev][:, others], seed)
        for model in left:
            outcomes = calls.ok[dev[learned.kept], model]
            asked = np.flatnonzero(np.isfinite(outcomes))
            for _ in range(3):
                few_ok = np.full(len(outcomes), np.nan)
                at = rng.permutation(asked)[:few]
                few_ok[at] = outcomes[at]
                with_it = success.with_model(learned, few_ok)
                p = with_it.predict(table[judged], calls.categories[judged])[:, -1]
                y = calls.ok[judged, model]
                errors.append(metrics.brier(p, y))
                off.append(abs(float(np.mean(p[np.isfinite(y)])) - float(np.nanmean(y))))
        if len(errors) >= 3 * models:
            break
    return {
        "cold_model_brier_at_20": float(np.nanmean(errors)),
        "cold_model_ability_error_at_20": float(np.nanmean(off)),
    }
