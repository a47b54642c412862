"""Predictions of one checkpoint for a step: preferred model, chances and expected outcomes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from db.router.decisions import RoutingDecision
from router.checkpoints.storage import Checkpoint
from router.data.arrays import Floats
from router.data.exploration import FLOOR
from router.data.outcomes import Bools
from router.network import adapter
from router.statistics import model, similarity
from router.statistics.choose import PricePair
from router.statistics.intervals import Interval
from router.statistics.model import IntervalShifts, Predictions

NOVEL: Final = 0.95
"""In a new category the incumbent does what is farther from all that is known than this share of what is
known is from the rest of it."""
EXPLORE: Final = 0.01
"""Shared by the candidates that are out of contention: with many models a floor for each costs points."""
CONTENDS: Final = 2.0
"""Standard deviations of doubt within which a candidate could still be the best."""
KEPT: Final = 512
"""Questions whose expectations a checkpoint keeps at hand."""


@dataclass(frozen=True)
class RoutingQuestion:
    """A step's question (`router/data/question.py`) and the candidates that may answer it."""

    text: str
    category: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Opinion:
    """A checkpoint's answer to one question."""

    chances: dict[str, float]
    """Chance of every candidate; none is 0, and they sum to 1."""
    preferred: str
    predicted: dict[str, dict[str, Any]]
    """model → ok, doubt, seconds, tokens, usd; an interval is [low, expected, high], null if not known."""
    novelty: float
    votes: dict[str, str | None]
    notes: dict[str, Any]
    """Facts that could not be weighed, and whether the step was too new."""


@dataclass(frozen=True)
class CheckpointPrediction:
    """Predictions of a checkpoint for N questions and K candidates."""

    names: tuple[str, ...]
    predictions: Predictions
    usd: Interval | None
    """(N, K) of a call; NaN for who has no price."""
    unpriced: list[str]
    remembered: Floats
    """(N, K) chances of success by memory of outcomes alone."""
    network: Floats | None
    """(N, K) by the network alone, where the checkpoint has one that tells something more."""
    order_sensitivity: Floats | None
    """(N,): how far the network's answer depends on the order of what was recalled."""


def ask(
    learned: Checkpoint,
    questions: Sequence[RoutingQuestion],
    rows: Floats,
    names: tuple[str, ...],
    prices: Mapping[str, PricePair],
    moves: IntervalShifts | None = None,
) -> CheckpointPrediction:
    categories = [one.category for one in questions]
    texts = [one.text for one in questions]
    predictions = model.predict(learned, rows, texts, categories, names, moves.of if moves else None)
    memory, said = predictions.success, None
    if learned.neural is not None and learned.neural_weight:
        said = adapter.predict(learned.neural, rows, categories, names)
        mixed = (1 - learned.neural_weight) * memory + learned.neural_weight * said.success
        predictions = replace(predictions, success=mixed, scores=predictions.scores + mixed - memory)
    if not np.isfinite(predictions.success).all():
        raise ValueError("found chances that are no numbers; expected 0 to 1. The checkpoint is broken.")
    return CheckpointPrediction(
        names,
        predictions,
        _usd(predictions, names, prices),
        [name for name in names if name not in prices],
        memory,
        said.success if said else None,
        said.order_sensitivity if said else None,
    )


def novel_above(learned: Checkpoint) -> float:
    """The novelty from which on nothing that was learned is like a step."""
    rows = learned.success.rows
    products = rows @ rows.T
    np.fill_diagonal(products, -1.0)
    return 1.0 + float(np.quantile(1.0 - similarity.nearness(products), NOVEL))


