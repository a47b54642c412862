"""Judge a checkpoint before it may even watch: on steps of collaborations that it has not learned from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from db.router.decisions import RoutingDecision
from db.router.outcomes import OutcomeRow
from router.checkpoints.storage import Checkpoint
from router.data import features, metrics
from router.data.arrays import Floats, Ints
from router.data.dataset import Log, candidates_of, category_of, matrix, text_of, to_log
from router.data.logged_choices import LoggedChoices
from router.serve import decisions, predictions
from router.serve.decisions import LoadedCheckpoint
from router.serve.predictions import RoutingQuestion
from router.statistics import choose, offpolicy, success
from router.statistics.choose import PricePair
from router.statistics.intervals import Interval
from router.statistics.model import Predictions
from router.statistics.offpolicy import PolicyValue

MIN_JUDGED: Final = 20
"""Outcomes; with fewer, only what comes in shadow can tell."""
MAX_JUDGED: Final = 2_000
"""The newest: more make no verdict surer, and each decision is made once more."""
BINS: Final = 10
_COVERED: Final = 0.75
"""Least coverage of 90 % intervals: below it they mislead budgets and people."""
_MIN_COVERED: Final = 100
_WEIGHTS: Final = 12
"""Points of the curve of cost against quality."""

Embed = Callable[[Sequence[str]], Floats]
"""Texts to rows, as `features.rows` does."""


@dataclass(frozen=True)
class EntryVerdict:
    may_enter: bool
    """Shadow, where it decides nothing yet."""
    reason: str
    """In words."""
    figures: dict[str, Any]
    """None where there is no data for one."""
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """calibration: [{from, to, predicted, ok, count}]; cost_quality: [{name, usd, ok}]."""


def judge(
    learned: Checkpoint,
    held_out: Sequence[OutcomeRow],
    prices: Mapping[str, PricePair],
    now: datetime,
    until: datetime,
    embed: Embed = features.rows,
) -> EntryVerdict:
    """By Brier score and calibration beside plain rates, by the value of its choices beside the logged ones
    and the best single model, and by how many intervals hold. `until`: the end of what it learned from."""
    rows = list(held_out)[-MAX_JUDGED:]
    figures: dict[str, Any] = {
        "held_out": len(rows),
        "models": len(learned.models),
        "age_seconds": round((now - until).total_seconds()),
    }
    if len(rows) < MIN_JUDGED:
        reason = f"only {len(rows)} outcomes were held out, of {MIN_JUDGED}: shadow has to tell"
        return EntryVerdict(True, reason, figures)
    # Embedding is what takes time, and each of the three that follow looks at the same texts.
    known = _embedded([text_of(row) for row in rows], embed)
    told = Expectations.of(learned, rows, known)
    figures |= _probabilities(told) | _coverage(told)
    curves = {"calibration": calibration(told.p, told.ok)}
    log = to_log(rows)
    if log is not None:
        figures |= _values(learned, log, prices, known)
        curves["cost_quality"] = _cost_quality(learned, log, prices, known)
    faults = _faults(figures)
    if faults:
        return EntryVerdict(False, "; ".join(faults), figures, curves)
    return EntryVerdict(True, _praise(figures), figures, curves)


def _embedded(texts: Sequence[str], embed: Embed) -> Embed:
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    table = embed(list(place))
    return lambda some: table[[place[text] for text in some]]


@dataclass(frozen=True)
class Expectations:
    """Expected outcomes of N rows for the models that answered them."""

    rows: Sequence[OutcomeRow]
    p: Floats
    rates: Floats
    """(N,) chances, and plain shrunk rates of the model in the category, by the same outcomes."""
    ok: Floats
    intervals: dict[str, tuple[Floats, Floats, Floats]]
    """seconds, output_tokens → ((N,) low, high, actual); NaN where unknown."""

    @classmethod
    def of(cls, learned: Checkpoint, rows: Sequence[OutcomeRow], embed: Embed) -> Expectations:
        names = sorted({row.model for row in rows})
        own = np.array([names.index(row.model) for row in rows], dtype=np.int64)
        at = np.arange(len(rows))
        categories = [category_of(row) for row in rows]
        told = _predict(learned, [text_of(row) for row in rows], categories, names, embed)
        category = success.places(np.array(categories, dtype=np.str_), learned.success.categories)
        place = {name: j for j, name in enumerate(learned.models)}
        rates = learned.success.rates.at(category)
        plain = np.column_stack([rates, rates.mean(1)])[
            at, [place.get(row.model, len(learned.models)) for row in rows]
        ]

        def ends(interval: Interval | None, came: Sequence[float | None]) -> tuple[Floats, Floats, Floats]:
            values = np.array([value or np.nan for value in came], dtype=np.float64)
            if interval is None:
                return values * np.nan, values * np.nan, values
            return interval.low[at, own], interval.high[at, own], values

        return cls(
            rows,
            told.success[at, own],
            plain,
            np.array([row.ok for row in rows], dtype=np.float64),
            {
                "seconds": ends(told.seconds, [row.seconds for row in rows]),
                "output_tokens": ends(told.output_tokens, [row.output_tokens for row in rows]),
            },
        )


def _predict(
    learned: Checkpoint, texts: Sequence[str], categories: Sequence[str], names: Sequence[str], embed: Embed
) -> Predictions:
    asked = [RoutingQuestion(*one, tuple(names)) for one in zip(texts, categories, strict=True)]
    return predictions.ask(learned, asked, embed(texts), tuple(names), {}).predictions


def _probabilities(told: Expectations) -> dict[str, Any]:
    worse = (told.p - told.ok) ** 2 - (told.rates - told.ok) ** 2
    return {
        "brier": metrics.brier(told.p, told.ok),
        "brier_rates": metrics.brier(told.rates, told.ok),
        "brier_worse_sure": float(worse.mean() - 1.645 * worse.std() / np.sqrt(len(worse))),
        "ece": metrics.ece(told.p, told.ok, BINS),
        "ece_rates": metrics.ece(told.rates, told.ok, BINS),
    }


def _coverage(told: Expectations) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (low, high, came) in told.intervals.items():
        known = np.isfinite(low) & np.isfinite(came)
        held = (low[known] <= came[known]) & (came[known] <= high[known])
        found[f"coverage_{name}"] = float(held.mean()) if len(held) >= _MIN_COVERED else None
    return found


def policy(
    learned: Checkpoint, log: Log, prices: Mapping[str, PricePair], embed: Embed = features.rows
) -> Floats:
    """(N, M): the chances by which it would have chosen at each logged decision, as it would serve."""
    table = embed([text_of(row) for row in log.rows])
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, row in enumerate(log.rows):
        groups[tuple(candidates_of(row))].append(at)
    found: list[dict[str, float]] = [{} for _ in log.rows]
    serves = LoadedCheckpoint(0, "all", learned)
    for names, places in groups.items():
        rows = [log.rows[at] for at in places]
        asked = [RoutingQuestion(text_of(row), category_of(row), names) for row in rows]
        rules, keys = [_as_it_was(row) for row in rows], [""] * len(rows)
        decided = decisions.decide_all(asked, table[places], [serves], rules, (), prices, keys)
        for at, decision in zip(places, decided, strict=True):
            found[at] = decision.candidates
    return matrix(found, log.models)


def _as_it_was(row: OutcomeRow) -> RoutingDecision:
    """Return the decision as it was recorded; its first choice answers where nothing is known of the
    candidates."""
    assert row.decision is not None
    held = row.decision
    return RoutingDecision(held.chosen, held.propensity, held.policy, {}, held.candidates, fallback=False)


def _values(learned: Checkpoint, log: Log, prices: Mapping[str, PricePair], embed: Embed) -> dict[str, Any]:
    predicted = offpolicy.predict(log.logged)
    new, old = policy(learned, log, prices, embed), log.logged.chances
    best = (
        _single(log.logged, log.models.index(learned.incumbent)) if learned.incumbent in log.models else old
    )
    return {
        "logged": len(log.rows),
        "value_logged": float(log.logged.ok.mean()),
        "value": _shown(offpolicy.dr(log.logged, new, predicted)),
        "value_best_single": _shown(offpolicy.dr(log.logged, best, predicted)),
        "gain_on_logged": _shown(offpolicy.dr(log.logged, new - old, predicted)),
        "gain_on_best_single": _shown(offpolicy.dr(log.logged, new - best, predicted)),
    }


def _single(logged: LoggedChoices, place: int) -> Floats:
    """(N, M): always the one model, where it was a candidate; else as it was."""
    found = logged.chances.copy()
    asked = logged.chances[:, place] > 0
    found[asked] = np.eye(logged.chances.shape[1])[place]
    return found


def _shown(value: PolicyValue) -> list[float]:
    """[low, mean, high]"""
    return [value.low, value.mean, value.high]


def calibration(p: Floats, ok: Floats, bins: int = BINS) -> list[dict[str, Any]]:
    """Return predicted and observed success by equally wide bins. Empty bins are left out."""
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    return [
        {
            "from": k / bins,
            "to": (k + 1) / bins,
            "predicted": float(p[place == k].mean()),
            "ok": float(ok[place == k].mean()),
            "count": int((place == k).sum()),
        }
        for k in range(bins)
        if (place == k).any()
    ]


def _cost_quality(
    learned: Checkpoint, log: Log, prices: Mapping[str, PricePair], embed: Embed
) -> list[dict[str, Any]]:
    """Return the value of its choices at several cost weights, and of each model alone (doubly robust)."""
    rows, names = log.rows, log.models
    asked = [text_of(row) for row in rows], [category_of(row) for row in rows]
    told = _predict(learned, *asked, names, embed)
    if told.input_tokens is None or told.output_tokens is None or any(name not in prices for name in names):
        return []
    each = np.array([prices[name] for name in names]) / 1e6
    usd = told.input_tokens.expected * each[:, 0] + told.output_tokens.expected * each[:, 1]
    candidate = log.logged.chances > 0
    predicted = offpolicy.predict(log.logged)
    incumbent = (
        names.index(learned.incumbent) if learned.incumbent in names else int(candidate.sum(0).argmax())
    )
    every = choose.weights(usd)

    def point(name: str, choice: Ints) -> dict[str, Any]:
        taken = np.eye(len(names))[choice]
        taken = np.where(candidate[np.arange(len(rows)), choice][:, None], taken, log.logged.chances)
        value = offpolicy.dr(log.logged, taken, predicted)
        return {"name": name, "usd": float((taken * usd).sum(1).mean()), "ok": value.mean}

    # Who was no candidate is not to be chosen at any weight.
    likely = np.where(candidate, told.success, -1e9)
    found = [point(name, np.full(len(rows), j, dtype=np.int64)) for j, name in enumerate(names)]
    for weight in every[np.linspace(0, len(every) - 1, _WEIGHTS).astype(np.int64)]:
        chosen = choose.choose(likely, usd, choose.ChoicePolicy(incumbent, 0.0, float(weight)))
        found.append(point(f"router at {weight:.3g} a dollar", chosen))
    return found


def _faults(figures: Mapping[str, Any]) -> list[str]:
    found = []
    if figures["brier_worse_sure"] > 0:
        found.append(
            f"its chances are worse than plain rates: Brier {figures['brier']:.3f} against "
            f"{figures['brier_rates']:.3f}"
        )
    # Few outcomes look badly calibrated by bad luck alone.
    allowed = 0.05 + 1.5 * (BINS / 4 / figures["held_out"]) ** 0.5
    if figures["ece"] > max(allowed, figures["ece_rates"] + 0.03):
        found.append(
            f"its chances are off by {figures['ece']:.3f} on average; at most {allowed:.3f} is allowed"
        )
    for name in ("seconds", "output_tokens"):
        covered = figures[f"coverage_{name}"]
        if covered is not None and covered < _COVERED:
            found.append(
                f"its 90 % intervals of {name} hold {covered:.0%}; at least {_COVERED:.0%} is expected"
            )
    for against, name in (("logged", "what was chosen"), ("best_single", "always the best single model")):
        gain = figures.get(f"gain_on_{against}")
        if gain is not None and gain[2] < -offpolicy.WORSE:
            found.append(f"its choices are worse than {name}: {_words(gain)}")
    return found


def _praise(figures: Mapping[str, Any]) -> str:
    said = (
        f"Brier {figures['brier']:.3f} (plain rates {figures['brier_rates']:.3f}), ECE {figures['ece']:.3f}"
    )
    gain = figures.get("gain_on_logged")
    if gain is None:
        return f"{said}; no decision was drawn by chance, so shadow has to tell what its choices are worth"
    return f"{said}; its choices against those that were made: {_words(gain)}"


def _words(gain: Sequence[float]) -> str:
    return f"{gain[1]:+.3f} ({gain[0]:+.3f} to {gain[2]:+.3f})"
