"""Edges that help are kept, others pruned, and changed ones come back; what messages come to."""

from itertools import product
from uuid import UUID

import numpy as np
import pytest

from db.router.edges import EdgeTrial, State
from router.edges.topology import MARGIN, chance, decide, drawn, effect
from router.influence import END, Behaviour, Floats, Influence, influence


class _World:
    """Runs of quality around 0.75, better by `helps` where the edge is used."""

    def __init__(self, seed: int, state: State = "kept") -> None:
        self.random = np.random.default_rng(seed)
        self.state = state
        self.trials: list[EdgeTrial] = []

    def run(self, number: int, helps: float, every: int = 50) -> State:
        """Look at the evidence every so many runs."""
        for at in range(number):
            likely = chance(self.state)
            delivered = bool(self.random.random() < likely)
            # One run in fifty fails.
            quality = self.random.normal(0.75 + helps * delivered, 0.12) * (self.random.random() > 0.02)
            self.trials.append(EdgeTrial(UUID(int=len(self.trials)), delivered, likely, float(quality)))
            if at % every == every - 1:
                self.state = decide(self.state, effect(self.trials[-2_000:]))
        return self.state


def test_edges_that_help_are_almost_never_pruned() -> None:
    assert [_World(seed).run(1_500, 0.1) for seed in range(20)] == ["kept"] * 20
    assert sum(_World(seed).run(1_500, 0.05) == "pruned" for seed in range(20)) <= 1


def test_edges_that_do_not_help_are_pruned() -> None:
    assert [_World(seed).run(2_000, -0.05) for seed in range(10)] == ["pruned"] * 10
    assert sum(_World(seed).run(4_000, 0.0) == "pruned" for seed in range(10)) >= 5


def test_one_that_begins_to_help_comes_back() -> None:
    worlds = [_World(seed, "pruned") for seed in range(5)]
    assert [world.run(600, -0.05) for world in worlds] == ["pruned"] * 5
    assert [world.run(2_000, 0.15) for world in worlds] == ["kept"] * 5


def test_nothing_is_said_after_a_few_runs_and_what_is_pinned_stays() -> None:
    random = np.random.default_rng(1)
    few = [EdgeTrial(UUID(int=at), at % 2 == 0, 0.5, float(random.random())) for at in range(38)]
    assert decide("kept", effect(few)) == "kept"
    bad = [EdgeTrial(UUID(int=at), at % 2 == 0, 0.5, 0.9 - 0.5 * (at % 2 == 0)) for at in range(200)]
    assert decide("kept", effect(bad)) == "pruned"
    assert decide("pinned", effect(bad)) == "pinned"


def test_without_one_side_nothing_is_known() -> None:
    found = effect([EdgeTrial(UUID(int=at), True, 0.95, 0.5) for at in range(100)])
    assert (found.value.low, found.value.high, found.runs, found.is_known) == (-1.0, 1.0, 100, False)


def test_good_times_are_not_taken_for_a_good_edge() -> None:
    random = np.random.default_rng(3)
    trials: list[EdgeTrial] = []
    # It was kept while all went well, and pruned when nothing did.
    for likely, level in ((0.95, 0.9), (0.05, 0.4)):
        for _ in range(1_000):
            delivered = bool(random.random() < likely)
            quality = float(random.normal(level, 0.05))
            trials.append(EdgeTrial(UUID(int=len(trials)), delivered, likely, quality))
    plain = [np.mean([one.quality for one in trials if one.delivered == side]) for side in (True, False)]
    assert plain[0] - plain[1] > 0.4
    found = effect(trials).value
    assert found.low < 0 < found.high and abs(found.mean) < 0.1


def test_nine_of_ten_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        world = _World(seed)
        world.run(600, 0.05, every=1_000)
        value = effect(world.trials).value
        # A failed run has no gain from the edge.
        held += value.low <= 0.05 * 0.98 <= value.high
    assert 0.84 <= held / 200 <= 0.97


