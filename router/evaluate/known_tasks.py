"""Predict which agent solves a task that some agents have tried, and choose the agent for it.

Two views of few trials, mixed. Ability and difficulty (Rasch 1960): an agent's chance at a task is the
logistic of its ability and the task's easiness, on a grid whose prior is learned from tasks past; what a
trial of its own says beyond that is beta-binomial. Kriging (Matheron 1963): how agents' successes go together
over tasks past, and the best linear guess from the trials seen; it serves most where an agent has no trial of
its own. Without any trials both say how able an agent is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from router.data.arrays import Floats
from router.data.outcomes import AgentTrials
from schema.chance import point

_GRID: Final = np.linspace(-6.0, 6.0, 49)
_ROUNDS: Final = 15
_OWN: Final = (1.0, 2.0, 4.0)
"""Weight of an agent's ability beside its own trials at a task, in trials; chosen on held-out tasks."""
_KRIGING: Final = 0.5
"""Weight of kriging beside the grid if an agent has no trial of its own."""
_SHRINK: Final = 0.5
"""Share by which correlations are drawn to their mean (Ledoit and Wolf 2004); 0.2 to 0.8 did equally well."""
_FOLDS: Final = 5
_DRAWS: Final = 20


@dataclass(frozen=True)
class Skills:
    """Skills of A agents, fitted on past tasks."""

    chances: Floats
    """(A, G): of each at each easiness."""
    prior: Floats
    """(G,): how many tasks are of each easiness."""
    mean: Floats
    covariance: Floats
    """(A,), (A, A): of success over tasks, without the chance of the single trial."""
    noise: Floats
    """(A,): the mean variance of one trial."""
    own: float

    def predict(self, tried: Floats, done: Floats) -> Floats:
        """(A, J): each agent's chance at J tasks of which it has `tried` and `done` so many, (A, J) both."""
        # A line cannot tell three of three from a chance well: the more own trials, the less of it.
        weight = _KRIGING / (1 + tried)
        told = weight * self._kriged(tried, done) + (1 - weight) * self._graded(tried, done)
        return np.asarray(told, dtype=np.float64)

    def _graded(self, tried: Floats, done: Floats) -> Floats:
        weights = _posterior(self.prior, self.chances, tried, done, self.own)
        expected = np.einsum("jg,ag->aj", weights, self.chances)
        return np.asarray((done + self.own * expected) / (tried + self.own), dtype=np.float64)

    def _kriged(self, tried: Floats, done: Floats) -> Floats:
        told = np.repeat(self.mean[:, None], tried.shape[1], axis=1)
        for task in range(tried.shape[1]):
            seen = np.flatnonzero(tried[:, task])
            if len(seen):
                surprise = done[seen, task] / tried[seen, task] - self.mean[seen]
                among = self.covariance[np.ix_(seen, seen)] + np.diag(self.noise[seen] / tried[seen, task])
                told[:, task] += self.covariance[:, seen] @ np.linalg.solve(among, surprise)
        return np.clip(told, 0.01, 0.99)


def fit(tried: Floats, done: Floats, own: float = 2.0) -> Skills:
    """From (A, J): how often each of A agents has tried and done each of J tasks."""
    chances, prior = _abilities(tried, done, own)
    mean, covariance, noise = _moments(tried, done)
    return Skills(chances, prior, mean, covariance, noise, own)


def tuned(tried: Floats, done: Floats, seed: int = 0) -> Skills:
    """`fit` with the `own` that predicts best, after one trial each, on tasks held out in turn."""
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(tried.shape[1]), min(_FOLDS, tried.shape[1]))
    errors = dict.fromkeys(_OWN, 0.0)
    for part in parts:
        rest = np.setdiff1d(np.arange(tried.shape[1]), part)
        if not len(rest):
            break
        first, good = _draw(tried[:, part], done[:, part], 1, rng)
        # Half of the agents have none: both uses count, of one's own trials and of others'.
        first, good = np.tile(first, 2), np.tile(good, 2)
        seen = rng.random(first.shape) < np.repeat([1.0, 0.5], len(part))
        first, good = np.where(seen, first, 0.0), np.where(seen, good, 0.0)
        left = np.tile(tried[:, part], 2) - first, np.tile(done[:, part], 2) - good
        for own in _OWN:
            told = fit(tried[:, rest], done[:, rest], own).predict(first, good)
            errors[own] += float(_squares(told, *left).sum())
    return fit(tried, done, min(errors, key=lambda own: errors[own]))


