"""PPO against rules and fixed choices on the simulator's hidden skills: `python -m
bench.research.compare_policies --json`.

An episode is a collaboration of three steps, design, code and review, each given to one of the simulator's
models. Reward: quality, less what the calls cost and how long they take. All meet the same tasks and luck.
What was tried is kept in a Postgres of its own; `--no-database` keeps it in memory.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.research import experiences as buffer
from bench.research.chains import KINDS, MODELS, ROLES, TASKS, Collaborations, Kind, expected
from bench.research.ppo import Experiences, Floats, Policy, PpoConfig, best, joined, train
from bench.research.replay_buffer import of_rows, rows_of
from db.engine import transaction
from router.serve import rules
from schema.language.catalogue import ROLE_DEFAULTS
from tests.support.stack import stack

# -- who chooses -------------------------------------------------------------------------------------------

Choose = Callable[[Collaborations, Floats, int, int], int]
"""(environment, observation, key, step) → action."""


def _fixed(chain: Sequence[str]) -> Choose:
    actions = [MODELS.index(model) for model in chain]
    return lambda _environment, _observed, _key, at: actions[at]


def _random(_environment: Collaborations, _observed: Floats, key: int, at: int) -> int:
    return random.Random(f"random/{key}/{at}").randrange(len(MODELS))


def _rules(environment: Collaborations, _observed: Floats, key: int, at: int) -> int:
    task = TASKS[KINDS.index(environment.kind)]
    return MODELS.index(rules.choose(task, ROLES[at], MODELS, f"{key}/{at}").model)


def _oracle() -> Choose:
    known = {kind: _fixed(_best_chain([kind])) for kind in KINDS}
    return lambda environment, observed, key, at: known[environment.kind](environment, observed, key, at)


def _best_chain(kinds: Sequence[Kind]) -> Sequence[str]:
    chains = itertools.product(MODELS, repeat=len(ROLES))
    return max(chains, key=lambda chain: sum(expected(kind, chain) for kind in kinds))


def _learned(policy: Policy, *, draws: bool) -> Choose:
    acting = policy if draws else best(policy)

    def choose(_environment: Collaborations, observed: Floats, key: int, at: int) -> int:
        chances = acting.chances(observed[None])[0]
        point = random.Random(f"ppo/{key}/{at}").random()
        return min(int((point > chances.cumsum()).sum()), len(chances) - 1)

    return choose


def policies(policy: Policy) -> dict[str, Choose]:
    single = max(MODELS, key=lambda model: sum(expected(kind, [model] * 3) for kind in KINDS))
    return {
        "ppo": _learned(policy, draws=False),
        "ppo, as it tries": _learned(policy, draws=True),
        "random": _random,
        "rules": _rules,
        "role defaults": _fixed([ROLE_DEFAULTS[role].model for role in ROLES]),
        "best single model": _fixed([single] * 3),
        "best fixed chain": _fixed(_best_chain(KINDS)),
        "oracle": _oracle(),
    }


# -- measuring ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpisodeResults:
    """(N,) each, of N episodes."""

    reward: NDArray[np.float64]
    quality: NDArray[np.float64]
    usd: NDArray[np.float64]
    seconds: NDArray[np.float64]


def play(choose: Choose, keys: Sequence[int]) -> EpisodeResults:
    environment, rows = Collaborations(), []
    for key in keys:
        observed, done, total, at = environment.reset(key), False, 0.0, 0
        while not done:
            observed, reward, done = environment.step(choose(environment, observed, key, at))
            total, at = total + reward, at + 1
        rows.append((total, environment.quality, environment.usd, environment.seconds))
    return EpisodeResults(*np.array(rows).T)


def interval(differences: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 %, by bootstrap over episodes."""
    chance = np.random.default_rng(seed)
    draws = chance.integers(len(differences), size=(1_000, len(differences)))
    low, high = np.quantile(differences[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def measure(settings: PpoConfig, seed: int, episodes: int, kept: "Kept | None") -> dict[str, Any]:
    environments = [Collaborations() for _ in range(128)]
    began, worked = time.perf_counter(), time.process_time()
    policy, curve = train(
        environments, settings, seed, kept.remember if kept else None, kept.recall if kept else None
    )
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    # Keys that no training has met.
    keys = range(10_000_000, 10_000_000 + episodes)
    came = {name: play(choose, keys) for name, choose in policies(policy).items()}
    found = {}
    for name, one in came.items():
        low, high = interval(came["ppo"].reward - one.reward)
        found[name] = {
            "reward": float(one.reward.mean()),
            "quality": float(one.quality.mean()),
            "usd": float(one.usd.mean()),
            "seconds": float(one.seconds.mean()),
            "ppo_gain": float((came["ppo"].reward - one.reward).mean()),
            "low": low,
            "high": high,
        }
    return {
        "seed": seed,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu_seconds, 1),
        "train_episodes": settings.episodes,
        "episodes": episodes,
        "curve": [round(one, 4) for one in curve],
        "policies": found,
        "beats_random": found["random"]["low"] > 0,
        "beats_rules": found["rules"]["low"] > 0,
        "steps_in_postgres": kept.count() if isinstance(kept, InPostgres) else None,
    }


# -- the replay buffer -------------------------------------------------------------------------------------


class InMemory:
    def __init__(self) -> None:
        self._tried: list[Experiences] = []

    def remember(self, tried: Experiences, _first: int) -> None:
        self._tried = [*self._tried[-3:], tried]

    def recall(self, steps: int) -> Experiences | None:
        found: list[Experiences] = []
        for one in reversed(self._tried):
            if sum(len(part.action) for part in found) + len(one.action) > steps:
                break
            found.insert(0, one)
        return joined(found) if found else None


class InPostgres:
    """The real buffer, by a loop of its own beside the training."""

    POLICY: Final = "ppo"

    def __init__(self, runner: asyncio.Runner, engine: Any, seed: int) -> None:
        self._runner, self._engine, self._run = runner, engine, f"bench/{seed}"

    def remember(self, tried: Experiences, first: int) -> None:
        async def write() -> None:
            async with transaction(self._engine) as connection:
                await buffer.append(connection, "default", self.POLICY, rows_of(tried, self._run, first))

        self._runner.run(write())

    def recall(self, steps: int) -> Experiences | None:
        async def read() -> list[buffer.Experience]:
            async with transaction(self._engine) as connection:
                return await buffer.newest(connection, "default", self.POLICY, steps)

        return of_rows(self._runner.run(read()))

    def count(self) -> int:
        found = self.recall(10_000_000)
        return len(found.action) if found else 0


Kept = InMemory | InPostgres


@contextmanager
def _postgres(seed: int) -> Iterator[InPostgres]:
    with asyncio.Runner() as runner:
        platform = stack(("temporal", "postgres", "migrate"))
        found = runner.run(platform.__aenter__())
        try:
            yield InPostgres(runner, found.engine, seed)
        finally:
            runner.run(platform.__aexit__(None, None, None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=PpoConfig.episodes, help="episodes to learn from")
    parser.add_argument("--episodes", type=int, default=3_000, help="to judge on")
    parser.add_argument("--reuse", type=int, default=PpoConfig.reuse, help="0: no experience is used again")
    parser.add_argument("--no-database", action="store_true", help="keep what was tried in memory")
    parser.add_argument("--json", action="store_true", help="print one object")
    given = parser.parse_args()
    settings = PpoConfig(episodes=given.train, reuse=given.reuse)
    if given.no_database:
        found = measure(settings, given.seed, given.episodes, InMemory())
    else:
        with _postgres(given.seed) as kept:
            found = measure(settings, given.seed, given.episodes, kept)
    if given.json:
        print(json.dumps(found))
        return
    cpu = found["train_cpu_seconds"]
    print(
        f"learned from {found['train_episodes']} episodes in {found['train_seconds']} s ({cpu} s of a core)"
    )
    print(f"{'':20} reward  quality      usd  seconds   ppo is better by (95 %)")
    for name, one in found["policies"].items():
        print(
            f"{name:20} {one['reward']:6.3f}  {one['quality']:7.3f} {one['usd']:8.4f} {one['seconds']:8.2f}"
            f"   {one['ppo_gain']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
