"""Cheap first: whether a cheap model, a verifier and a strong one behind them beat asking one at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from db.router.decisions import RoutingDecision
from router.data.arrays import Floats
from router.serve import decisions
from router.statistics import choose

MIN_VERDICTS: Final = 30
"""Judged wrong and right answers each, before observations count as much as the defaults."""


@dataclass(frozen=True)
class Verifier:
    """Quality of a verifier: the shares of wrong and of right answers that it rejects."""

    catches: float = 0.7
    false_alarms: float = 0.1


USUAL: Final = Verifier()


@dataclass(frozen=True)
class ExpectedOutcome:
    """Expected success and cost of a model at a step."""

    ok: float
    """Chance of success."""
    usd: float


@dataclass(frozen=True)
class Cascade:
    """A cascade: the cheap model that answers first, the strong one behind the verifier, and the expected
    gain."""

    cheap: str
    strong: str
    ok: float
    usd: float
    gain: float
    """In utility, over the best single model."""
    verifier: Verifier

    def as_json(self) -> dict[str, Any]:
        """`features["verify"]` of a routing decision; activities read `cheap` and `strong`."""
        usd = float(f"{self.usd:.4g}")
        expected = {"ok": round(self.ok, 4), "usd": usd, "gain": round(self.gain, 4)}
        return {"cheap": self.cheap, "strong": self.strong, "expected": expected, **asdict(self.verifier)}


def plan(
    expected: Mapping[str, ExpectedOutcome],
    verify_usd: float,
    *,
    cost_weight: float,
    then: str | None = None,
    verifier: Verifier = USUAL,
) -> Cascade | None:
    """The best pair of a cheap and a strong model, if its utility beats every single model's.

    `expected`: of every candidate that may be chosen, and of `then`, the only strong one where it is given.
    `verify_usd`: of one verdict. `cost_weight`: the success that one US dollar is worth. None where asking
    one model is better, or there is nobody to ask instead.
    """
    names = [name for name in expected if name != then]
    strong_ones = names if then is None else [then]
    if not names or (then is not None and then not in expected):
        return None
    single = max(_utility(one, cost_weight) for one in expected.values())
    best: Cascade | None = None
    for strong in strong_ones:
        cheaper = [name for name in names if expected[name].usd < expected[strong].usd]
        if not cheaper:
            continue
        ok, usd = _of_pairs([expected[name] for name in cheaper], expected[strong], verify_usd, verifier)
        gain = ok - cost_weight * usd - single
        at = int(gain.argmax())
        if gain[at] > max(0.0, best.gain if best else 0.0):
            best = Cascade(cheaper[at], strong, float(ok[at]), float(usd[at]), float(gain[at]), verifier)
    return best


def by_price(usd: Mapping[str, float], preferred: str, then: str | None = None) -> dict[str, Any] | None:
    """The pair where nothing is learned yet: the cheapest candidate first; then `then`, or whom rules prefer,
    or the dearest where that is the cheapest. `usd`: of candidates with a price. None: there is no pair."""
    if not usd:
        return None
    cheap = min(usd, key=lambda name: (usd[name], name))
    dearest = max(usd, key=lambda name: (usd[name], name))
    strong = then or (preferred if preferred != cheap else dearest)
    return None if strong == cheap else {"cheap": cheap, "strong": strong, "expected": None}


def cheap_first(decision: RoutingDecision, pair: Mapping[str, Any]) -> RoutingDecision:
    """Return the decision with the pair's cheap model in place of the preferred one.

    The two change their chances, and the one that was drawn with them: each candidate still has the chance
    with which it is chosen. A model drawn beside them is asked outright, without a verifier."""
    preferred = max(decision.candidates, key=lambda name: decision.candidates[name])
    cheap: str = pair["cheap"]
    swap = {preferred: cheap, cheap: preferred}
    chosen = swap.get(decision.model, decision.model)
    candidates = {name: decision.candidates[swap.get(name, name)] for name in decision.candidates}
    features = dict(decision.features)
    about = features.get("predicted", {}).get(chosen)
    if about and features.get("checkpoint") is not None and chosen != decision.model:
        features["budget_tokens"] = decisions.budget(about["ok"], about["tokens"])
        features["confidence"] = decisions.confidence(about["ok"], about["doubt"])
    if chosen == cheap:
        features["verify"] = dict(pair)
        if about and pair["expected"]:
            features["confidence"] = decisions.confidence(pair["expected"]["ok"], about["doubt"])
    return replace(decision, model=chosen, candidates=candidates, features=features)


def seen(wrong: int, wrong_rejected: int, right: int, right_rejected: int) -> Verifier:
    """A verifier's quality from how its verdicts went against what the outcomes were told to be later, with
    the defaults counted as LEAST_VERDICTS answers of each kind. Raises ValueError for impossible counts."""
    if not (0 <= wrong_rejected <= wrong and 0 <= right_rejected <= right):
        raise ValueError(
            f"found {wrong_rejected} of {wrong} wrong and {right_rejected} of {right} right answers "
            "rejected; expected no more than there are."
        )
    n = MIN_VERDICTS
    return Verifier(
        (wrong_rejected + n * USUAL.catches) / (wrong + n),
        (right_rejected + n * USUAL.false_alarms) / (right + n),
    )


def _utility(one: ExpectedOutcome, cost_weight: float) -> float:
    return one.ok - cost_weight * one.usd


def _of_pairs(
    cheap: list[ExpectedOutcome], strong: ExpectedOutcome, verify_usd: float, verifier: Verifier
) -> tuple[Floats, Floats]:
    """(success, cost) of each cheap model before the strong one."""
    ok, usd = np.array([one.ok for one in cheap]), np.array([one.usd for one in cheap])
    return choose.cheap_then_verify(
        ok,
        where_rejected(ok, strong.ok, verifier),
        usd,
        np.full(len(cheap), strong.usd),
        verify_usd,
        verifier.catches,
        verifier.false_alarms,
    )


def where_rejected(cheap: Floats, strong: float, verifier: Verifier = USUAL) -> Floats:
    """(N,): the strong model's chance where cheap ones of the chances `cheap` (N,) were rejected: less than
    elsewhere, since it gets the harder steps."""
    failed, succeeded = 1 - cheap, cheap
    # Alike: whatever the cheap one can do the strong one can. Real pairs lie halfway between that and
    # independence: over 11,536 pairs of models within categories the mean error is -0.010, the mean
    # absolute one 0.042 (alike alone 0.104, independence alone 0.086).
    alike = np.clip((strong - cheap) / np.maximum(failed, 1e-9), 0.0, 1.0)
    after_failure = (strong + alike) / 2
    after_success = np.clip((strong - failed * after_failure) / np.maximum(succeeded, 1e-9), 0.0, 1.0)
    wrong, right = failed * verifier.catches, succeeded * verifier.false_alarms
    share = np.maximum(wrong + right, 1e-9)
    return np.asarray((wrong * after_failure + right * after_success) / share, dtype=np.float64)