def judge_trials(trials: AgentTrials) -> dict[str, float | None]:
    """Tasks in five parts by the hash of their id, each judged by what was learned of the others.

    Success is on the trials that were not shown, mean over seeded draws of those shown. Brier after n agents:
    of all the others' trials at a task, one trial of each of the n being known.
    """
    agents, tasks = len(trials.agents), len(trials.tasks)
    tried, done = np.zeros((agents, tasks)), np.zeros((agents, tasks))
    np.add.at(tried, (trials.agent, trials.task), 1.0)
    np.add.at(done, (trials.agent, trials.task), trials.ok)
    part = np.array([int(point(task) * _FOLDS) for task in trials.tasks], dtype=np.int64)
    result: dict[str, float | None] = {}
    sums: dict[str, Floats] = {}
    for fold in range(_FOLDS):
        judged, learned = np.flatnonzero(part == fold), np.flatnonzero(part != fold)
        if len(judged) and len(learned):
            skills = tuned(tried[:, learned], done[:, learned])
            rate = done[:, learned].sum(1) / np.maximum(tried[:, learned].sum(1), 1)
            _judge(skills, rate, tried[:, judged], done[:, judged], fold, sums)
    for name, (total, count) in sums.items():
        result[name] = float(total / count) if count else None
    return result


def _judge(
    skills: Skills, rate: Floats, tried: Floats, done: Floats, fold: int, sums: dict[str, Floats]
) -> None:
    """Adds (total, count) of each figure on these tasks to `sums`; `rate` is each agent's over tasks past."""

    def add(name: str, total: float, count: float) -> None:
        sums[name] = sums.get(name, np.zeros(2)) + np.array([total, count])

    single = np.repeat(rate[:, None], tried.shape[1], axis=1)
    for number in range(_DRAWS):
        rng = np.random.default_rng((fold, number))
        for shown in (0, 1, 3):
            first, good = _draw(tried, done, shown, rng)
            left, left_done = tried - first, done - good
            told = skills.predict(first, good)
            name = f"known_task_after_{shown}" if shown else "new_task"
            add(name, *_chosen(told, left, left_done))
            add(f"{name}_best_single", *_chosen(single, left, left_done))
            add(f"{name}_naive", *_chosen((good + single) / (first + 1), left, left_done))
            add(f"{name}_brier", _squares(told, left, left_done).sum(), left.sum())
        first, good = _draw(tried, done, 1, rng)
        order = rng.permuted(np.tile(np.arange(len(tried))[:, None], (1, tried.shape[1])), axis=0)
        for known in (3, 6):
            seen, count = order < known, tried[order >= known].sum()
            told = skills.predict(np.where(seen, first, 0.0), np.where(seen, good, 0.0))
            name = f"brier_after_{known}_agents"
            add(name, _squares(told, tried, done)[~seen].sum(), count)
            add(f"{name}_mean_only", _squares(single, tried, done)[~seen].sum(), count)


def _chosen(told: Floats, left: Floats, left_done: Floats) -> tuple[float, float]:
    """(summed success of the agent told best, tasks), among agents with trials left at the task."""
    can = left > 0
    tasks = np.flatnonzero(can.any(0))
    agent = np.where(can, told, -1.0).argmax(0)[tasks]
    return float((left_done[agent, tasks] / left[agent, tasks]).sum()), float(len(tasks))


def _squares(told: Floats, tried: Floats, done: Floats) -> Floats:
    """Return the summed squared error of each cell's trials."""
    squares: Floats = done * (1 - told) ** 2 + (tried - done) * told**2
    return squares


