"""Judge from outcomes whether a checkpoint may move on, and which models suddenly fail. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from db.router.outcomes import OutcomeRow
from router.data.dataset import category_of, matrix, tells, to_log
from router.data.exploration import FLOOR, SHARE
from router.rollout.stages import Evidence, State
from router.statistics import offpolicy
from router.statistics.drift import Alarm

MIN_OUTCOMES: Final = 20
"""Outcomes of decisions, below which nothing is said of a checkpoint."""
RELIES: Final = 0.1
"""Mean chance above which a checkpoint relies on a model."""
_ODDS: Final = 0.4
_KNOWN: Final = 20
"""Outcomes of a model before its own rate says what is to be expected of it."""
_PRIOR: Final = 10.0
"""Outcomes' worth of a model's rate in all categories, in each."""
_RECENT: Final = 60
_FRESH: Final = timedelta(days=1)

Chances = dict[str, float]


def of_checkpoint(
    number: int, state: State, since: datetime, rows: Sequence[OutcomeRow], quarantined: Collection[str] = ()
) -> Evidence | None:
    """From decisions made since then whose end is known; None below LEAST of them.

    Compared is what it would have chosen, or chose, with what served beside it; the one that serves all is
    compared with rules. Its chances stand with each decision that it did not make alone."""
    taken: list[OutcomeRow] = []
    new: list[Chances] = []
    old: list[Chances] = []
    for row in rows:
        if row.decision is None or row.decision.at < since or not tells(row):
            continue
        both = _both(row, number, state)
        if both is not None:
            taken.append(row)
            new.append(both[0])
            old.append(both[1])
    log = to_log(taken) if len(taken) >= MIN_OUTCOMES else None
    if log is None:
        return None
    now, before = matrix(new, log.models), matrix(old, log.models)
    gain = offpolicy.dr(log.logged, now - before)
    leans = dict(zip(log.models, now.mean(0).tolist(), strict=True))
    out = tuple(sorted(name for name in quarantined if leans.get(name, 0.0) > RELIES))
    return Evidence(len(taken), gain, out)


def _both(row: OutcomeRow, number: int, state: State) -> tuple[Chances, Chances] | None:
    """(the checkpoint's chances, those of what served before) for one decision."""
    assert row.decision is not None
    drawn, held = row.decision.candidates, row.decision.features
    shadow: Mapping[str, Chances] = held.get("shadow") or {}
    own = shadow.get(str(number))
    if state == "all":
        # What served before is asked no more: rules are, with every decision.
        own = own or (drawn if held.get("checkpoint") == number else None)
        before = _by_rules(row)
    elif own and state == "share":
        before = _rest(drawn, own, SHARE)
    else:
        before = drawn
    return (own, before) if own and before else None


def _rest(mixed: Chances, part: Chances, share: float) -> Chances:
    """The other part of a mixture that holds `share` of this one."""
    left = {name: max(chance - share * part.get(name, 0.0), 0.0) for name, chance in mixed.items()}
    total = sum(left.values())
    return {name: chance / total for name, chance in left.items()}


def _by_rules(row: OutcomeRow) -> Chances | None:
    """As rules draw: whom they prefer, and a floor for the others."""
    assert row.decision is not None
    held = row.decision.features
    names = list(row.decision.candidates)
    preferred = (held.get("votes") or {}).get("rules")
    if preferred not in names:
        return None
    floor = min(FLOOR, 1 / len(names))
    return dict.fromkeys(names, floor) | {preferred: 1 - floor * (len(names) - 1)}


@dataclass(frozen=True)
class FailingModel:
    model: str
    reason: str


def broken_models(
    rows: Sequence[OutcomeRow], now: datetime, well_since: Mapping[str, datetime]
) -> list[FailingModel]:
    """Models that suddenly fail more than was expected of them, by name (CUSUM, `drift.Alarm`).

    `rows` in the order in which they ended; `well_since`: of a model that rested, when that was over, as what
    was before says nothing any more. An alarm that later outcomes have outlived is none."""
    of_model: dict[str, list[tuple[OutcomeRow, float]]] = defaultdict(list)
    tried: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.ok is None:
            continue
        chance = _expected(row, tried, right)
        if chance is not None:
            of_model[row.model].append((row, chance))
        for key in ((row.model, ""), (row.model, category_of(row))):
            tried[key] += 1
            right[key] += row.ok >= 0.5
    found = []
    for model in sorted(of_model):
        told = [one for one in of_model[model] if model not in well_since or one[0].at > well_since[model]]
        if reason := _alarmed(told, now):
            found.append(FailingModel(model, reason))
    return found


def _expected(
    row: OutcomeRow, tried: Mapping[tuple[str, str], int], right: Mapping[tuple[str, str], int]
) -> float | None:
    """The chance of success that was expected of the model, less a deviation: who is chosen was guessed too
    high more often than too low. None where too little was known."""
    predicted = (row.decision.features.get("predicted") or {}).get(row.model) if row.decision else None
    if predicted and predicted.get("ok") is not None:
        return float(predicted["ok"]) - float(predicted.get("doubt") or 0.0)
    n = tried[row.model, ""]
    if n < _KNOWN:
        return None
    overall = (right[row.model, ""] + 1) / (n + 2)
    key = row.model, category_of(row)
    rate = (right[key] + _PRIOR * overall) / (tried[key] + _PRIOR)
    return rate - float(np.sqrt(rate * (1 - rate) / (tried[key] + _PRIOR)))


def _alarmed(told: Sequence[tuple[OutcomeRow, float]], now: datetime) -> str | None:
    alarm = Alarm(_ODDS)
    last = began = None
    for place, (row, chance) in enumerate(told):
        start = alarm.since
        # Who is expected to fail mostly cannot be told from who broke.
        if alarm.see((row.ok or 0.0) >= 0.5, min(max(chance, 0.05), 0.98)):
            last, began = place, start
    if last is None or began is None or len(told) - last > _RECENT or told[-1][0].at < now - _FRESH:
        return None
    since = told[began : last + 1]
    came = sum((row.ok or 0.0) >= 0.5 for row, _ in since)
    expected = sum(chance for _, chance in since)
    return f"{came} of its last {len(since)} steps went well where {expected:.0f} were expected"
