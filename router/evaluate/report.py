"""The router's table on real outcomes: every figure beside that of a plainer way.

Whatever is learned is learned from seven tenths of a folder's queries, tasks or pull requests, by a hash of
their ids, and judged on the others. A stored checkpoint is judged on all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from router.data.outcomes import load
from router.statistics.choose import PricePair

ReportFigures = dict[str, float | None]

KEYS: Final = (
    "quality_minus_best_single",
    "aiq",
    "cost_saved",
    "apgr",
    "brier",
    "ece",
    "ece_unseen_category",
    "coverage_marginal",
    "coverage_worst_model",
    "coverage_worst_category",
    "known_task_after_1",
    "known_task_after_3",
    "cold_model_brier_at_20",
    "online_last_1000",
    "broken_model_next_500",
    "ope_rmse",
    "ope_coverage",
    "reviewer_pair_recall",
    "decision_p50_ms_cached",
    "decision_p50_ms_uncached",
    "batch_256x50_ms",
)
"""None where a folder has no data for it."""


def evaluate(
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    listed: Callable[[str], PricePair | None] | None = None,
    checkpoint: Path | None = None,
    *,
    network: bool = False,
    save: Path | None = None,
) -> ReportFigures:
    """Some minutes. Raises Refused where the folder holds nothing to judge on, or no checkpoint is read.

    `listed`: asked for the price of models that `POOL_PRICES` does not have. With a `checkpoint` nothing is
    learned: it is judged on all queries, and what it has no say in is None. `network`: also what a torch
    network would add, which takes minutes more. `save`: a checkpoint that was learned from all queries goes
    there."""
    from router.data import features
    from router.data.encoder import WIDTH
    from router.evaluate.calls import judge_calls
    from router.evaluate.checkpoint import judge_checkpoint, read, write
    from router.evaluate.known_tasks import judge_trials
    from router.evaluate.pairs import judge_reviews
    from router.evaluate.replays import judge_offpolicy, judge_online
    from router.evaluate.speed import judge_speed
    from router.statistics.intervals import judge_intervals

    held = read(checkpoint) if checkpoint else None
    outcomes = load(folder)
    found: ReportFigures = dict.fromkeys(KEYS)
    if held:
        if calls := outcomes.calls:
            say(f"reading {len(calls.queries):,} queries")
            found |= judge_checkpoint(held, calls, features.rows(calls.texts), listed=listed)
        return found
    if calls := outcomes.calls:
        say(f"reading {len(calls.queries):,} queries")
        rows = features.rows(calls.texts)
        if save:
            say(f"learning from all of them, for {save}")
            write(save, calls, rows, listed)
        say("choosing among models")
        found |= judge_calls(calls, rows, listed=listed)
        say("intervals")
        found |= judge_intervals(calls, rows[:, :WIDTH])
        say("learning online")
        found |= judge_online(calls)
        say("judging policies by what others logged")
        found |= judge_offpolicy(calls)
        say("speed")
        found |= judge_speed(calls, rows)
    if trials := outcomes.trials:
        say("agents on tasks")
        found |= judge_trials(trials)
    if reviews := outcomes.reviews:
        say("pairs of reviewers")
        found |= judge_reviews(reviews)
    if network and calls:
        from router.evaluate.network import judge_neural

        say("the network")
        found |= judge_neural(calls, rows)
    return found
