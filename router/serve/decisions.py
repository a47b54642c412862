"""The decision for a step: by the serving checkpoint, its challenger and rules together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from db.router.decisions import RoutingDecision
from router.checkpoints.storage import Checkpoint
from router.data.arrays import Floats
from router.data.exploration import FLOOR, SHARE
from router.serve import predictions
from router.serve.predictions import EXPLORE, ExpectationCache, Opinion, RoutingQuestion, votes
from router.statistics import expectation
from router.statistics.choose import PricePair
from router.statistics.model import IntervalShifts
from schema.chance import draw, point

MAX_BUDGET: Final = 32_000
"""Tokens; a higher limit would be none."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that can be asked."""

    number: int
    state: Literal["shadow", "share", "all"]
    model: Checkpoint
    kept: ExpectationCache = field(default_factory=ExpectationCache, compare=False)
    moves: IntervalShifts | None = None


def decide_all(
    questions: Sequence[RoutingQuestion],
    rows: Floats | None,
    checkpoints: Sequence[LoadedCheckpoint],
    rules_choices: Sequence[RoutingDecision],
    quarantined: Collection[str],
    prices: Mapping[str, PricePair],
    keys: Sequence[str],
) -> list[RoutingDecision]:
    """Decide N questions with the same candidates, each by the serving checkpoint, its challenger or rules.

    `rows` (N, W) of `features.rows`, None if no checkpoint is asked; `rules_choices` were made among the
    candidates that are not quarantined. Chance is the hash of `keys`: the same arguments give the same
    decisions. Raises whatever a broken checkpoint raises.
    """
    names = tuple(dict.fromkeys(questions[0].candidates))
    assert all(one.candidates == questions[0].candidates for one in questions), "of the same candidates"
    out = quarantined_of(names, quarantined)
    asked = checkpoints if rows is not None else ()
    told = [
        one.kept.ask(one.model, questions, rows, names, prices, one.moves)
        for one in asked
        if rows is not None
    ]
    found = []
    for at, (rules_choice, key) in enumerate(zip(rules_choices, keys, strict=True)):
        said = [
            predictions.opinion(one.model, expected, at, rules_choice, out, one.kept.novel_above(one.model))
            for one, expected in zip(asked, told, strict=True)
        ]
        found.append(_decide(names, asked, said, rules_choice, out, key))
    return found


def _decide(
    names: tuple[str, ...],
    asked: Sequence[LoadedCheckpoint],
    said: Sequence[Opinion],
    rules_choice: RoutingDecision,
    out: Collection[str],
    key: str,
) -> RoutingDecision:
    said_by = dict(zip((one.number for one in asked), said, strict=True))
    serving = next((one for one in asked if one.state == "all"), None)
    challenger = next((one for one in asked if one.state != "all"), None)
    before = said_by[serving.number].chances if serving else _with_floors(rules_choice.candidates, names)
    decides, chances, drawn_from = serving, before, before
    if challenger is not None and challenger.state == "share":
        other = said_by[challenger.number].chances
        chances = {name: (1 - SHARE) * before[name] + SHARE * other[name] for name in names}
        if point(f"{key}/share") < SHARE:
            decides, drawn_from = challenger, other
    chosen = draw(drawn_from, key)
    # Of each whose chances were not just what was used, so that it can be judged by what comes of this.
    shadow = {str(number): one.chances for number, one in said_by.items() if one.chances is not chances}
    features = {**rules_choice.features, "checkpoint": decides.number if decides else None}
    if out:
        features["quarantined"] = sorted(out)
    if decides is not None:
        features |= _features(said_by[decides.number], chosen) | {"shadow": shadow}
    elif said:
        # Nobody is served by it yet, and what it expects is what it will be judged by.
        features |= {"shadow": shadow, "novelty": said[0].novelty, "predicted": said[0].predicted}
    features.setdefault("votes", votes(rules_choice, None, None))
    policy = f"checkpoint-{decides.number}" if decides else rules_choice.policy
    return RoutingDecision(chosen, chances[chosen], policy, features, chances, rules_choice.fallback)


def quarantined_of(candidates: Sequence[str], quarantined: Collection[str]) -> frozenset[str]:
    """Return the quarantined candidates. Empty if that would be all of them: then the fault is not one
    model's."""
    out = frozenset(candidates) & frozenset(quarantined)
    return frozenset() if len(out) == len(set(candidates)) else out


def _with_floors(chances: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Chances that some of the names have, with a little for the others: nobody has none."""
    missing = [name for name in names if name not in chances]
    if not missing:
        return dict(chances)
    little = min(FLOOR, EXPLORE / len(missing))
    left = 1 - little * len(missing)
    return {name: little if name in missing else chances[name] * left for name in names}


def _features(said: Opinion, chosen: str) -> dict[str, Any]:
    about = said.predicted[chosen]
    return {
        "votes": said.votes,
        "confidence": confidence(about["ok"], about["doubt"]),
        "novelty": said.novelty,
        "budget_tokens": budget(about["ok"], about["tokens"]),
        "predicted": said.predicted,
        **said.notes,
    }


def budget(ok: float, tokens: Sequence[float] | None) -> int | None:
    """The recommended limit of an answer (S4-04): the answer as expected and what is worth reasoning about
    it, and never below what nineteen of twenty answers take; None where no count of tokens is known."""
    if tokens is None:
        return None
    _, expected, high = tokens
    worth = expectation.reasoning_budget(np.array(expected), expectation.tolerated(np.array(1 - ok)))
    return min(round(max(high, expected + int(worth))), MAX_BUDGET)


def confidence(ok: float, doubt: float) -> float:
    """The chance of success of who was chosen, less what is not known of it."""
    return round(min(max(ok - doubt, 0.0), 1.0), 4)


def without(decision: RoutingDecision, reason: str, *, fallback: bool) -> RoutingDecision:
    """A decision without a checkpoint that is broken; `fallback`: it should have been the one to decide."""
    broken = decision.features | {"broken": reason}
    return replace(decision, features=broken, fallback=fallback or decision.fallback)
