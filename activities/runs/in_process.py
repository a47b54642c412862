"""Walking a plan within one process: what expressions see is kept in memory.

Who walks says what a step does, and what becomes of what is noted: nothing here records or waits.
"""

from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Sequence
from typing import Any

from activities.runs import frames
from activities.runs.context import item_fact
from activities.runs.frames import IterationResult
from activities.values import checked_output
from plan.compile import CompiledDefinition
from plan.progress import CAUGHT, COMPLETED, OPEN, SKIPPED, FrameProgress
from plan.walk import Work, inner, one, rescued
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language.steps import LoopStep
from schema.language.templates import render
from schema.temporal.plan import PlanStep
from schema.temporal.steps import ItemResult, RepetitionState, StepEnd


class InProcess(ABC):
    """A port for `plan.walk.walk`, apart from what steps do."""

    def __init__(self, found: CompiledDefinition) -> None:
        self.found = found
        self.scopes: dict[str, dict[str, Any]] = {}
        """frame → what its expressions see."""
        self.lists: dict[str, list[Json]] = {}
        """path of a map → its items."""
        self.carries: dict[str, Json] = {}
        """path of a loop → iter.carry."""
        self.results: dict[str, dict[int, dict[str, Any]]] = {}
        """path of a map or loop → index → what `items[i]` holds; of a loop the last only."""

    @abstractmethod
    async def do(self, step: PlanStep, frame: str) -> StepEnd:
        """Do one step that has no body; raises StepError when it failed for good."""

    @abstractmethod
    async def note_skipped(self, step: PlanStep, frame: str) -> None: ...
    @abstractmethod
    async def note_opened(self, step: PlanStep, frame: str, value: Json) -> None:
        """A map begins with the list `value`, a loop with that as its carry."""

    @abstractmethod
    async def note_item(
        self, step: PlanStep, frame: str, index: int, turn: IterationResult | None, error: StepError | None
    ) -> None:
        """A repetition has ended: with a turn, or, of a map that tolerates it, with an error."""

    @abstractmethod
    async def note_closed(self, step: PlanStep, frame: str, output: Json) -> None: ...
    @abstractmethod
    async def note_caught(
        self, step: PlanStep, frame: str, then: str, value: Json, error: StepError
    ) -> None: ...

    def draining(self) -> bool:
        return False

    def begin(self, progress: FrameProgress, frame: str) -> list[Work]:
        return [self._begin(step, may_run, frame) for step, may_run in progress.take()]

    async def _begin(self, step: PlanStep, may_run: bool, frame: str) -> Sequence[StepEnd]:
        if not may_run:
            return [await self._skip(step, frame)]
        ended = await rescued(self, step, frame, self._decide(step, frame))
        return await self._go_on(step, frame, ended) if ended.status == OPEN else [ended]

    async def _go_on(self, step: PlanStep, frame: str, opened: StepEnd) -> Sequence[StepEnd]:
        """The step's condition holds."""
        return await one(self, step, frame)

    async def _decide(self, step: PlanStep, frame: str) -> StepEnd:
        when = self.found.steps[step.id].when
        if when is None or frames.holds(when, self.scopes[frame]):
            return StepEnd(step.id, OPEN)
        return await self._skip(step, frame)

    async def _skip(self, step: PlanStep, frame: str) -> StepEnd:
        await self.note_skipped(step, frame)
        self.see(frame, step.id, SKIPPED)
        return StepEnd(step.id, SKIPPED)

    async def open(self, step: PlanStep, frame: str) -> RepetitionState:
        value = frames.opening(self.found.steps[step.id], self.scopes[frame])
        await self.note_opened(step, frame, value)
        return self.over(step, frame, value)

    def over(self, step: PlanStep, frame: str, value: Json) -> RepetitionState:
        """Begin at the first repetition."""
        path = inner(frame, step.id)
        self.results[path] = {}
        if step.kind == "map":
            self.lists[path] = value
            return RepetitionState(count=len(value))
        self.carries[path] = value
        return RepetitionState()

    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        """Make the scope of a repetition: what is around it, and what repeats."""
        path, outer = inner(frame, step.id), self.scopes[frame]
        here: dict[str, Any] = {**outer, "steps": ChainMap({}, outer["steps"])}
        if step.kind == "map":
            here |= {"item": self.lists[path][index], "index": index}
        else:
            before = self.results[path].get(index - 1, {})
            here["iter"] = {"index": index, "carry": self.carries[path], "previous": before.get("output")}
        self.scopes[f"{path}[{index}]"] = here

    async def end_item(self, step: PlanStep, frame: str, index: int, error: StepError | None) -> ItemResult:
        definition, path = self.found.steps[step.id], inner(frame, step.id)
        here = self.scopes.pop(f"{path}[{index}]")
        if error:
            await self.note_item(step, frame, index, None, error)
            self.results[path][index] = item_fact("failed", None, error.code, error.message)
            return ItemResult()
        turn = frames.turn(definition, self.found.outputs[step.id], here, index)
        await self.note_item(step, frame, index, turn, None)
        if isinstance(definition, LoopStep):
            self.carries[path] = turn.carry
            self.results[path].pop(index - 1, None)
        self.results[path][index] = item_fact(COMPLETED, turn.output, None, None)
        if turn.error:
            raise turn.error
        return ItemResult(turn.last)

    async def fail(self, step: PlanStep, frame: str, error: StepError) -> None:
        """Keep nothing of a map or loop that failed for good."""
        self._forget(inner(frame, step.id))

    async def close(self, step: PlanStep, frame: str) -> StepEnd:
        results = self._forget(inner(frame, step.id))
        items = [results[index] for index in sorted(results)]
        output: Json = [item.get("output") for item in items]
        more: dict[str, Any] = {"items": items}
        if step.kind == "loop":
            output = items[-1].get("output") if items else None
            more = {"iterations": max(results, default=-1) + 1}
        await self.note_closed(step, frame, checked_output(output))
        self.see(frame, step.id, COMPLETED, output=output, **more)
        return StepEnd(step.id, COMPLETED)

    def _forget(self, path: str) -> dict[int, dict[str, Any]]:
        """Return the outputs of a map's or loop's repetitions, which nothing reads any more."""
        self.lists.pop(path, None)
        self.carries.pop(path, None)
        return self.results.pop(path)

    async def caught(self, step: PlanStep, frame: str, rule: int, error: StepError) -> StepEnd:
        found = self.found.steps[step.id].catch[rule]
        then = found.then or ""
        value = None if then else checked_output(render(found.value, self.scopes[frame]))
        await self.note_caught(step, frame, then, value, error)
        facts: dict[str, Any] = {"error": {"code": error.code, "message": error.message}}
        if step.kind == "agent":
            facts["finish_reason"] = ""
        if then:
            self.see(frame, step.id, CAUGHT, **facts)
            return StepEnd(step.id, CAUGHT, f"!{then}")
        self.see(frame, step.id, COMPLETED, output=value, **facts)
        return StepEnd(step.id, COMPLETED)

    def see(self, frame: str, name: str, status: str, *, model: str = "", **facts: Any) -> None:
        """From now on expressions see how the step ended."""
        self.scopes[frame]["steps"][name] = {"status": status, "model": model, **facts}
