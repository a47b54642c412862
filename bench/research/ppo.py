"""Policies that learn by trying: PPO (Schulman and others, 2017) with GAE, re-using what it tried lately.

Plain torch, imported when it is first used. A challenger: what serves is decided by router/rollout/stages.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MIN_SPREAD: Final = 1e-6


class Environment(Protocol):
    """What a policy acts in, one episode after the other."""

    @property
    def width(self) -> int:
        """Of an observation."""

    @property
    def actions(self) -> int: ...

    def reset(self, key: int) -> Floats:
        """Begin the episode of that key, the same one for the same key; what is seen first, (width,)."""

    def step(self, action: int) -> tuple[Floats, float, bool]:
        """(what is seen next, reward, whether the episode has ended)."""


@dataclass(frozen=True)
class PpoConfig:
    episodes: int = 10_240
    per_update: int = 512
    """Episodes between two updates."""
    hidden: int = 64
    rate: float = 3e-3
    """Of learning; falls to nothing towards the end."""
    discount: float = 1.0
    trace: float = 0.95
    """GAE's lambda: 0 trusts the value of the next state, 1 only what came."""
    clip: float = 0.2
    entropy: float = 0.01
    """Worth of an undecided policy, so that it goes on trying."""
    value_weight: float = 0.5
    epochs: int = 4
    batch: int = 512
    reuse: int = 2
    """So many times what is new is taken from what was tried before."""
    trust: float = 1.5
    """Old experience counts while the policy does the same within this factor."""


@dataclass(frozen=True)
class Experiences:
    """N steps, episodes one after the other and each to its end."""

    observation: Floats
    """(N, width)"""
    action: Ints
    log_chance: Floats
    """Of the action, by the policy that took it."""
    value: Floats
    """Expected then of what was left."""
    reward: Floats
    done: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if len(self.done) and not self.done[-1]:
            raise ValueError("found an episode without its end; expected whole episodes.")


Remember = Callable[[Experiences, int], None]
"""Takes what was tried, and the number of its first episode."""
Recall = Callable[[int], "Experiences | None"]
"""At most so many steps of what was tried last, whole episodes; None where nothing was."""


@dataclass(frozen=True)
class Policy:
    acts: Any
    """Module: (N, width) -> (N, actions), logits."""
    values: Any
    """Module: (N, width) -> (N, 1)."""

    def chances(self, observation: Floats) -> NDArray[np.float64]:
        """(N, actions), from (N, width)."""
        import torch

        with torch.inference_mode():
            found = self.acts(torch.from_numpy(observation)).softmax(1).double().numpy()
        return np.asarray(found / found.sum(1, keepdims=True))


def gae(reward: Floats, value: Floats, done: NDArray[np.bool_], discount: float, trace: float) -> Floats:
    """(N,) advantages (Schulman and others, 2016) of whole episodes that follow each other."""
    found = np.zeros_like(reward)
    later = after = 0.0
    for at in range(len(reward) - 1, -1, -1):
        if done[at]:
            later = after = 0.0
        error = reward[at] + discount * after - value[at]
        later = error + discount * trace * later
        found[at], after = later, value[at]
    return found


def train(
    environments: Sequence[Environment],
    settings: PpoConfig = PpoConfig(),
    seed: int = 0,
    remember: Remember | None = None,
    recall: Recall | None = None,
) -> tuple[Policy, list[float]]:
    """A policy, and the mean return of each round of episodes.

    The environments are equal and take turns, so that one forward serves them all. The same seed and the same
    memory give the same policy.
    """
    import torch

    random = np.random.default_rng(seed)
    policy = _begun(environments[0], settings, seed)
    parameters = [*policy.acts.parameters(), *policy.values.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=settings.rate)
    curve: list[float] = []
    for first in range(0, settings.episodes, settings.per_update):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (1 - first / settings.episodes)
        fresh = tried(policy, environments, range(first, first + settings.per_update), random)
        old = recall(settings.reuse * len(fresh.action)) if recall and settings.reuse else None
        update(policy, optimizer, fresh, old, settings, random)
        if remember:
            remember(fresh, first)
        curve.append(float(fresh.reward.sum() / fresh.done.sum()))
    return policy, curve


def tried(
    policy: Policy, environments: Sequence[Environment], keys: Sequence[int], random: np.random.Generator
) -> Experiences:
    """The episodes of those keys."""
    import torch

    episodes: list[Experiences] = []
    for start in range(0, len(keys), len(environments)):
        episodes += _together(policy, environments, keys[start : start + len(environments)], random, torch)
    return joined(episodes)


