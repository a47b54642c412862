"""Edges that help are kept, others pruned, and changed ones come back; what messages come to."""

from uuid import UUID

import numpy as np
import pytest

from db.router.edges import EdgeTrial, State
from router.edges.topology import MARGIN, chance, decide, drawn, effect


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
