"""One forward for all agents that ask at the same time, and each gets its own row (S0-01, S0-05)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from router.data.outcomes import Floats
from router.network.adapter import NetworkPrediction, Neural, predict

Agent = TypeVar("Agent", bound=Hashable)


@dataclass(frozen=True)
class Asked:
    """What one agent's step looks like."""

    row: Floats
    """(D,): one of `features.rows`."""
    category: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One row of `NetworkPrediction`; (K,) of its own candidates where that has (N, K)."""

    success: Floats
    masters: Floats
    agents: Floats
    confidence: float
    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    order_sensitivity: float
    budget_tokens: int


@dataclass(frozen=True)
class BatchedAgentProcessor(Generic[Agent]):
    neural: Neural

    def process(self, asked: Mapping[Agent, Asked]) -> dict[Agent, Answer]:
        """Raises ValueError where an agent has no candidates."""
        if not asked:
            return {}
        rows, categories, candidates = prepare_input(list(asked.values()))
        return scatter_results(predict(self.neural, rows, categories, candidates), asked)


def prepare_input(asked: Sequence[Asked]) -> tuple[Floats, list[str], list[tuple[str, ...]]]:
    """((N, D) rows, categories, candidates) in the order of `asked`."""
    if any(not one.candidates for one in asked):
        raise ValueError("found an agent without candidates; expected at least one model for each.")
    rows = np.stack([one.row for one in asked])
    return rows, [one.category for one in asked], [one.candidates for one in asked]


def scatter_results(told: NetworkPrediction, asked: Mapping[Agent, Asked]) -> dict[Agent, Answer]:
    """Each agent's own row, without what fills it up to the most candidates."""
    return {
        agent: Answer(
            told.success[i, :k],
            told.masters[i],
            told.agents[i, :k],
            float(told.confidence[i]),
            told.seconds[i, :k],
            told.input_tokens[i, :k],
            told.output_tokens[i, :k],
            float(told.order_sensitivity[i]),
            int(told.budget_tokens[i]),
        )
        for i, (agent, one) in enumerate(asked.items())
        if (k := len(one.candidates))
    }
