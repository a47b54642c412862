"""A/B tests of prompts that are looked at after every run: `python -m bench.trials --json`.

How often equal versions are called different (with a t-test looked at as often, for comparison), how often a
real difference is found, and after how many runs. Pure computation: no server, no model.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schema.significance import Arm, Metric, Rules, read

SEED: Final = 20261121
Z_95: Final = 1.96
EFFECTS: Final = (0.02, 0.05, 0.1)

Draw = Callable[[random.Random, float], float]


@dataclass
class _Sums:
    units: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.units += 1
        before = value - self.mean
        self.mean += before / self.units
        self.squares += before * (value - self.mean)

    def arm(self) -> Arm:
        return Arm(self.units, self.mean, self.squares / (self.units - 1) if self.units > 1 else 0.0)


def _quality(chance: random.Random, better: float) -> float:
    """One run in fifty fails, which counts as 0; a standard deviation of about 0.16."""
    return 0.0 if chance.random() < 0.02 else min(1.0, max(0.0, chance.gauss(0.75 + better, 0.12)))


def _success(chance: random.Random, better: float) -> float:
    return float(chance.random() < 0.8 + better)


def _cost(chance: random.Random, better: float) -> float:
    return chance.lognormvariate(-4, 1) * (1 - better)


_DRAWS: Final[dict[Metric, Draw]] = {"quality": _quality, "success": _success, "cost": _cost}


@dataclass
class _TrialEnd:
    verdict: str
    units: int
    naive: bool
    """Whether a t-test at some look would have called them different."""


def _trial(chance: random.Random, metric: Metric, better: float, share: float) -> _TrialEnd:
    rules, draw = Rules(metric), _DRAWS[metric]
    control, candidate, naive = _Sums(), _Sums(), False
    units = 0
    while True:
        units += 1
        to_candidate = chance.random() < share
        (candidate if to_candidate else control).add(draw(chance, better if to_candidate else 0.0))
        if min(control.units, candidate.units) < rules.min_units and units < rules.max_units:
            continue
        one, other = control.arm(), candidate.arm()
        if min(one.units, other.units) >= rules.min_units:
            error = (one.variance / one.units + other.variance / other.units) ** 0.5
            naive = naive or abs(one.mean - other.mean) > Z_95 * error
        reading = read(rules, one, other)
        if reading.verdict != "running":
            return _TrialEnd(reading.verdict, units, naive)


def _users(chance: random.Random, users: int) -> str:
    """A trial of equal versions by user: each has a level of its own, and comes again and again."""
    rules = Rules("quality")
    runs: dict[int, list[float]] = {}
    for _ in range(rules.max_units):
        user = int(users * chance.random() ** 2)  # some come often
        level = random.Random(user * 7919).gauss(0, 0.1)
        runs.setdefault(user, []).append(_quality(chance, level))
        arms = (_Sums(), _Sums())
        if len(runs) % 5:
            continue
        for one, values in runs.items():
            arms[one % 2].add(sum(values) / len(values))
        reading = read(rules, arms[0].arm(), arms[1].arm())
        if reading.verdict != "running":
            return reading.verdict
    return "undecided"


def measure(trials: int) -> dict[str, Any]:
    equal = {
        f"{metric}, share {share}": _summary(trials, metric, 0.0, share)
        for metric in _DRAWS
        for share in (0.5, 0.1)
    }
    different = {
        f"{metric} +{effect}": _summary(trials // 5, metric, effect, 0.5)
        for metric in ("quality", "success")
        for effect in EFFECTS
    } | {"cost -20%": _summary(trials // 5, "cost", 0.2, 0.5)}
    chance = random.Random(SEED)
    by_user = Counter(_users(chance, 400) for _ in range(trials // 10))
    wrong = max(one["won"] + one["lost"] for one in equal.values())
    return {
        "trials": trials,
        "false_positive_rate": wrong,
        "false_positive_rate_t_test": max(one["t_test"] for one in equal.values()),
        "false_positive_rate_by_user": 1 - by_user["undecided"] / sum(by_user.values()),
        "equal": equal,
        "different": different,
    }


def _summary(trials: int, metric: Metric, better: float, share: float) -> dict[str, float]:
    chance = random.Random(SEED)
    ended = [_trial(chance, metric, better, share) for _ in range(trials)]
    verdicts = Counter(one.verdict for one in ended)
    return {
        "won": verdicts["won"] / trials,
        "lost": verdicts["lost"] / trials,
        "mean_units": round(sum(one.units for one in ended) / trials, 1),
        "t_test": sum(one.naive for one in ended) / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000, help="of equal versions, for each kind")
    parser.add_argument("--json", action="store_true", help="print one object")
    given = parser.parse_args()
    found = measure(given.trials)
    if given.json:
        print(json.dumps(found))
        return
    for what in ("equal", "different"):
        for name, one in found[what].items():
            print(
                f"{what:10} {name:22} won {one['won']:.3f} lost {one['lost']:.3f} after {one['mean_units']}"
            )
    for name, value in found.items():
        if name.startswith("false"):
            print(name, round(value, 4))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
