"""PPO on small worlds with a known best, and the world of `python -m bench.research.compare_policies`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.research.chains import KINDS, MODELS, TASKS, Collaborations, expected
from bench.research.compare_policies import _fixed, interval, play
from bench.research.ppo import Experiences, Floats, PpoConfig, best, gae, joined, train, tried, update
from bench.research.replay_buffer import of_rows, rows_of
from infra.simulator.skills import domain_of
from router.data import task

SMALL = PpoConfig(episodes=3_000, per_update=200, hidden=16, rate=1e-2, batch=256)


class Corridor:
    """Which way is shown first and counts last: left or right, two steps later, behind a step that is a
    choice between waiting and giving up."""

    width, actions = 4, 2

    def reset(self, key: int) -> Floats:
        self._way = int(np.random.default_rng(key).integers(2))
        self._at = 0
        return self._seen()

    def step(self, action: int) -> tuple[Floats, float, bool]:
        self._at += 1
        if self._at == 1:
            return (self._seen(), 0.3, True) if action else (self._seen(), 0.0, False)
        return self._seen(), float(action == self._way), True

    def _seen(self) -> Floats:
        return np.array([self._way == 0, self._way == 1, self._at == 0, self._at == 1], dtype=np.float32)


class ExperienceList:
    def __init__(self) -> None:
        self.parts: list[Experiences] = []

    def remember(self, tried: Experiences, _first: int) -> None:
        self.parts.append(tried)

    def recall(self, steps: int) -> Experiences | None:
        return self.parts[-1] if self.parts else None


# -- advantages --------------------------------------------------------------------------------------------

_REWARD = np.array([1.0, 0.0, 2.0, -1.0, 0.5], dtype=np.float32)
_VALUE = np.array([0.5, 0.2, 1.0, 0.3, 0.7], dtype=np.float32)
_DONE = np.array([False, False, True, False, True])


def test_without_trace_an_advantage_is_the_error_of_one_step() -> None:
    following = np.array([0.2, 1.0, 0, 0.7, 0], dtype=np.float32)
    errors = _REWARD + 0.9 * following - _VALUE
    assert gae(_REWARD, _VALUE, _DONE, 0.9, 0.0) == pytest.approx(errors)


def test_with_the_whole_trace_it_is_what_came_less_what_was_expected() -> None:
    returns = np.array([1 + 0.9 * (0.9 * 2), 0.9 * 2, 2, -1 + 0.9 * 0.5, 0.5])
    assert gae(_REWARD, _VALUE, _DONE, 0.9, 1.0) == pytest.approx(returns - _VALUE)


def test_an_episode_tells_nothing_of_the_one_before() -> None:
    changed = _REWARD.copy()
    changed[3:] = 100
    before, after = (gae(one, _VALUE, _DONE, 0.9, 0.5) for one in (_REWARD, changed))
    assert (before[:3] == after[:3]).all() and (before[3:] != after[3:]).all()


# -- learning ----------------------------------------------------------------------------------------------


def _mean_return(policy_of: object, keys: range) -> float:
    found = tried(policy_of, [Corridor()], keys, np.random.default_rng(0))  # type: ignore[arg-type]
    return float(found.reward.sum() / len(keys))


def test_it_finds_what_is_best_behind_what_is_good() -> None:
    policy, curve = train([Corridor() for _ in range(50)], SMALL, seed=1)
    assert curve[0] < 0.5
    assert _mean_return(best(policy), range(50_000, 50_200)) > 0.95


def test_the_same_seed_learns_the_same_and_another_one_not() -> None:
    short = replace(SMALL, episodes=400)
    found = []
    for seed in (3, 3, 4):
        memory = ExperienceList()
        policy, curve = train([Corridor()] * 1, short, seed, memory.remember, memory.recall)
        found.append((curve, policy.acts[0].weight.detach().clone()))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


def _tried_once(seed: int = 0) -> tuple[object, torch.optim.Optimizer, Experiences]:
    policy, _ = train([Corridor()], replace(SMALL, episodes=200), seed)
    parameters = [*policy.acts.parameters(), *policy.values.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    return policy, optimizer, tried(policy, [Corridor()], range(100), np.random.default_rng(0))


def test_what_the_policy_would_hardly_do_any_more_is_not_learned_from() -> None:
    far = None
    for log_chance in (-30.0, 5.0):
        policy, optimizer, fresh = _tried_once()
        strange = replace(
            fresh, log_chance=np.full_like(fresh.log_chance, log_chance), reward=fresh.reward * -100
        )
        update(policy, optimizer, fresh, strange, SMALL, np.random.default_rng(1))  # type: ignore[arg-type]
        after = policy.acts[0].weight.detach().clone()  # type: ignore[attr-defined]
        assert far is None or torch.equal(far, after)
        far = after
    policy, optimizer, fresh = _tried_once()
    trusted = replace(fresh, reward=fresh.reward * -100)
    update(policy, optimizer, fresh, trusted, SMALL, np.random.default_rng(1))  # type: ignore[arg-type]
    assert far is not None and not torch.equal(far, policy.acts[0].weight)  # type: ignore[attr-defined]


def test_an_update_moves_no_further_than_the_clip_allows() -> None:
    policy, optimizer, fresh = _tried_once()
    many = replace(SMALL, epochs=40, entropy=0.0, clip=0.1)

    def chances() -> torch.Tensor:
        every = torch.from_numpy(policy.chances(fresh.observation))  # type: ignore[attr-defined]
        return every.gather(1, torch.from_numpy(fresh.action).unsqueeze(1)).squeeze(1)

    before = chances()
    update(policy, optimizer, fresh, None, many, np.random.default_rng(1))  # type: ignore[arg-type]
    ratio = chances() / before
    # Adam's momentum carries it a little over the edge, where nothing pulls any more.
    assert ratio.min() > 0.6 and ratio.max() < 1.4
    assert (ratio - 1).abs().max() > 0.01


# -- what is kept ------------------------------------------------------------------------------------------


def test_rows_of_the_buffer_hold_what_was_tried() -> None:
    found = tried(_tried_once()[0], [Corridor()], range(20), np.random.default_rng(0))  # type: ignore[arg-type]
    rows = rows_of(found, "run", 7)
    assert [row.turn for row in rows if row.done] == [
        row.turn for row, last in zip(rows, found.done, strict=True) if last
    ]
    assert len({row.episode for row in rows}) == 20
    again = of_rows(rows)
    assert again is not None
    for name in ("observation", "action", "log_chance", "value", "reward", "done"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert rows_of(found, "run", 7)[0].episode == rows[0].episode != rows_of(found, "other", 7)[0].episode
    assert of_rows([]) is None


def test_half_an_episode_is_refused() -> None:
    found = tried(_tried_once()[0], [Corridor()], range(5), np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole episodes"):
        replace(found, done=np.zeros_like(found.done))
    assert len(joined([found, found]).action) == 2 * len(found.action)


# -- the measured world ------------------------------------------------------------------------------------


def test_tasks_are_read_alike_by_the_rules_and_by_the_simulator() -> None:
    for kind, text in zip(KINDS, TASKS, strict=True):
        about = task.analyze_task(text)
        assert (about.domain, about.language, about.complexity) == kind
        assert domain_of(text) == kind[0]


def test_what_is_expected_is_what_comes_on_average() -> None:
    chain = ["qwen/qwen-2.5-coder", "deepseek/deepseek-chat", "anthropic/claude-3.5-sonnet"]
    came = play(_fixed(chain), range(4_000))
    mean = np.mean([expected(kind, chain) for kind in KINDS])
    assert came.reward.mean() == pytest.approx(mean, abs=0.01)
    assert came.quality.max() <= 0.97 and came.usd.min() > 0


def test_two_policies_meet_the_same_luck() -> None:
    chain = [MODELS[0], MODELS[1], MODELS[2]]
    first, again = (play(_fixed(chain), range(50)) for _ in range(2))
    assert (first.reward == again.reward).all()
    environment = Collaborations()
    seen = [environment.reset(7).tolist() for _ in range(2)]
    assert seen[0] == seen[1] and len(seen[0]) == environment.width


def test_it_beats_rules_and_chance_after_a_short_training() -> None:
    from bench.research.compare_policies import _learned, _random, _rules

    environments = [Collaborations() for _ in range(64)]
    policy, _ = train(environments, PpoConfig(episodes=2_560, per_update=256), seed=0)
    keys = range(1_000_000, 1_000_400)
    learned = play(_learned(policy, draws=False), keys).reward
    for other in (_rules, _random):
        low, _ = interval(learned - play(other, keys).reward)
        assert low > 0
