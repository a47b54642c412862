"""What an optimisation learns from, what it is held to, and when it is refused. Without DSPy."""

import json

import pytest

from activities.agent.judge import (
    MAX_HELD_OUT,
    MAX_TRAINING_EXAMPLES,
    MIN_HELD_OUT,
    ScoredAnswer,
    compare,
    question,
    split,
    to_hold_out,
    to_learn_from,
    verdict,
    wanted_quality,
)
from db.prompts.uses import MAX_SCORED, require_enough
from schema.errors import Refused

SCORED = [ScoredAnswer(f"task {number}", f"answer {number}", number % 10 / 10) for number in range(1_000)]


def test_below_a_thousand_scored_collaborations_nothing_is_optimised() -> None:
    require_enough(MAX_SCORED, "p")
    with pytest.raises(Refused, match=r"found 999 scored collaborations .* expected 1,000") as caught:
        require_enough(999, "p")
    assert caught.value.code == "too_few_examples"


def test_what_is_held_out_is_not_learned_from() -> None:
    train, held_out = split(SCORED)
    assert (len(train) + len(held_out), 150 < len(held_out) < 250) == (1_000, True)
    assert split(list(reversed(SCORED)))[1] == list(reversed(held_out))
    # The same task asked again, other spaces and letters aside, stands on the same side.
    again = [ScoredAnswer(f"  TASK   {one.task.split()[1]}\n", "other", 0.5) for one in SCORED]
    assert [one.task.split()[1] for one in split(again)[1]] == [one.task.split()[1] for one in held_out]


def test_it_learns_from_the_best_known_answer_of_each_task() -> None:
    known = to_learn_from([*SCORED, ScoredAnswer("task 0", "better", 0.95)])
    assert len(known) == MAX_TRAINING_EXAMPLES
    assert known[0] == ScoredAnswer("task 0", "better", 0.95)
    assert [one.quality for one in known[1:]] == [0.9] * (MAX_TRAINING_EXAMPLES - 1)
    assert to_learn_from(list(reversed(SCORED))) == to_learn_from(SCORED)


def test_what_it_is_held_to_is_not_chosen_by_how_it_went() -> None:
    chosen = to_hold_out(SCORED)
    assert len(chosen) == MAX_HELD_OUT
    assert len({one.task for one in chosen}) == MAX_HELD_OUT
    worse = [ScoredAnswer(one.task, one.answer, 0.0) for one in SCORED]
    assert [one.task for one in to_hold_out(worse)] == [one.task for one in chosen]


def test_an_example_must_be_as_good_as_the_average() -> None:
    assert wanted_quality(SCORED) == pytest.approx(0.45)


def test_the_held_out_quality_must_not_fall() -> None:
    better = compare([(0.5, 0.6)] * MIN_HELD_OUT)
    assert (better.tasks, better.present) == (MIN_HELD_OUT, 0.5)
    assert better.candidate == pytest.approx(0.6)
    assert compare([(0.5, 0.5)] * MIN_HELD_OUT).candidate == 0.5
    with pytest.raises(
        Refused, match=r"quality of 0\.490 .* no less than the present version's 0\.500"
    ) as no:
        compare([(0.5, 0.49)] * MIN_HELD_OUT)
    assert no.value.code == "not_better"
    # Tasks that one of both failed at are left out of both.
    with pytest.raises(Refused, match="found 9 held-out tasks"):
        compare([(0.5, 0.9)] * 9 + [(None, 0.9)] * 20 + [(0.1, None)] * 20)


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ('{"quality": 0.7}', 0.7),
        ('```json\n{"quality": 1, "why": "fine"}\n```', 1.0),
        ('{"quality": true}', None),
        ('{"quality": 7}', None),
        ('{"quality": NaN}', None),
        ("[0.7]", None),
        ("It is good.", None),
    ],
)
def test_what_a_judge_said(text: str, quality: float | None) -> None:
    assert verdict(text) == quality


def test_the_judge_sees_task_and_answer() -> None:
    system, asked = question("You review.", "Add 1 and 2.", json.dumps({"total": 3}))
    assert (system.role, system.content, asked.role) == ("system", "You review.", "user")
    assert "## Task\nAdd 1 and 2.\n\n## Answer\n{" in asked.content
