"""What one agent's messages change about another: what it does, and what comes of it (S0-06).

By ratios of how often two policies meet a state and an action to how often the log does (DICE; Nachum and
others, 2019), which for tables have a closed form. Not by how far two distributions are apart: a message may
change much of what an agent does, and nothing of what comes of it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.statistics.offpolicy import Value

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DRAWS: Final = 200
"""Of the bootstrap: the ends of a 90 % interval move by a tenth of its width from seed to seed."""
END: Final = -1


@dataclass(frozen=True)
class Behaviour:
    """N actions of an agent, in the order of time within each episode."""

    episode: Ints
    """(N,) which one, from 0."""
    state: Ints
    """(N,) what the agent saw, from 0."""
    action: Ints
    """(N,) from 0."""
    reward: Floats
    """(N,)"""
    following: Ints
    """(N,) the next state, or END."""


@dataclass(frozen=True)
class Influence:
    reward: Value
    """Of an episode: under the influenced policy less under the baseline."""
    behaviour: float
    """Share of the influenced agent's actions that would have been others, from 0 to 1."""


def influence(
    log: Behaviour, baseline: Floats, influenced: Floats, discount: float = 1.0, seed: int = 0
) -> Influence:
    """What comes of an agent's following `influenced` (S, A) instead of `baseline`: each action's chance.

    Whoever's actions the log holds. Raises ValueError where a policy takes actions that the log never shows,
    or where episodes need not end and `discount` is 1.
    """
    states, actions = baseline.shape
    tried = np.zeros((states, actions), dtype=bool)
    tried[log.state, log.action] = True
    seen = tried.any(1)
    if ((baseline + influenced)[seen] > 0)[~tried[seen]].any():
        raise ValueError(
            "found policies with actions that the log never shows in some state; expected each tried there. "
            "Log with a chance for every action."
        )
    episodes = int(log.episode.max()) + 1
    random = np.random.default_rng(seed)
    # Weights instead of draws, so that no episode and with it no pair is missing altogether.
    draws = np.vstack([np.ones(episodes), random.exponential(size=(_DRAWS, episodes))])
    found = [
        _value(log, influenced, weights, discount) - _value(log, baseline, weights, discount)
        for weights in draws
    ]
    low, high = np.quantile(found[1:], [0.05, 0.95])
    met = _visits(log, influenced, draws[0], discount).sum(1)
    apart = np.abs(influenced - baseline).sum(1) / 2
    return Influence(Value(found[0], float(low), float(high)), float(met @ apart / met.sum()))


def _value(log: Behaviour, policy: Floats, weights: Floats, discount: float) -> float:
    """Of an episode under the policy: the log's rewards, each by how much oftener the policy gets there."""
    by_row = weights[log.episode]
    logged = np.zeros(policy.shape)
    np.add.at(logged, (log.state, log.action), by_row)
    ratio = np.divide(
        _visits(log, policy, weights, discount), logged, out=np.zeros_like(logged), where=logged > 0
    )
    return float((by_row * ratio[log.state, log.action] * log.reward).sum())


def _visits(log: Behaviour, policy: Floats, weights: Floats, discount: float) -> Floats:
    """(S, A): how often an episode under the policy comes there, later times counting for less."""
    states, actions = policy.shape
    by_row = weights[log.episode]
    moves = np.zeros((states, actions, states + 1))
    np.add.at(moves, (log.state, log.action, log.following), by_row)
    moves /= np.maximum(moves.sum(2, keepdims=True), 1e-12)
    first = np.unique(log.episode, return_index=True)[1]
    start = np.bincount(log.state[first], by_row[first], minlength=states) / by_row[first].sum()
    # visits = start + discount * visits before, moved on; END is the last column and leads nowhere.
    onward = np.einsum("sa,sat->st", policy, moves[:, :, :states])
    try:
        met = np.linalg.solve(np.eye(states) - discount * onward.T, start)
    except np.linalg.LinAlgError:
        raise ValueError(
            "found states from which no episode ends; expected an end, or a discount below 1."
        ) from None
    return met[:, None] * policy