def _together(
    policy: Policy,
    environments: Sequence[Environment],
    keys: Sequence[int],
    random: np.random.Generator,
    torch: Any,
) -> list[Experiences]:
    seen = [environment.reset(key) for environment, key in zip(environments, keys, strict=False)]
    rows: list[list[tuple[Floats, int, float, float, float, bool]]] = [[] for _ in keys]
    open = list(range(len(keys)))
    while open:
        observed = np.stack([seen[at] for at in open])
        with torch.inference_mode():
            values = policy.values(torch.from_numpy(observed)).squeeze(1).numpy()
        chances = policy.chances(observed)
        drawn = (random.random(len(open))[:, None] > chances.cumsum(1)).sum(1)
        actions = np.minimum(drawn, chances.shape[1] - 1)
        still: list[int] = []
        for row, at in enumerate(open):
            action = int(actions[row])
            before, (seen[at], reward, done) = seen[at], environments[at].step(action)
            chance = float(np.log(max(chances[row, action], 1e-30)))
            rows[at].append((before, action, chance, float(values[row]), reward, done))
            if not done:
                still.append(at)
        open = still
    return [experiences(one) for one in rows]


def experiences(rows: Sequence[tuple[Any, ...]]) -> Experiences:
    """Of (observation, action, log_chance, value, reward, done)."""
    observation, action, log_chance, value, reward, done = zip(*rows, strict=True)
    return Experiences(
        np.array(observation, dtype=np.float32),
        np.array(action, dtype=np.int64),
        np.array(log_chance, dtype=np.float32),
        np.array(value, dtype=np.float32),
        np.array(reward, dtype=np.float32),
        np.array(done, dtype=np.bool_),
    )


def update(
    policy: Policy,
    optimizer: Any,
    fresh: Experiences,
    old: Experiences | None,
    settings: PpoConfig,
    random: np.random.Generator,
) -> None:
    """Learn from what was tried, and from what was before as far as the policy would still do it.

    The ratio of chances may go `clip` away from where it stands before the update (Queeney and others, 2021),
    which for fresh experience is PPO's own rule.
    """
    import torch

    whole = joined([fresh, old]) if old else fresh
    observed, action = torch.from_numpy(whole.observation), torch.from_numpy(whole.action)
    log_chance = torch.from_numpy(whole.log_chance)
    with torch.no_grad():
        values = policy.values(observed).squeeze(1)
        start = (_log_chances(policy, observed, action)[0] - log_chance).exp()
    # By what is expected today: then was another policy.
    advantage = torch.from_numpy(
        gae(whole.reward, values.numpy(), whole.done, settings.discount, settings.trace)
    )
    target = advantage + values
    trusted = torch.where((start <= settings.trust) & (start >= 1 / settings.trust))[0].numpy()
    known = advantage[trusted]
    advantage = (advantage - known.mean()) / (known.std() + _MIN_SPREAD)
    for _ in range(settings.epochs):
        order = random.permutation(trusted)
        for at in range(0, len(order), settings.batch):
            rows = torch.from_numpy(order[at : at + settings.batch])
            own, undecided = _log_chances(policy, observed[rows], action[rows])
            ratio = (own - log_chance[rows]).exp()
            near = torch.maximum(
                torch.minimum(ratio, start[rows] + settings.clip), start[rows] - settings.clip
            )
            gained = torch.minimum(ratio * advantage[rows], near * advantage[rows]).mean()
            wrong = (policy.values(observed[rows]).squeeze(1) - target[rows]).square().mean()
            loss = settings.value_weight * wrong - gained - settings.entropy * undecided.mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)
            optimizer.step()


def _log_chances(policy: Policy, observed: Any, action: Any) -> tuple[Any, Any]:
    """Of the actions, and each row's entropy."""
    every = policy.acts(observed).log_softmax(1)
    return every.gather(1, action.unsqueeze(1)).squeeze(1), -(every.exp() * every).sum(1)


def _begun(environment: Environment, settings: PpoConfig, seed: int) -> Policy:
    import torch
    from torch import nn

    def network(out: int) -> Any:
        layers = [nn.Linear(environment.width, settings.hidden), nn.Tanh()]
        layers += [nn.Linear(settings.hidden, settings.hidden), nn.Tanh()]
        last = nn.Linear(settings.hidden, out)
        # Every action is as likely as any other at first.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Policy(network(environment.actions), network(1))


def joined(parts: Sequence[Experiences]) -> Experiences:
    names = ("observation", "action", "log_chance", "value", "reward", "done")
    return Experiences(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def best(policy: Policy) -> Policy:
    """The same without chance: what is likeliest, always."""
    return replace(policy, acts=_Sharp(policy.acts))


@dataclass(frozen=True)
class _Sharp:
    acts: Any

    def __call__(self, observed: Any) -> Any:
        return self.acts(observed) * 1e6