def _draw(tried: Floats, done: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """`count` of each cell's trials at most, and how many of those succeeded."""
    first = np.minimum(tried, count).astype(np.int64)
    good = rng.hypergeometric(done.astype(np.int64), (tried - done).astype(np.int64), first)
    return first.astype(np.float64), good.astype(np.float64)


def _posterior(prior: Floats, chances: Floats, tried: Floats, done: Floats, own: float) -> Floats:
    """(J, G): how likely each task is of each easiness."""
    # Of the beta-binomial what depends on the chance.
    told = _rising(own * chances, done) + _rising(own * (1 - chances), tried - done)
    logs = np.log(prior + 1e-12) + told.sum(0)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float64)


def _rising(start: Floats, counts: Floats) -> Floats:
    """(A, J, G): the log of start (start + 1) ... (start + count - 1), for (A, G) and whole (A, J)."""
    steps = np.arange(max(int(counts.max(initial=0)), 1))[:, None, None]
    table = np.concatenate([np.zeros((1, *start.shape)), np.cumsum(np.log(start + steps), axis=0)])
    return np.asarray(table[counts.astype(np.int64), np.arange(len(start))[:, None]], dtype=np.float64)


def _abilities(tried: Floats, done: Floats, own: float) -> tuple[Floats, Floats]:
    """((A, G) chances, (G,) prior) by expectation-maximisation."""
    ability = np.log((done.sum(1) + 1) / (tried.sum(1) - done.sum(1) + 1))
    start = np.exp(-(_GRID**2) / 8)
    start /= start.sum()
    prior = start
    # Trials of one agent at one task are alike: n of them say as much as this many.
    worth = np.where(tried > 0, (own + 1) / (own + tried), 0.0)
    for _ in range(_ROUNDS):
        weights = _posterior(prior, _curve(ability), tried, done, own)
        prior = weights.sum(0) + 5 * start
        prior /= prior.sum()
        all_of, right_of = (tried * worth) @ weights, (done * worth) @ weights
        for _ in range(3):
            chance = _curve(ability)
            rest, sharp = right_of - all_of * chance, all_of * chance * (1 - chance)
            step = (rest.sum(1) - (ability - ability.mean()) / 4) / (sharp.sum(1) + 1 / 4)
            ability = ability + np.clip(step, -1, 1)
    return _curve(ability), prior


def _curve(ability: Floats) -> Floats:
    # Within 1e-4 and 1 - 1e-4: nobody is that sure.
    return np.asarray(1 / (1 + np.exp(-np.clip(ability[:, None] + _GRID, -9.2, 9.2))))


def _moments(tried: Floats, done: Floats) -> tuple[Floats, Floats, Floats]:
    """((A,) mean, (A, A) covariance over tasks, (A,) variance of one trial) of success."""
    known = (tried > 0).astype(np.float64)
    mean = (done.sum(1) + 0.5) / (tried.sum(1) + 1)
    share_done = done / np.maximum(tried, 1)
    rest = (share_done - mean[:, None]) * known
    covariance = (rest @ rest.T) / np.maximum(known @ known.T, 1)
    several = tried > 1
    # Unbiased for p (1 - p): what of the spread over tasks is the chance of single trials.
    single = np.where(several, share_done * (1 - share_done) * tried / np.maximum(tried - 1, 1), 0.0)
    noise = single.sum(1) / np.maximum(several.sum(1), 1)
    chance = np.where(several, single / np.maximum(tried, 1), 0.0).sum(1) / np.maximum(several.sum(1), 1)
    # Where nobody tried twice, half of the spread is taken for chance.
    lone = ~several.any(1)
    noise = np.where(lone, mean * (1 - mean) / 2, np.maximum(noise, 1e-3))
    chance = np.where(lone, np.diag(covariance) / 2, chance)
    spread = np.sqrt(np.maximum(np.diag(covariance) - chance, 0.2 * np.diag(covariance)) + 1e-6)
    alike = covariance / np.outer(spread, spread)
    others = ~np.eye(len(alike), dtype=bool)
    common = float(alike[others].mean()) if others.any() else 0.0
    alike = np.clip((1 - _SHRINK) * alike + _SHRINK * common, -1.0, 1.0)
    np.fill_diagonal(alike, 1.0)
    values, vectors = np.linalg.eigh(alike * np.outer(spread, spread))
    return mean, np.asarray((vectors * np.maximum(values, 1e-4)) @ vectors.T), noise