class ExpectationCache:
    """Cache of a checkpoint's predictions by question, which the items of a map and the rounds of a loop
    share.

    A hit takes a fifth of the time.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Any, ...], CheckpointPrediction] = OrderedDict()
        self._novel: float | None = None

    def novel_above(self, learned: Checkpoint) -> float:
        """As `novel_above`; takes a tenth of a second the first time."""
        if self._novel is None:
            self._novel = novel_above(learned)
        return self._novel

    def ask(
        self,
        learned: Checkpoint,
        questions: Sequence[RoutingQuestion],
        rows: Floats,
        names: tuple[str, ...],
        prices: Mapping[str, PricePair],
        moves: IntervalShifts | None = None,
    ) -> CheckpointPrediction:
        """As `ask`."""
        if len(questions) > 1:
            return ask(learned, questions, rows, names, prices, moves)
        key = (questions[0], names, tuple(prices.get(name) for name in names), moves and moves.until)
        # Threads ask too: the first that was kept goes first, as its place is never changed.
        if (told := self._told.get(key)) is None:
            told = self._told[key] = ask(learned, questions, rows, names, prices, moves)
            if len(self._told) > KEPT:
                self._told.popitem(last=False)
        return told


def opinion(
    learned: Checkpoint,
    told: CheckpointPrediction,
    at: int,
    rules_choice: RoutingDecision,
    out: Collection[str],
    novel: float,
) -> Opinion:
    """Success less cost, the incumbent kept for less than a margin, and a chance for who may be better.

    `novel`: the novelty from which on the incumbent is kept whatever is expected."""
    names, said = told.names, told.predictions
    notes: dict[str, Any] = {"unpriced": told.unpriced} if told.unpriced else {}
    novelty = float(said.novelty[at])
    policy = learned.economy
    utility = np.array(said.scores[at])
    may_lead = np.array([name not in out for name in names])
    if policy.cost_weight:
        notes["cost_weight"] = policy.cost_weight
        usd = np.full(len(names), np.nan) if told.usd is None else told.usd.expected[at]
        # A cost that is not known is not 0: who has none cannot be weighed, and so does not lead.
        if (priced := may_lead & np.isfinite(usd)).any():
            may_lead = priced
            utility = utility - policy.cost_weight * np.nan_to_num(usd)
        else:
            notes["cost"] = "not weighed: no price or no count of tokens is known"
    if policy.seconds_weight and said.seconds is not None:
        utility = utility - policy.seconds_weight * said.seconds.expected[at]
    incumbent = names.index(_incumbent(learned, names, may_lead, rules_choice))
    best = int(np.where(may_lead, utility, -np.inf).argmax())
    if novelty > novel:
        notes["novel"] = True
        best = incumbent
    elif utility[best] - utility[incumbent] <= policy.margin:
        best = incumbent
    contends = may_lead & (utility + CONTENDS * said.doubt[at] >= utility[best])
    memory = names[int(told.remembered[at].argmax())]
    network = None if told.network is None else names[int(told.network[at].argmax())]
    if told.order_sensitivity is not None:
        notes["order_sensitivity"] = round(float(told.order_sensitivity[at]), 4)
    return Opinion(
        _chances(names, best, contends),
        names[best],
        _predicted(told, at),
        round(novelty, 4),
        votes(rules_choice, memory, network),
        notes,
    )


def _incumbent(
    learned: Checkpoint, names: Sequence[str], may_lead: Bools, rules_choice: RoutingDecision
) -> str:
    """The best single one of those that may lead, as learned; whom rules prefer where none is known."""
    leads = [name for name, may in zip(names, may_lead, strict=True) if may]
    usual = learned.models[learned.economy.incumbent]
    if usual in leads:
        return usual
    rate = dict(zip(learned.models, learned.success.rates.overall.tolist(), strict=True))
    known = [name for name in leads if name in rate]
    if known:
        return max(known, key=lambda name: rate[name])
    return max(leads, key=lambda name: rules_choice.candidates.get(name, 0.0))


def _chances(names: Sequence[str], best: int, contends: Bools) -> dict[str, float]:
    """FLOOR for who is in contention, EXPLORE shared by the others, the rest for the preferred one."""
    second = np.array(contends)
    second[best] = False
    others = ~second
    others[best] = False
    chances = np.zeros(len(names))
    # With very many candidates the floors alone would add up to more than half.
    chances[second] = min(FLOOR, 0.5 / max(int(second.sum()), 1))
    chances[others] = min(FLOOR, EXPLORE / max(int(others.sum()), 1))
    chances[best] = 1 - chances.sum()
    return dict(zip(names, chances.tolist(), strict=True))


def _usd(told: Predictions, names: Sequence[str], prices: Mapping[str, PricePair]) -> Interval | None:
    if told.input_tokens is None or told.output_tokens is None:
        return None
    each = np.array([prices.get(name, (np.nan, np.nan)) for name in names]) / 1e6
    # What goes in is nearly known beforehand; how much comes out is not.
    return told.output_tokens.cost(each[:, 1], told.input_tokens.expected * each[:, 0])


def _predicted(told: CheckpointPrediction, at: int) -> dict[str, dict[str, Any]]:
    said = told.predictions
    return {
        name: {
            "ok": round(float(said.success[at, k]), 4),
            "doubt": round(float(said.doubt[at, k]), 4),
            "seconds": _ends(said.seconds, at, k),
            "tokens": _ends(said.output_tokens, at, k),
            "usd": _ends(told.usd, at, k),
        }
        for k, name in enumerate(told.names)
    }


def _ends(interval: Interval | None, at: int, k: int) -> list[float] | None:
    if interval is None or not np.isfinite(interval.expected[at, k]):
        return None
    return [float(f"{end[at, k]:.4g}") for end in (interval.low, interval.expected, interval.high)]


def votes(rules_choice: RoutingDecision, memory: str | None, neural: str | None) -> dict[str, str | None]:
    preferred = max(rules_choice.candidates, key=lambda name: rules_choice.candidates[name])
    return {"rules": preferred, "memory": memory, "neural": neural}
