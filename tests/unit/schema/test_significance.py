"""A/B tests of prompts: who gets which arm, and that looking often spoils nothing."""

import random
from dataclasses import dataclass

import pytest

from schema.significance import Arm, Metric, Rules, Verdict, gets_candidate, read

ALPHA = 0.05


@dataclass
class Sums:
    """Mean and variance as values come."""

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


def _value(chance: random.Random, metric: Metric, better: float) -> float:
    """A run's: one in fifty fails, and then its quality is 0."""
    if metric == "success":
        return float(chance.random() < 0.9 + better)
    if metric == "cost":
        return chance.lognormvariate(-4, 0.7) * (1 - better)
    return 0.0 if chance.random() < 0.02 else min(1.0, max(0.0, chance.gauss(0.75 + better, 0.12)))


def _trial(chance: random.Random, rules: Rules, better: float, share: float = 0.5) -> tuple[Verdict, int]:
    """(verdict, units) of a trial that is looked at after every tenth run."""
    control, candidate = Sums(), Sums()
    for unit in range(1, rules.max_units + 1):
        to_candidate = chance.random() < share
        arm = candidate if to_candidate else control
        arm.add(_value(chance, rules.metric, better if to_candidate else 0))
        if unit % 10 == 0:
            reading = read(rules, control.arm(), candidate.arm())
            if reading.verdict != "running":
                return reading.verdict, unit
    return "running", rules.max_units


@pytest.mark.parametrize("metric", ["quality", "success", "cost"])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equal_versions_are_called_different_as_seldom_as_promised(metric: Metric, share: float) -> None:
    chance = random.Random(7)
    rules = Rules(metric, ALPHA, min_units=20, max_units=600)
    verdicts = [_trial(chance, rules, 0.0, share)[0] for _ in range(150)]
    assert {verdict for verdict in verdicts if verdict == "running"} == set()
    assert sum(verdict != "undecided" for verdict in verdicts) <= ALPHA * len(verdicts)


@pytest.mark.parametrize(("metric", "better"), [("quality", 0.08), ("success", 0.09), ("cost", 0.4)])
def test_a_real_difference_is_found_and_the_right_way(metric: Metric, better: float) -> None:
    chance = random.Random(3)
    ended = [_trial(chance, Rules(metric, ALPHA), better) for _ in range(40)]
    assert {verdict for verdict, _ in ended} == {"won"}
    assert sum(units for _, units in ended) / len(ended) < 1_000
    worse = [_trial(chance, Rules(metric, ALPHA), -better)[0] for _ in range(40)]
    assert "won" not in worse
    assert worse.count("lost") >= 38


def test_nothing_is_said_before_both_arms_have_enough() -> None:
    rules = Rules(min_units=30, max_units=100)
    early = read(rules, Arm(500, 0.1, 0.01), Arm(29, 0.9, 0.01))
    assert (early.low, early.high, early.p, early.verdict) == (None, None, 1.0, "undecided")
    assert read(Rules(min_units=30), Arm(50, 0.1, 0.01), Arm(29, 0.9, 0.01)).verdict == "running"
    assert read(Rules(min_units=30), Arm(50, 0.1, 0.01), Arm(30, 0.9, 0.01)).verdict == "won"
    # However few are asked for: with two of each any mean can be anything.
    assert read(Rules(min_units=2), Arm(2, 0.1, 0.0), Arm(2, 0.9, 0.0)).verdict == "running"


def test_units_that_tell_nothing_of_the_metric_count_towards_the_end_only() -> None:
    rules = Rules(max_units=100)
    silent = read(rules, Arm(0, unmeasured=50), Arm(0, unmeasured=50))
    assert (silent.verdict, silent.low) == ("undecided", None)


def test_arms_without_any_spread() -> None:
    """All alike: equal means stay undecided, and a difference is one."""
    rules = Rules()
    alike = read(rules, Arm(40, 1.0, 0.0), Arm(40, 1.0, 0.0))
    assert (alike.difference, alike.low, alike.high, alike.p) == (0, 0, 0, 1)
    assert alike.verdict == "running"
    assert read(rules, Arm(40, 0.5, 0.0), Arm(40, 1.0, 0.0)).verdict == "won"
    all_succeed = read(Rules("success"), Arm(40, 1.0, 0.0), Arm(40, 1.0, 0.0))
    assert all_succeed.low is not None and all_succeed.low < 0 < (all_succeed.high or 0)


def test_the_interval_and_p_say_the_same() -> None:
    rules = Rules(alpha=ALPHA)
    for mean in (0.50, 0.52, 0.54, 0.56, 0.58, 0.6):
        reading = read(rules, Arm(200, 0.5, 0.04), Arm(200, mean, 0.04))
        assert reading.low is not None
        assert (reading.p < ALPHA) == (reading.low > 0)


def test_cost_is_better_when_it_is_lower() -> None:
    cheap, dear = Arm(100, 0.01, 1e-6), Arm(100, 0.02, 1e-6)
    assert read(Rules("cost"), dear, cheap).verdict == "won"
    assert read(Rules("cost"), cheap, dear).verdict == "lost"


def test_assignment_is_sticky_and_its_share_is_kept() -> None:
    units = [f"run-{number}" for number in range(20_000)]
    for share in (0.1, 0.5, 0.9):
        got = [gets_candidate("trial-1", unit, share) for unit in units]
        assert abs(sum(got) / len(got) - share) < 0.01
        assert got == [gets_candidate("trial-1", unit, share) for unit in units]
    one = [gets_candidate("trial-1", unit, 0.5) for unit in units]
    other = [gets_candidate("trial-2", unit, 0.5) for unit in units]
    # Another trial deals anew: who had the candidate before has it again by chance only.
    assert abs(sum(a == b for a, b in zip(one, other, strict=True)) / len(units) - 0.5) < 0.02
