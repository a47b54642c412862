"""Measure the time of a decision: text or cached row in, model out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from router.data import features
from router.data.outcomes import Calls
from router.evaluate.calls import MIN_QUERIES
from router.statistics import choose
from router.statistics.success import Success, fit, only_models, with_model

AGENTS: Final = 50
AT_ONCE: Final = 256
REPEATS: Final = 200


def judge_speed(calls: Calls, rows: np.typing.NDArray[np.float64]) -> dict[str, float | None]:
    """Milliseconds of this process's time; the cores should have nothing else to do."""
    if np.isfinite(calls.ok).sum() < MIN_QUERIES:
        return {}
    return judge_decisions(fit(rows, calls.categories, calls.ok)[0], calls, rows)


def judge_decisions(
    learned: Success, calls: Calls, rows: np.typing.NDArray[np.float64]
) -> dict[str, float | None]:
    policy = choose.ChoicePolicy(incumbent=0, margin=0.02)

    def decide(some: np.typing.NDArray[np.float64], categories: np.typing.NDArray[np.str_]) -> None:
        score = learned.scores(learned.predict(some, categories), categories)
        choose.choose(score, np.zeros_like(score), policy)

    def cached(number: int) -> None:
        at = slice(number % len(rows), number % len(rows) + 1)
        decide(rows[at], calls.categories[at])

    def uncached(number: int) -> None:
        at = number % len(rows)
        decide(features.rows([f"{calls.texts[at]} {number}"]), calls.categories[at : at + 1])

    places = np.arange(AT_ONCE) % len(rows)
    # Some agents' outcomes are told of twice where there are fewer: as many numbers are looked at.
    wide = learned
    for agent in range(len(learned.means) - 1, AGENTS):
        wide = with_model(wide, learned.rest[:, agent % learned.rest.shape[1]])
    wide = only_models(wide, np.arange(AGENTS))
    hot = _times(cached, REPEATS)
    cold = _times(uncached, REPEATS // 2)
    batch = _times(lambda _: wide.predict(rows[places], calls.categories[places]), 10)
    return {
        "decision_p50_ms_cached": _at(hot, 50),
        "decision_p99_ms_cached": _at(hot, 99),
        "decision_p50_ms_uncached": _at(cold, 50),
        "decision_p99_ms_uncached": _at(cold, 99),
        "batch_256x50_ms": _at(batch, 50),
    }


def _times(work: Callable[[int], object], repeats: int) -> list[float]:
    for number in range(3):
        work(number)
    found = []
    for number in range(repeats):
        began = time.perf_counter()
        work(number)
        found.append((time.perf_counter() - began) * 1000)
    return found


def _at(times: list[float], percent: float) -> float:
    return float(np.percentile(times, percent))
