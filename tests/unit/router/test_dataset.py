"""From rows to what is learned from: what is refused, what is put together, and what was drawn by chance."""

import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from db.router.outcomes import OutcomeDecision, OutcomeRow
from router.data import dataset

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def row(number: int = 0, **changes: Any) -> OutcomeRow:
    id = uuid.UUID(int=number + 1)
    plain = OutcomeRow(
        id=id,
        collaboration=id,
        at=NOW - timedelta(hours=1),
        definition="d",
        step="write",
        path="write",
        agent="a",
        role="coder",
        task="sort a list",
        prompt="Write it: ${input.task}",
        model="p/one",
        answered_by="p/one",
        seconds=2.0,
        input_tokens=100,
        output_tokens=50,
        usd=0.01,
        ok=1.0,
        source="review",
        decision=None,
    )
    return replace(plain, **changes)


def drawn(number: int, model: str, candidates: dict[str, float], **changes: Any) -> OutcomeRow:
    decision = OutcomeDecision("rules-v1", model, candidates[model], candidates, {}, NOW)
    return row(number, model=model, decision=decision, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": " "}, "model_empty"),
        ({"task": "", "prompt": "\n"}, "text_empty"),
        ({"ok": None}, "ok_unknown"),
        ({"ok": 1.01}, "ok_wrong"),
        ({"ok": float("nan")}, "ok_wrong"),
        ({"seconds": -0.1}, "seconds_wrong"),
        ({"seconds": float("inf")}, "seconds_wrong"),
        ({"seconds": 90_000.0}, "seconds_wrong"),
        ({"input_tokens": -1}, "tokens_wrong"),
        ({"output_tokens": 10_000_001}, "tokens_wrong"),
        ({"usd": -0.01}, "usd_wrong"),
        ({"at": NOW + timedelta(hours=1)}, "future"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_its_reason(changes: dict[str, Any], reason: str) -> None:
    good, bad = row(1), row(2, **changes)
    assert dataset.validate([good, bad], NOW) == ([good], Counter({reason: 1}))


def test_what_is_not_known_of_time_and_cost_is_no_fault_and_twice_is_once() -> None:
    sparse = row(1, seconds=None, input_tokens=None, output_tokens=None, usd=None, task="", at=NOW)
    assert dataset.validate([sparse, sparse], NOW) == ([sparse], Counter({"duplicate": 1}))


def test_equal_steps_are_one_with_the_mean_of_how_well_they_went() -> None:
    rows = [
        row(1, ok=1.0, seconds=1.0),
        row(2, ok=0.0, seconds=3.0),
        row(3, model="p/two", ok=0.5, seconds=None),
        row(4, task="design an API endpoint", role=None, ok=0.25),
        row(5, prompt="Another prompt", model="p/two", output_tokens=0),
    ]
    calls = dataset.to_calls(rows)
    assert calls.models == ("p/one", "p/two")
    at = {
        (text, category): i
        for i, (text, category) in enumerate(zip(calls.texts, calls.categories.tolist(), strict=True))
    }
    first = at["sort a list\nWrite it: ${input.task}", "coder/general"]
    assert len(at) == 3
    assert calls.ok[first].tolist() == [0.5, 0.5]
    assert calls.seconds[first, 0] == 3.0 and np.isnan(calls.seconds[first, 1])
    assert calls.ok[at["design an API endpoint\nWrite it: ${input.task}", "a/backend"], 0] == 0.25
    other = at["sort a list\nAnother prompt", "coder/general"]
    assert np.isnan(calls.ok[other, 0]) and np.isnan(calls.output_tokens[other, 1])
    again = dataset.to_calls(rows[::-1])
    assert again.queries == calls.queries == tuple(sorted(calls.queries))
    np.testing.assert_array_equal(again.ok, calls.ok)


def test_a_run_is_learned_from_or_judged_on_as_a_whole() -> None:
    rows = [row(n, collaboration=uuid.UUID(int=n // 3)) for n in range(3_000)]
    learned, judged = dataset.split(rows)
    assert not {one.collaboration for one in learned} & {one.collaboration for one in judged}
    assert len(judged) / len(rows) == pytest.approx(dataset.HELD_OUT, abs=0.03)
    assert dataset.split(rows) == (learned, judged)


def test_what_is_seldom_asked_is_not_thinned_away() -> None:
    rows = [row(n, task=f"task {n}", model="p/often") for n in range(1_000)]
    rows[10:500:49] = [replace(one, model="p/seldom") for one in rows[10:500:49]]
    kept = dataset.thinned(rows, most=100)
    count = Counter(one.model for one in kept)
    assert count == {"p/seldom": 10, "p/often": 90}
    assert kept == sorted(kept, key=lambda one: one.id)
    assert kept[-1] is rows[-1]


def test_only_what_was_drawn_by_its_chances_tells_of_policies() -> None:
    both = {"p/one": 0.9, "p/two": 0.1}
    rows = [
        drawn(1, "p/one", both),
        drawn(2, "p/two", both, ok=0.0),
        drawn(3, "p/three", {"p/one": 0.5, "p/three": 0.5}, ok=0.5, task="an API endpoint"),
        row(4),  # nobody decided
        replace(drawn(5, "p/one", both), model="p/two"),  # another one stood in
        replace(drawn(6, "p/one", both), ok=None),
        drawn(7, "p/one", {"p/one": 0.9, "p/two": 0.2}),  # no chances
    ]
    log = dataset.to_log(rows)
    assert log is not None
    assert log.rows == tuple(rows[:3])
    assert log.models == ("p/one", "p/three", "p/two")
    assert log.logged.chosen.tolist() == [0, 2, 1]
    assert log.logged.chances.tolist() == [[0.9, 0, 0.1], [0.9, 0, 0.1], [0.5, 0.5, 0]]
    assert log.logged.ok.tolist() == [1, 0, 0.5]
    assert log.logged.category.tolist() == [1, 1, 0]
    assert dataset.to_log(rows[3:]) is None


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rows = [
        row(n, task=f"Write a Python function that handles case {n} of the parser", model=f"p/{n % 9}")
        for n in range(100_000)
    ]
    began = time.process_time()
    kept, refused = dataset.validate(rows, NOW)
    calls = dataset.to_calls(dataset.thinned(kept))
    took = time.process_time() - began
    assert (calls.ok.shape, refused) == ((dataset.MAX_STEPS, 9), Counter())
    assert took < 20, f"{took:.1f} s of a processor"
