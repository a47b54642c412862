"""Who may watch from the shadow: judged on steps that were not learned from, where the truth is known."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from db.router.outcomes import OutcomeDecision, OutcomeRow
from router.checkpoints import storage
from router.checkpoints.storage import Checkpoint
from router.data import dataset, features
from router.data.arrays import Floats
from router.rollout import judge
from router.statistics import model, success
from tests.unit.router.test_dataset import NOW, row

PRICES = {"p/cheap": (0.1, 0.4), "p/strong": (5.0, 15.0)}
RATE = {("p/cheap", False): 0.95, ("p/strong", False): 0.95, ("p/cheap", True): 0.3, ("p/strong", True): 0.9}
HALF = {"p/cheap": 0.5, "p/strong": 0.5}


def embed(texts: Sequence[str]) -> Floats:
    """Rows that tell texts apart and nothing of what they mean: what is known comes from the category."""
    told = np.array([np.random.default_rng(len(text)).normal(size=success.MEANING) for text in texts])
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    return np.hstack([told, np.array([features.letters(text) for text in texts])])


def world(count: int, first: int = 0) -> list[OutcomeRow]:
    """The reviewer's steps are hard, the coder's easy; either model is asked by a coin."""
    random = np.random.default_rng(first)
    rows = []
    for n in range(first, first + count):
        hard, model = bool(random.random() < 0.5), ("p/cheap", "p/strong")[int(random.integers(2))]
        ok = float(random.random() < RATE[model, hard])
        decision = OutcomeDecision("rules-v1", model, 0.5, HALF, {}, NOW)
        rows.append(
            row(
                n,
                role="reviewer" if hard else "coder",
                task=f"case {n}",
                model=model,
                decision=decision,
                ok=ok,
                seconds=float(np.exp(random.normal(1, 0.3))),
                output_tokens=int(np.exp(random.normal(6, 0.3))),
            )
        )
    return rows


@pytest.fixture(scope="module")
def learned() -> Checkpoint:
    calls = dataset.to_calls(world(300))
    return storage.of(model.fit(calls, embed(calls.texts), 0, PRICES)[0])


def judged(learned: Checkpoint, rows: Sequence[OutcomeRow]) -> judge.EntryVerdict:
    return judge.judge(learned, rows, PRICES, NOW, NOW - timedelta(hours=2), embed)


def test_a_good_one_may_enter_and_its_figures_say_why(learned: Checkpoint) -> None:
    verdict = judged(learned, world(600, 1_000))
    figures = verdict.figures
    assert verdict.may_enter, verdict.reason
    assert "its choices against those that were made: +" in verdict.reason
    # A coin comes to 0.775, and who gives the hard ones to the strong model to 0.925, less what it explores.
    assert figures["value_logged"] == pytest.approx(0.775, abs=0.04)
    low, mean, high = figures["value"]
    assert low < 0.915 < high and mean == pytest.approx(0.915, abs=0.04)
    assert figures["gain_on_logged"][0] > 0.05
    assert figures["brier"] < 0.17 and figures["ece"] < 0.12
    assert 0.8 < figures["coverage_seconds"] <= 1
    assert (figures["held_out"], figures["logged"], figures["age_seconds"]) == (600, 600, 7_200)
    curve = verdict.curves["calibration"]
    assert sum(one["count"] for one in curve) == 600
    assert all(one["from"] <= one["predicted"] <= one["to"] for one in curve)
    points = {one["name"]: one for one in verdict.curves["cost_quality"]}
    assert points["p/strong"]["ok"] == pytest.approx(0.925, abs=0.05)
    assert points["p/cheap"]["usd"] < points["p/strong"]["usd"]
    assert any(one["ok"] > 0.87 and one["usd"] < 0.8 * points["p/strong"]["usd"] for one in points.values())


def test_judging_once_more_comes_to_the_same(learned: Checkpoint) -> None:
    rows = world(200, 5_000)
    assert judged(learned, rows) == judged(learned, rows)


def test_one_whose_choices_do_harm_is_refused(learned: Checkpoint) -> None:
    """It takes the cheap model for the strong one, and what it is judged on was chosen well."""
    swapped = replace(learned, models=learned.models[::-1], incumbent="p/cheap")
    strong = {"p/cheap": 0.05, "p/strong": 0.95}
    rows = [
        replace(one, decision=replace(one.decision, candidates=strong, propensity=strong[one.model]))
        for one in world(1_500, 9_000)
        if one.decision and (one.model == "p/strong" or int(one.id) % 19 == 0)
    ]
    verdict = judged(swapped, rows)
    assert not verdict.may_enter
    assert "its choices are worse than what was chosen: -" in verdict.reason


def test_one_that_knows_less_than_plain_rates_is_refused(learned: Checkpoint) -> None:
    stack = replace(learned.success.known, weights=-learned.success.known.weights)
    mad = replace(learned, success=replace(learned.success, known=stack))
    verdict = judged(mad, [replace(one, decision=None) for one in world(400, 20_000)])
    assert not verdict.may_enter
    assert "its chances are worse than plain rates: Brier" in verdict.reason
    assert "its chances are off by" in verdict.reason
    assert "gain_on_logged" not in verdict.figures


def test_one_whose_intervals_do_not_hold_is_refused(learned: Checkpoint) -> None:
    rows = [replace(one, seconds=(one.seconds or 0) * 4) for one in world(300, 30_000)]
    verdict = judged(learned, rows)
    assert not verdict.may_enter
    assert "its 90 % intervals of seconds hold" in verdict.reason


def test_too_few_to_judge_by_are_left_to_shadow(learned: Checkpoint) -> None:
    verdict = judged(learned, world(19, 40_000))
    assert verdict.may_enter
    assert verdict.reason == "only 19 outcomes were held out, of 20: shadow has to tell"


def test_without_decisions_by_chance_only_its_chances_are_judged(learned: Checkpoint) -> None:
    verdict = judged(learned, [replace(one, decision=None) for one in world(300, 50_000)])
    assert verdict.may_enter and "no decision was drawn by chance" in verdict.reason
    assert "cost_quality" not in verdict.curves
