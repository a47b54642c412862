"""The bandit, the breaker in it, and the steps of a rollout."""

import json

import numpy as np
import pytest

from router.data.outcomes import Calls
from router.evaluate.replays import judge_online
from router.rollout.stages import MIN_OUTCOMES, Evidence, Rollout, advance, roll_back
from router.statistics.bandit import Bandit, BanditConfig, effects, from_json
from router.statistics.offpolicy import PolicyValue

TRUTH = {"good": 0.9, "fair": 0.75, "poor": 0.5}


def _live(bandit: Bandit, steps: int, truth: dict[str, float], seed: int = 0) -> tuple[list[str], int]:
    """Who was chosen, and how many failed choices of "good" there were until it was taken out."""
    random = np.random.default_rng(seed)
    chosen, bad = [], 0
    for step in range(steps):
        choice = bandit.choose("simple", list(truth), f"{seed}/{step}")
        ok = bool(random.random() < truth[choice.model])
        bad += choice.model == "good" and not ok and "good" not in bandit.quarantined
        bandit.learn(choice.model, "simple", ok)
        chosen.append(choice.model)
    return chosen, bad


def test_it_comes_to_choose_the_best() -> None:
    bandit = Bandit(list(TRUTH))
    chosen, _ = _live(bandit, 800, TRUTH)
    assert chosen[-200:].count("good") > 150
    assert not bandit.quarantined
    assert bandit.expect("simple")[0][0] == pytest.approx(0.9, abs=0.03)


def test_chances_are_those_that_it_chooses_by() -> None:
    bandit = Bandit(list(TRUTH))
    _live(bandit, 60, TRUTH)
    drawn = [bandit.choose("simple", list(TRUTH), str(key)) for key in range(2000)]
    expected = np.mean([list(choice.chances.values()) for choice in drawn], axis=0)
    found = [np.mean([choice.model == name for choice in drawn]) for name in TRUTH]
    assert found == pytest.approx(expected, abs=0.03)
    assert all(min(choice.chances.values()) > 0 for choice in drawn)
    assert all(sum(choice.chances.values()) == pytest.approx(1) for choice in drawn)


def test_a_model_that_breaks_is_taken_out_soon_and_let_back_when_it_is_well() -> None:
    bandit = Bandit(list(TRUTH), settings=BanditConfig(rest=60, probe=0.05))
    _live(bandit, 500, TRUTH)
    chosen, bad = _live(bandit, 200, {**TRUTH, "good": 0.3}, seed=1)
    assert list(bandit.quarantined) == ["good"]
    assert bad <= 20
    assert chosen[-100:].count("good") <= 10
    chosen, _ = _live(bandit, 1200, TRUTH, seed=2)
    assert not bandit.quarantined
    assert chosen[-200:].count("good") > 150


def test_when_all_break_at_once_someone_is_still_chosen() -> None:
    bandit = Bandit(list(TRUTH))
    _live(bandit, 600, TRUTH)
    for step in range(200):
        bandit.learn(list(TRUTH)[step % 3], "simple", False)
    assert set(bandit.quarantined) == set(TRUTH)
    chances = bandit.choose("simple", list(TRUTH), "next").chances
    assert sum(chances.values()) == pytest.approx(1)


def test_a_state_goes_through_json_and_takes_in_a_new_model() -> None:
    bandit = Bandit(list(TRUTH))
    _live(bandit, 100, TRUTH)
    document = json.loads(json.dumps(bandit.to_json()))
    again = from_json(document)
    keys = [str(key) for key in range(50)]
    assert [again.choose("simple", list(TRUTH), key) for key in keys] == [
        bandit.choose("simple", list(TRUTH), key) for key in keys
    ]
    wider = from_json({**document, "models": [*TRUTH, "new"]})
    assert wider.choose("simple", ["new"], "key").chances == {"new": 1}
    # Nothing is known of it, so it gets its try.
    assert any(wider.choose("simple", [*TRUTH, "new"], key).model == "new" for key in keys)


def test_unknown_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="'other'"):
        Bandit(["good"]).choose("simple", ["good", "other"], "key")
    with pytest.raises(ValueError, match="each once"):
        Bandit(["good", "good"])


def test_what_is_known_of_a_model_reaches_a_category_where_it_was_never_tried() -> None:
    calls, right = np.array([[80.0, 0.0], [80.0, 40.0]]), np.array([[72.0, 0.0], [40.0, 12.0]])
    found = effects(calls, right)
    assert found.mean[0, 1] > found.mean[1, 1] + 0.1
    assert found.mean[0, 1] < found.mean[0, 0]
    assert found.sd[0, 1] > found.sd[0, 0]


def test_judged_on_known_outcomes_it_beats_chance_and_survives_a_break() -> None:
    random = np.random.default_rng(0)
    queries, truth = 200, np.array([0.9, 0.8, 0.6, 0.4])
    ok = (random.random((queries, 4)) < truth).astype(float)
    unknown = np.full_like(ok, np.nan)
    names = tuple(str(i) for i in range(queries))
    calls = Calls(
        names, names, np.array(["a", "b"] * 100), ("w", "x", "y", "z"), ok, unknown, unknown, unknown
    )
    judged = judge_online(calls, seeds=1, steps=1200)
    mean, rival, best = judged["online_mean"], judged["online_mean_random"], judged["online_best_single"]
    after, bad = judged["broken_model_next_500"], judged["broken_model_quarantined_after"]
    assert mean and rival and best and after and bad is not None
    assert best - 0.08 < mean and rival < mean - 0.1
    assert after > 0.7 and bad <= 30


def test_a_checkpoint_climbs_on_evidence_and_falls_on_harm() -> None:
    good = Evidence(MIN_OUTCOMES, PolicyValue(0.01, -0.005, 0.025))
    shared = advance(Rollout(), good)
    assert shared.state == "share"
    serves = advance(shared, good)
    assert serves.state == "all"
    assert advance(serves, good).state == "all"
    fallen = advance(serves, Evidence(50, PolicyValue(-0.05, -0.09, -0.01)))
    assert fallen.state == "rolled_back"
    assert advance(fallen, good) == fallen
    assert roll_back(shared, "by hand") == Rollout("rolled_back", 0, "by hand")


def test_a_checkpoint_waits_for_enough_evidence() -> None:
    unsure = Evidence(1000, PolicyValue(0.02, -0.03, 0.07))
    assert advance(Rollout(), unsure) == Rollout("shadow", 1000)
    assert advance(Rollout(), Evidence(50, PolicyValue(0.02, 0.01, 0.03))) == Rollout("shadow", 50)
    waiting = Evidence(1000, PolicyValue(0.02, 0.01, 0.03), quarantined=("good",))
    assert advance(Rollout("share"), waiting).state == "share"
    # In shadow nobody is harmed, so it may still become better.
    assert advance(Rollout(), Evidence(1000, PolicyValue(-0.05, -0.09, -0.01))).state == "shadow"
