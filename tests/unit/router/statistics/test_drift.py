"""What follows a drift, and what tells of it: simulated streams."""

import json
from statistics import median

import numpy as np
import pytest

from router.statistics.drift import Alarm, Tracker
from router.statistics.intervals import Intervals, fit

MODELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def fitted() -> Intervals:
    rng = np.random.default_rng(0)
    logs = np.array([0.0, 0.5, 1.0]) + 0.4 * rng.normal(size=(400, 3))
    return fit(np.exp(logs), ["x", "y"] * 200, rng.normal(size=(400, 2)), MODELS)


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 0.4), (0.7, 0.4), (-0.7, 0.4), (0.0, 0.7)])
def test_coverage_comes_back_within_300_outcomes(fitted: Intervals, shift: float, spread: float) -> None:
    rng = np.random.default_rng(1)
    tracker = Tracker(fitted)
    held = []
    for _ in range(1500):
        m = int(rng.integers(3))
        value = float(np.exp(0.5 * m + shift + spread * rng.normal()))
        held.append(tracker.update(MODELS[m], "x" if rng.random() < 0.5 else "y", np.zeros(2), value))
    rolling = np.convolve(held[300:], np.ones(500) / 500, "valid")
    assert rolling.min() >= 0.86
    assert rolling.max() <= 0.94


def test_a_new_model_is_learned_from_its_outcomes(fitted: Intervals) -> None:
    rng = np.random.default_rng(2)
    tracker = Tracker(fitted)
    before = tracker.predict("new", "x", np.zeros(2))
    for _ in range(40):
        tracker.update("new", "x", np.zeros(2), float(np.exp(2.0 + 0.4 * rng.normal())))
    after = tracker.predict("new", "x", np.zeros(2))
    assert np.log(after.expected[0, 0]) == pytest.approx(2.0, abs=0.3)
    assert after.high[0, 0] / after.low[0, 0] < before.high[0, 0] / before.low[0, 0]
    # What is known of others stays about where it was.
    told = tracker.predict("a", "y", np.zeros(2)).expected[0, 0]
    assert np.log(told) == pytest.approx(0.0, abs=0.35)


def test_what_was_followed_can_be_kept(fitted: Intervals) -> None:
    tracker = Tracker(fitted)
    for value in (3.0, 4.0, 5.0):
        tracker.update("a", "x", np.zeros(2), value)
    again = Tracker.restore(fitted, json.loads(json.dumps(tracker.state())))
    told, kept = (one.among(MODELS, "x", np.zeros(2)) for one in (tracker, again))
    np.testing.assert_array_equal(told.high, kept.high)
    assert kept.expected[0, 0] > fitted.predict(MODELS, ["x"], np.zeros((1, 2))).expected[0, 0]


def _delay(alarm: Alarm, rng: np.random.Generator, before: float, after: float, chance: float) -> int:
    for _ in range(500):
        alarm.see(bool(rng.random() < before), chance)
    for n in range(1, 2000):
        if alarm.see(bool(rng.random() < after), chance):
            return n
    return 2000


@pytest.mark.parametrize(
    ("odds", "chance", "after", "usual", "most"),
    [(2.5, 0.1, 0.25, 100, 200), (2.5, 0.1, 0.2, 200, 450), (0.4, 0.88, 0.3, 20, 30)],
)
def test_the_alarm_goes_off_soon(odds: float, chance: float, after: float, usual: int, most: int) -> None:
    rng = np.random.default_rng(3)
    delays = [_delay(Alarm(odds), rng, chance, after, chance) for _ in range(60)]
    assert median(delays) <= usual
    assert np.quantile(delays, 0.95) <= most


@pytest.mark.parametrize(("odds", "chance"), [(2.5, 0.1), (0.4, 0.88)])
def test_false_alarms_are_rarer_than_one_in_10000(odds: float, chance: float) -> None:
    rng = np.random.default_rng(4)
    alarm = Alarm(odds)
    outcomes = rng.random(100_000) < chance
    assert sum(alarm.see(bool(outcome), chance) for outcome in outcomes) <= 10


def test_the_alarm_says_since_when() -> None:
    alarm = Alarm(0.4)
    for n in range(300):
        alarm.see(n % 8 != 0, 0.88)
    seen = alarm.seen
    while not alarm.see(False, 0.88):
        pass
    assert abs(alarm.since - seen) <= 30
