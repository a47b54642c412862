"""Judge a stored checkpoint on outcomes that it never saw. Nothing is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from router.checkpoints import storage
from router.data import metrics, packing
from router.data.arrays import Floats, Ints
from router.data.outcomes import Calls
from router.evaluate.calls import costs
from router.evaluate.old_prices import POOL_PRICES, price_of
from router.evaluate.speed import judge_decisions
from router.statistics import choose, model, success
from router.statistics.choose import PricePair
from router.statistics.intervals import coverage, worst
from router.statistics.model import FittedModel
from schema.errors import Refused


def read(path: Path) -> FittedModel:
    """Read a Model that `packing.pack` wrote. Raise Refused if the file is none."""
    try:
        return packing.unpack(FittedModel, path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(
            "checkpoint_broken", f"{path} is no checkpoint: {error}; expected one that the router stored."
        ) from error


def write(
    path: Path, calls: Calls, table: Floats, listed: Callable[[str], PricePair | None] | None = None
) -> None:
    """Learn from all of `calls`, for `read`: from models with a price, where there are two, so that cost is
    weighed. Raises Refused where there is too little, or the file cannot be written."""
    prices = {name: price for name in calls.models if (price := price_of(name, listed=listed)) is not None}
    if len(prices) > 1:
        priced = np.flatnonzero([name in prices for name in calls.models])
        calls = calls.of_models(priced)
    try:
        learned, _ = model.fit(calls, table, prices=prices)
        content, _ = storage.pack(storage.of(learned))
        path.write_bytes(content)
    except ValueError as error:
        raise Refused("router_data_missing", f"nothing was learned for {path}: {error}") from error
    except OSError as error:
        raise Refused("file_unwritable", f"{path} cannot be written: {error}") from error


def judge_checkpoint(
    held: FittedModel,
    calls: Calls,
    table: Floats,
    prices: Mapping[str, PricePair] = POOL_PRICES,
    listed: Callable[[str], PricePair | None] | None = None,
) -> dict[str, float | None]:
    """The table's keys that a checkpoint has a say in, on all queries of `calls`.

    `table`: of `features.rows(calls.texts)`. The best single model is that of these outcomes, so in
    hindsight; models that the checkpoint never met are taken for typical."""
    usd, priced = costs(calls, prices, listed)
    pool = priced if len(priced) > 1 else np.arange(len(calls.models))
    names = [calls.models[m] for m in pool]
    ok, usd = calls.ok[:, pool], usd[:, pool]
    told = model.predict(held, table, calls.texts, list(calls.categories), names)
    new = success.places(calls.categories, held.success.categories) < 0
    found: dict[str, float | None] = {
        "models": float(len(calls.models)),
        "models_in_pool": float(len(pool)),
        "models_never_met": float(len(set(calls.models) - set(held.models))),
        "queries_judged": float(len(calls.queries)),
        "brier": metrics.brier(told.success, ok),
        "ece": metrics.ece(told.success, ok),
        "ece_unseen_category": metrics.ece(told.success[new], ok[new]) if new.any() else None,
    }
    each = [price_of(name, prices, listed) for name in names]
    expected = model.expected_usd(told.input_tokens, told.output_tokens, each)
    found |= _choices(held, names, ok, told.scores, usd, expected if len(priced) > 1 else None)
    covered: dict[str, float | None] = {}
    for name, interval, values in (
        ("seconds", told.seconds, calls.seconds),
        ("tokens", told.output_tokens, calls.output_tokens),
    ):
        if interval is not None and np.isfinite(values[:, pool]).any():
            reached = coverage(interval, values[:, pool], calls.categories)
            covered |= {f"{key}_{name}": value for key, value in reached.items()}
    return found | covered | worst(covered) | judge_decisions(held.success, calls, table)


def _choices(
    held: FittedModel, names: list[str], ok: Floats, predicted: Floats, usd: Floats, expected: Floats | None
) -> dict[str, float | None]:
    qualities = choose.qualities(ok)
    if np.isnan(qualities).all():
        return {}
    single = int(np.nanargmax(qualities))
    # Of an incumbent that cannot be chosen here, the likeliest takes the place.
    incumbent = names.index(held.incumbent) if held.incumbent in names else int(predicted.mean(0).argmax())
    free = np.zeros_like(predicted)
    choice = choose.choose(predicted, free, choose.ChoicePolicy(incumbent, held.margin))
    found: dict[str, float | None] = {
        "quality_minus_best_single": _gain(ok, choice, single),
        "quality_minus_incumbent": _gain(ok, choice, incumbent),
        "baseline_best_single_quality": float(qualities[single]),
    }
    if expected is None or np.isnan(qualities).any():
        return found
    usual = held.models[held.economy.incumbent]
    economy = choose.ChoicePolicy(
        names.index(usual) if usual in names else incumbent, held.economy.margin, held.economy.cost_weight
    )
    cheap = choose.choose(predicted, expected, economy)
    weak = int(usd.mean(0).argmin())
    both = np.isfinite(ok[:, [weak, single]]).all(1)
    return found | {
        "aiq": metrics.aiq(*choose.curve(predicted, expected, usd, ok, incumbent), float(usd.mean(0).max())),
        "cost_saved": 1 - float(choose.picked(usd, cheap).mean() / usd[:, single].mean()),
        "cost_saved_quality_minus_best_single": _gain(ok, cheap, single),
        "apgr": metrics.apgr(
            (predicted[:, single] - predicted[:, weak])[both], ok[both, weak], ok[both, single]
        ),
    }


def _gain(ok: Floats, choice: Ints, single: int) -> float | None:
    gain = choose.gain(ok, choice, single)
    return float(gain.mean()) if len(gain) else None
