"""The interpreter's bookkeeping: which step is next, and what a skipped one means for those behind it."""

from schema.messages import Plan, PlanStep, RetryRule
from workflows.plan import COMPLETED, SKIPPED, Progress, table

RETRY = RetryRule(max_attempts=1, initial_seconds=1, backoff=2, max_seconds=1)


def step(name: str, needs: str = "", waits: str = "") -> PlanStep:
    return PlanStep(name, "transform", needs.split(), waits.split(), 1.0, RETRY, name)


def taken(progress: Progress, limit: int = 99) -> list[tuple[str, bool]]:
    return [(step.id, may_run) for step, may_run in progress.take(limit)]


def test_a_diamond_runs_its_middle_together_and_its_end_last() -> None:
    progress = Progress(Plan([step("a"), step("b", "a"), step("c", "a"), step("d", "b c")]))
    assert taken(progress) == [("a", True)]
    assert taken(progress) == []
    progress.end("a", COMPLETED)
    assert taken(progress) == [("b", True), ("c", True)]
    progress.end("c", COMPLETED)
    assert taken(progress) == []
    progress.end("b", COMPLETED)
    assert taken(progress) == [("d", True)]
    progress.end("d", COMPLETED)
    assert progress.done


def test_a_skipped_need_skips_what_needs_it_but_not_what_only_waits() -> None:
    progress = Progress(
        Plan([step("a"), step("b", "a"), step("c", "b"), step("d", "a", waits="b"), step("e", waits="c")])
    )
    taken(progress)
    progress.end("a", COMPLETED)
    assert taken(progress) == [("b", True)]
    progress.end("b", SKIPPED)
    assert taken(progress) == [("c", False), ("d", True)]
    progress.end("c", SKIPPED)
    assert taken(progress) == [("e", True)]


def test_the_limit_holds_steps_back_in_order() -> None:
    progress = Progress(Plan([step(name) for name in "abcd"]))
    assert taken(progress, 3) == [("a", True), ("b", True), ("c", True)]
    assert taken(progress, 0) == []
    assert taken(progress, 3) == [("d", True)]


def test_steps_freed_together_follow_the_plan_whatever_was_written_first() -> None:
    progress = Progress(Plan([step("a"), step("z", "a"), step("m", "a"), step("b", "a")]))
    taken(progress)
    progress.end("a", COMPLETED)
    assert [name for name, _ in taken(progress)] == ["z", "m", "b"]


def test_the_table_shows_every_state() -> None:
    progress = Progress(Plan([step("a"), step("b", "a"), step("c", "b")]))
    taken(progress)
    progress.end("a", COMPLETED)
    assert table(Plan([step("a"), step("b", "a"), step("c", "b")]), progress, ["b"]) == (
        "| step | state |\n|---|---|\n| a | completed |\n| b | running |\n| c | waiting |"
    )
