"""Which step is next: pure bookkeeping over a plan, the same in every replay."""

from collections import deque
from collections.abc import Iterable

from schema.messages import Plan, PlanStep

COMPLETED = "completed"
SKIPPED = "skipped"


class Progress:
    """What has ended and what that makes ready.

    A step is ready when everything it needs or waits for has ended; it is skipped instead when one of its
    needs was skipped. Order follows the plan wherever it is free.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps = {step.id: step for step in plan.steps}
        self._order = {step.id: index for index, step in enumerate(plan.steps)}
        self._open = {step.id: {*step.needs, *step.waits} for step in plan.steps}
        self._dependants: dict[str, list[str]] = {step.id: [] for step in plan.steps}
        for step in plan.steps:
            for dependency in dict.fromkeys((*step.needs, *step.waits)):
                self._dependants[dependency].append(step.id)
        self.ended: dict[str, str] = {}
        self._ready = deque(step.id for step in plan.steps if not self._open[step.id])

    @property
    def done(self) -> bool:
        return len(self.ended) == len(self._steps)

    def take(self, limit: int) -> list[tuple[PlanStep, bool]]:
        """Up to `limit` ready steps, each with whether it may run; one that may not is to be skipped."""
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        return [(self._steps[name], self._may_run(self._steps[name])) for name in taken]

    def end(self, name: str, status: str) -> None:
        """Note that a step ended as `completed` or `skipped`."""
        self.ended[name] = status
        freed: list[str] = []
        for dependant in self._dependants[name]:
            self._open[dependant].discard(name)
            if not self._open[dependant]:
                freed.append(dependant)
        self._ready.extend(sorted(freed, key=self._order.__getitem__))

    def _may_run(self, step: PlanStep) -> bool:
        return all(self.ended[need] == COMPLETED for need in step.needs)


def table(plan: Plan, progress: Progress, running: Iterable[str]) -> str:
    """The state of every step as Markdown, for Temporal's UI."""
    marks = dict.fromkeys(running, "running") | progress.ended
    rows = [f"| {step.summary} | {marks.get(step.id, 'waiting')} |" for step in plan.steps[:200]]
    return "\n".join(["| step | state |", "|---|---|", *rows])
