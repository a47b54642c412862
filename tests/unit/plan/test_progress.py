"""The interpreter's bookkeeping: which step is next, what a skipped one means, what shares an activity."""

from plan.progress import CAUGHT, COMPLETED, OPEN, SKIPPED, FrameProgress, table
from schema.temporal.plan import Plan, PlanStep, RetryRule
from schema.temporal.steps import StepEnd

RETRY = RetryRule(max_attempts=1, initial_seconds=1, backoff=2, max_seconds=1)


def step(
    name: str, needs: str = "", waits: str = "", *, quorum: int = 0, chain: str = "", when: bool = False
) -> PlanStep:
    """`needs` may hold branches such as route:deep or code:!fix."""
    given = needs.split()
    return PlanStep(
        name,
        "transform",
        [one for one in given if ":" not in one],
        waits.split(),
        1.0,
        RETRY,
        name,
        branches=[one for one in given if ":" in one],
        quorum=quorum,
        chain=chain,
        conditional=when,
    )


def progress_of(*steps: PlanStep) -> FrameProgress:
    return FrameProgress(Plan(list(steps)))


def taken(progress: FrameProgress) -> list[tuple[str, bool]]:
    return [(step.id, may_run) for step, may_run in progress.take()]


def end(progress: FrameProgress, name: str, status: str = COMPLETED, branch: str = "") -> None:
    progress.end(StepEnd(name, status, branch))


def test_a_diamond_runs_its_middle_together_and_its_end_last() -> None:
    progress = progress_of(step("a"), step("b", "a"), step("c", "a"), step("d", "b c"))
    assert taken(progress) == [("a", True)]
    assert taken(progress) == []
    end(progress, "a")
    assert taken(progress) == [("b", True), ("c", True)]
    end(progress, "c")
    assert taken(progress) == []
    end(progress, "b")
    assert taken(progress) == [("d", True)]
    end(progress, "d")
    assert progress.done


def test_a_skipped_need_skips_what_needs_it_but_not_what_only_waits() -> None:
    progress = progress_of(
        step("a"), step("b", "a"), step("c", "b"), step("d", "a", waits="b"), step("e", waits="c")
    )
    taken(progress)
    end(progress, "a")
    assert taken(progress) == [("b", True)]
    end(progress, "b", SKIPPED)
    assert sorted(taken(progress)) == [("c", False), ("d", True)]
    end(progress, "c", SKIPPED)
    assert taken(progress) == [("e", True)]


def test_only_the_branch_that_a_switch_took_runs() -> None:
    progress = progress_of(step("route"), step("deep", "route:deep"), step("light", "route:light"))
    taken(progress)
    end(progress, "route", branch="light")
    assert taken(progress) == [("deep", False), ("light", True)]


def test_a_quorum_starts_as_soon_as_enough_have_completed_and_is_skipped_as_soon_as_too_few_can() -> None:
    progress = progress_of(
        step("a"), step("b"), step("c"), step("two", "a b c", quorum=2), step("all", "a b c", quorum=3)
    )
    taken(progress)
    end(progress, "b")
    assert taken(progress) == []
    end(progress, "a", SKIPPED)
    assert taken(progress) == [("all", False)]
    end(progress, "c")
    assert taken(progress) == [("two", True)]


def test_a_step_takes_over_only_for_the_failure_that_names_it() -> None:
    steps = (step("code"), step("other"), step("fix", "code:!fix other:!fix"), step("after", "code"))
    progress = progress_of(*steps)
    taken(progress)
    end(progress, "code", CAUGHT, "!fix")
    assert sorted(taken(progress)) == [("after", False), ("fix", True)]
    end(progress, "other")
    assert taken(progress) == []
    progress = progress_of(*steps)
    taken(progress)
    end(progress, "code")
    end(progress, "other")
    assert sorted(taken(progress)) == [("after", True), ("fix", False)]


def test_a_run_of_quick_steps_is_one_segment_with_the_conditions_behind_it() -> None:
    progress = progress_of(
        step("a", chain="quick"),
        step("b", "a", chain="quick"),
        step("c", "a", chain="quick"),
        step("d", "b c", chain="quick"),
        step("ask", "d", when=True),
        step("far", "ask", chain="quick"),
    )
    segments, singles = progress.take_units()
    assert [(one.members, one.gates, one.slow) for one in segments] == [
        (["a", "b", "c", "d"], ["ask"], False)
    ]
    assert singles == []
    for name in "abcd":
        end(progress, name)
    end(progress, "ask", OPEN)
    segments, singles = progress.take_units()
    assert segments == [] and [one.id for one in singles] == ["ask"]
    end(progress, "ask")
    assert [one.members for one in progress.take_units()[0]] == [["far"]]


def test_a_slow_step_keeps_only_its_own_neighbours_waiting() -> None:
    progress = progress_of(
        step("map", chain="slow"),
        step("sum", "map", chain="quick"),
        step("note", chain="quick"),
        step("call", "note"),
    )
    segments, _ = progress.take_units()
    assert sorted((one.members, one.gates, one.slow) for one in segments) == [
        (["map", "sum"], [], True),
        (["note"], ["call"], False),
    ]


def test_a_segment_is_told_how_what_it_depends_on_ended() -> None:
    progress = progress_of(step("call"), step("other"), step("sum", "call", chain="quick"))
    progress.take_units()
    end(progress, "other")
    end(progress, "call")
    (segment,) = progress.take_units()[0]
    assert progress.known_to(segment) == [StepEnd("call", COMPLETED)]


def test_a_run_that_goes_on_takes_nothing_that_has_ended() -> None:
    plan = Plan([step("a"), step("b", "a"), step("c", "b")])
    progress = FrameProgress(plan, [StepEnd("a", COMPLETED), StepEnd("b", COMPLETED)])
    assert taken(progress) == [("c", True)]


def test_the_table_tells_the_state_of_every_step() -> None:
    progress = progress_of(step("a"), step("b", "a"), step("c", "b"))
    taken(progress)
    end(progress, "a")
    text = table(progress, {"a": "running", "b": "running"})
    assert "| a | completed |" in text and "| b | running |" in text and "| c | waiting |" in text