def test_trials_of_one_run_are_one_observation() -> None:
    random = np.random.default_rng(5)
    apart = [EdgeTrial(UUID(int=at), at % 2 == 0, 0.5, float(random.random())) for at in range(400)]
    together = [EdgeTrial(UUID(int=at // 8), one.delivered, 0.5, one.quality) for at, one in enumerate(apart)]
    same = [EdgeTrial(UUID(int=at % 50), at % 50 < 25, 0.5, apart[at % 50].quality) for at in range(400)]
    assert effect(together).value.mean == effect(apart).value.mean
    once, eightfold = effect(same[:50]).value, effect(same).value
    assert eightfold.high - eightfold.low == pytest.approx(once.high - once.low, rel=0.02)


def test_the_same_key_draws_the_same_and_keys_in_the_given_share() -> None:
    keys = [f"run-{at}/review/code" for at in range(5_000)]
    drawings = [drawn(key, chance("kept")) for key in keys]
    assert drawings == [drawn(key, chance("kept")) for key in keys]
    assert np.mean(drawings) == pytest.approx(0.95, abs=0.01)
    # Who is told by a small chance is told by a larger one too.
    assert all(drawn(key, 0.95) for key in keys if drawn(key, 0.05))
    assert chance("pinned") == 1 and 0 < MARGIN < 0.05


# -- influence ---------------------------------------------------------------------------------------------

_LOGS = np.array([[0.5, 0.5], [0.5, 0.5]])
_BASE = np.array([[0.9, 0.1], [0.5, 0.5]])
_TOLD = np.array([[0.2, 0.8], [0.5, 0.5]])


def _log(seed: int, episodes: int = 400, policy: Floats = _LOGS) -> Behaviour:
    """From state 0 the first action ends for a reward of 0.2; the second goes to state 1, where the first
    pays 1 and ends, and the second mostly stays."""
    random = np.random.default_rng(seed)
    rows = []
    for episode in range(episodes):
        state = 0
        while state != END:
            action = int(random.random() < policy[state, 1])
            reward, following = 0.0, 1
            if action == 0:
                reward, following = float(random.random() < (0.2, 1.0)[state]), END
            elif state == 1 and random.random() < 0.3:
                following = END
            rows.append((episode, state, action, reward, following))
            state = following
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Behaviour(columns[0], columns[1], columns[2], columns[3].astype(float), columns[4])


def _true(policy: Floats) -> float:
    """State 1 is worth v = 0.5 + 0.5 * 0.7 v."""
    return float(policy[0, 0] * 0.2 + policy[0, 1] * 0.5 / 0.65)


def test_equal_policies_have_no_influence() -> None:
    found = influence(_log(1), _TOLD, _TOLD)
    assert found == Influence(type(found.reward)(0.0, 0.0, 0.0), 0.0)


def test_nine_of_ten_intervals_hold_the_known_influence() -> None:
    true = _true(_TOLD) - _true(_BASE)
    found = [influence(_log(seed), _BASE, _TOLD).reward for seed in range(40)]
    assert np.mean([one.mean for one in found]) == pytest.approx(true, abs=0.03)
    assert 0.8 <= np.mean([one.low <= true <= one.high for one in found]) <= 1


def test_the_direction_counts_and_so_does_what_is_done() -> None:
    log = _log(2)
    there, back = influence(log, _BASE, _TOLD), influence(log, _TOLD, _BASE)
    assert there.reward.mean == pytest.approx(-back.reward.mean)
    # In state 0, which every episode meets once, 0.7 of the actions differ; in state 1 none.
    visits = 1 + 0.8 / 0.65
    assert there.behaviour == pytest.approx(0.7 / visits, abs=0.03)


def test_much_may_change_in_what_is_done_and_nothing_in_what_comes_of_it() -> None:
    log = _log(3)
    indifferent = Behaviour(log.episode, log.state, log.action, np.zeros(len(log.action)), log.following)
    found = influence(indifferent, _BASE, _TOLD)
    assert found.reward.mean == 0 and found.behaviour > 0.2


def test_what_the_log_never_shows_cannot_be_judged() -> None:
    log = _log(4, policy=np.array([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="never shows"):
        influence(log, np.array([[1.0, 0.0], [1.0, 0.0]]), _TOLD)


def test_episodes_without_end_need_a_discount() -> None:
    states = np.zeros(10, dtype=np.int64)
    log = Behaviour(states, states, states, np.ones(10), states)
    policy = np.ones((1, 1))
    with pytest.raises(ValueError, match="expected an end"):
        influence(log, policy, policy)
    assert influence(log, policy, policy, discount=0.9).reward.mean == 0


def test_the_value_of_the_logging_policy_is_the_logs_own_mean() -> None:
    log = _log(6)
    counts = np.zeros((2, 2))
    for state, action in product(range(2), range(2)):
        counts[state, action] = ((log.state == state) & (log.action == action)).sum()
    own = counts / counts.sum(1, keepdims=True)
    never = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = influence(log, never, own).reward.mean
    ended = log.reward[(log.state == 0) & (log.action == 0)].mean()
    assert found == pytest.approx(log.reward.sum() / 400 - ended)
