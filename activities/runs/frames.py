"""Rules of maps, loops and switches, shared by the workflow and by activities that walk a plan. Pure: callers
record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from activities.runs.context import Scope
from activities.values import checked_output
from db.runs.executions import EXHAUSTED, LAST, Item
from schema.cel.expressions import Json, compile_expression, evaluate
from schema.errors import StepError
from schema.language.steps import LoopStep, MapStep, Step, SwitchStep
from schema.language.templates import described, render
from schema.temporal.steps import RepetitionState


def holds(source: str, scope: Scope) -> bool:
    """Evaluate a condition. Raises StepError if the value is not a boolean."""
    value = evaluate(compile_expression(source), scope)
    if not isinstance(value, bool):
        raise StepError(
            "expression_failed",
            f"the condition {source!r} came to {described(value)}; expected true or false. "
            "Compare it with something.",
        )
    return value


def branch(step: SwitchStep, scope: Scope) -> str:
    """The branch of the first case that holds."""
    return next((case.then for case in step.cases if holds(case.when, scope)), step.otherwise)


def opening(step: Step, scope: Scope) -> Json:
    """Return the items of a map, or the first carry of a loop."""
    if isinstance(step, LoopStep):
        return checked_output(render(step.init, scope))
    assert isinstance(step, MapStep)
    items = evaluate(compile_expression(step.over), scope)
    if not isinstance(items, list):
        raise StepError(
            "map_not_a_list",
            f"{step.over!r} came to {described(items)}; expected a list. "
            "Wrap a map in entries(), a single value in [ ].",
        )
    if len(items) > step.max_items:
        raise StepError(
            "map_too_wide",
            f"{step.over!r} came to {len(items):,} items; expected at most max_items, {step.max_items:,}.",
        )
    return checked_output(items)


@dataclass(frozen=True)
class IterationResult:
    """The end of one repetition."""

    output: Json
    carry: Json = None
    """In a loop: iter.carry of the next iteration."""
    last: bool = False
    error: StepError | None = None
    """Error of a loop whose `until` never held, if its definition calls that a failure."""

    @property
    def mark(self) -> str | None:
        """Return the mark by which a worker that takes over knows that there is no next iteration."""
        return EXHAUSTED if self.error else LAST if self.last else None


def turn(step: Step, template: object, scope: dict[str, Any], index: int) -> IterationResult:
    """Return the result of one repetition: `template` rendered over the steps of the body."""
    assert isinstance(step, (MapStep, LoopStep))
    output = checked_output(render(template, scope))
    if isinstance(step, MapStep):
        return IterationResult(output)
    now = {**scope, "iter": {**scope["iter"], "output": output}}
    held = step.until is not None and holds(step.until, now)
    carry = scope["iter"].get("carry") if step.carry is None else checked_output(render(step.carry, now))
    last = held or index + 1 >= step.max_iterations
    error = None
    if last and not held and step.until is not None and step.on_exhausted == "fail":
        error = _exhausted(step)
    return IterationResult(output, carry, last, error)


def _exhausted(step: LoopStep) -> StepError:
    return StepError(
        "loop_exhausted",
        f"{step.until!r} did not hold after {step.max_iterations:,} iterations; allow more, or say "
        '"on_exhausted": "continue".',
    )


def resumed(step: Step, count: int, rows: Sequence[Item]) -> RepetitionState:
    """Return where a map or loop goes on after the items in `rows`; raise the error that had ended it."""
    if isinstance(step, MapStep):
        done = [at for row in rows for at in (row.index, row.index + 1)]
        return RepetitionState(count=count, done=done, failed=sum(row.status == "failed" for row in rows))
    assert isinstance(step, LoopStep)
    if not rows:
        return RepetitionState()
    if rows[-1].branch == EXHAUSTED:
        raise _exhausted(step)
    return RepetitionState(next=step.max_iterations if rows[-1].branch == LAST else rows[-1].index + 1)
