"""Agents of known ability at tasks of known difficulty."""

import numpy as np
import pytest

from router.data.arrays import Floats
from router.data.outcomes import AgentTrials
from router.evaluate.known_tasks import fit, judge_trials, tuned

AGENTS = 8


def _chances(tasks: int, seed: int, liking: float = 1.0) -> Floats:
    """(A, J): Rasch, and an own liking of each agent for each task."""
    rng = np.random.default_rng(seed)
    ability = np.linspace(-0.7, 0.7, AGENTS)[:, None]
    taste = liking * rng.normal(size=(AGENTS, tasks))
    chances: Floats = 1 / (1 + np.exp(-ability - 2 * rng.normal(size=tasks) - taste))
    return chances


def _counts(chances: Floats, trials: int, seed: int) -> tuple[Floats, Floats]:
    done = np.random.default_rng(seed).binomial(trials, chances).astype(np.float64)
    return np.full(chances.shape, float(trials)), done


def test_trials_of_others_and_of_its_own_make_the_prediction_better() -> None:
    skills = tuned(*_counts(_chances(80, 0), 5, 1))
    chances = _chances(400, 2)
    tried, done = _counts(chances, 1, 3)
    others = np.arange(AGENTS)[:, None] > 0

    def error(tried: Floats, done: Floats) -> float:
        return float(((skills.predict(tried, done) - chances)[0] ** 2).mean())

    none = error(np.zeros_like(tried), np.zeros_like(done))
    of_others = error(tried * others, done * others)
    assert of_others < 0.6 * none
    assert error(tried, done) < 0.9 * of_others


def test_without_trials_the_ablest_is_chosen_and_many_own_trials_outweigh_the_rest() -> None:
    skills = fit(*_counts(_chances(80, 0), 5, 1))
    nothing = np.zeros((AGENTS, 1))
    told = skills.predict(nothing, nothing)
    assert told[:, 0].argmax() >= AGENTS - 2
    tried, done = nothing.copy(), nothing.copy()
    tried[0], done[0] = 40.0, 38.0
    assert skills.predict(tried, done)[0, 0] == pytest.approx(0.95, abs=0.05)


def test_agents_of_a_kind_tell_more_of_each_other() -> None:
    rng = np.random.default_rng(4)
    # Two kinds: what one does says nothing of the other.
    liked = rng.random((2, 120)) < 0.5
    chances = np.where(liked[np.repeat([0, 1], 4)], 0.9, 0.1)
    skills = fit(*_counts(chances, 3, 5))
    tried, done = np.zeros((AGENTS, 1)), np.zeros((AGENTS, 1))
    tried[1], done[1] = 1.0, 1.0
    told = skills.predict(tried, done)[:, 0]
    assert told[[0, 2, 3]].min() > told[4:].max() + 0.1


def test_judged_on_trials_that_were_not_shown() -> None:
    chances = _chances(30, 6, liking=3.0)
    agent, task, _ = (place.ravel() for place in np.indices((AGENTS, 30, 5)))
    ok = (np.random.default_rng(7).random(len(agent)) < chances[agent, task]).astype(np.float64)
    names = tuple(f"t{i}" for i in range(30))
    trials = AgentTrials(tuple("abcdefgh"), names, names, agent, task, ok, np.full(len(ok), np.nan))
    told = judge_trials(trials)
    known = {name: value for name, value in told.items() if value is not None}
    assert known == told
    assert known["known_task_after_1"] > known["known_task_after_1_best_single"] + 0.1
    assert known["known_task_after_3"] > known["known_task_after_1"]
    # Nobody can do better than to know every chance.
    assert known["known_task_after_3"] <= chances.max(0).mean() + 0.05
    assert known["known_task_after_1_brier"] < known["new_task_brier"] - 0.05


def test_one_task_and_one_agent_are_taken() -> None:
    nothing = np.zeros(0)
    trials = AgentTrials(("a",), ("t",), ("",), nothing.astype(int), nothing.astype(int), nothing, nothing)
    assert judge_trials(trials).get("known_task_after_1") is None
    told = tuned(np.ones((1, 1)), np.ones((1, 1))).predict(np.zeros((1, 1)), np.zeros((1, 1)))
    assert 0.5 < told[0, 0] < 1
