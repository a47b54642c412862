"""A dry run: a definition walked in this process, with answers given instead of asked for.

Transforms, switches, conditions, maps, loops, joins, `catch` and quick tools do what they always do. Models,
people, networks, timers and sub-collaborations have stand-ins, and pauses between attempts take no time.
Nothing is recorded. A map's items are done one after the other, so that answers are used in a known order.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from activities.rehearsal.mocked_steps import Misfit, RehearsalStop, StandIns, StepRehearsal
from activities.runs import frames
from activities.runs.frames import IterationResult
from activities.runs.in_process import InProcess
from activities.values import checked_output, storable
from plan.compile import CompiledDefinition, compiled
from plan.progress import CAUGHT, COMPLETED, SKIPPED, FrameProgress
from plan.walk import inner, walk
from schema.cel.expressions import Json
from schema.errors import FacilitairError, Problem, Refused, StepError
from schema.language import json_schemas
from schema.language.catalogue import BUILT_IN, Catalogue, from_json
from schema.language.definition import Definition
from schema.language.json_numbers import as_declared
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    HumanStep,
    SwitchStep,
    ToolStep,
    TransformStep,
    WaitStep,
)
from schema.language.templates import render
from schema.rules import answers as rules_answers
from schema.rules import mocks
from schema.rules.mocks import Mocks
from schema.temporal.plan import Plan, PlanStep
from schema.temporal.steps import StepEnd

MAX_STEPS: Final = 10_000
MAX_SECONDS: Final = 8.0
MAX_HELD_CHARS: Final = 64 * 1024 * 1024
"""Bound on all outputs together, as JSON."""
MAX_SHOWN: Final = 2_048
"""Characters of one value in the trace."""
MAX_TRACE_CHARS: Final = 4 * 1024 * 1024
"""Bound on all values in the trace; later ones are left out."""

_RUN: Final = {"id": "dry-run", "version": "0", "tenant": "default"}


@dataclass
class RehearsalEntry:
    """One attempt at a step, one repetition of a body, or a map or loop as a whole."""

    path: str
    kind: str
    """The step's kind; `item` of a repetition."""
    status: str
    """completed, skipped, caught, failed, or cancelled when something else ended the run."""
    attempt: int = 1
    branch: str = ""
    input: Json = None
    """The rendered prompt, arguments, list or carry; a long one as the beginning of its text."""
    output: Json = None
    error: dict[str, str] | None = None
    mocked: str = ""
    """`mock`, or `default` where the output was made up."""


@dataclass(frozen=True)
class Rehearsal:
    """Result of a dry run."""

    status: str
    """completed, failed, or stopped at a limit of the dry run itself."""
    output: Json
    error: dict[str, str] | None
    trace: list[RehearsalEntry]
    """Entries in the order in which they began."""
    executed: int
    """Attempts at steps, and repetitions."""
    model_calls: int
    """Calls that a real run would have made."""
    defaulted: list[str]
    """Steps with a made-up output, as no answer was given."""
    never_reached: list[str]
    """Steps that were neither run nor skipped."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class MocksInvalid(Refused):
    """Answers that cannot be those of their steps; pointers lead into the mocks."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("mocks_invalid", f"{problems[0].pointer or '/'}: {problems[0].message}")
        self.problems = problems


def rehearse(
    definition: Definition,
    input: Json,
    answers: Mocks,
    catalogue: Catalogue = BUILT_IN,
    *,
    max_steps: int = MAX_STEPS,
    max_seconds: float = MAX_SECONDS,
) -> Rehearsal:
    """Walk a valid definition; runs an event loop of its own.

    Raises Refused("input_invalid"), and MocksInvalid.
    """
    if problems := mocks.check(definition, answers):
        raise MocksInvalid(problems)
    given = as_declared(definition.input, json_schemas.with_defaults(definition.input, input))
    if shown := json_schemas.faults(definition.input, given):
        raise Refused("input_invalid", f"the input does not fit {definition.name!r}: {shown}.")
    found = compiled("", definition.model_dump_json(by_alias=True, exclude_unset=True))
    stand_ins = StandIns(answers, catalogue)
    return asyncio.run(_Stage(found, storable(given), stand_ins, max_steps, max_seconds).play())


class _Stage(InProcess):
    """The port of a dry run."""

    def __init__(
        self, found: CompiledDefinition, input: Json, stand_ins: StandIns, max_steps: int, max_seconds: float
    ) -> None:
        facts = {**_RUN, "name": found.definition.name}
        super().__init__(found)
        self.scopes[""] = {"input": input, "steps": {}, "run": facts}
        self._stand_ins = stand_ins
        self._max_steps, self._max_seconds = max_steps, max_seconds
        self._ends_at = time.monotonic() + max_seconds
        self._held = self._shown = 0
        self._trace: list[RehearsalEntry] = []
        self._last: dict[str, RehearsalEntry] = {}
        """path → its last entry."""

    async def play(self) -> Rehearsal:
        output: Json = None
        error: dict[str, str] | None = None
        status = COMPLETED
        try:
            await walk(self, FrameProgress(_one_after_the_other(self.found.plan)), "")
            output = checked_output(render(self.found.outputs[""], self.scopes[""]))
        except StepError as fault:
            status, error = "failed", _facts(fault)
        except RehearsalStop as reason:
            status, error = "stopped", _facts(reason)
        for entry in self._trace:
            if entry.status == "running":
                entry.status = "cancelled"
        reached = {entry.path.rpartition(".")[2] for entry in self._trace}
        return Rehearsal(
            status,
            output,
            error,
            self._trace,
            len(self._trace),
            self._stand_ins.model_calls,
            list(self._stand_ins.defaulted),
            [name for name in self.found.steps if name not in reached],
        )

    async def _begin(self, step: PlanStep, may_run: bool, frame: str) -> Sequence[StepEnd]:
        try:
            return await super()._begin(step, may_run, frame)
        except StepError as error:
            self._fail(step, frame, error)
            raise

    async def do(self, step: PlanStep, frame: str) -> StepEnd:
        definition = self.found.steps[step.id]
        asked = isinstance(definition, (AgentStep, ToolStep))
        most = rules_answers.rules_of(definition).max if isinstance(definition, AgentStep) else 0
        further, tries = most, 1
        while True:
            entry = self._note(step, frame, "running")
            try:
                return self._attempt(step, frame, entry)
            except Misfit as error:
                self._fail(step, frame, error)
                if not further:
                    raise
                further -= 1
            except StepError as error:
                self._fail(step, frame, error)
                rule = step.retry
                if not (asked and error.retryable) or error.code in rule.never or tries >= rule.max_attempts:
                    raise
                further, tries = most, tries + 1

    def _attempt(self, step: PlanStep, frame: str, entry: RehearsalEntry) -> StepEnd:
        definition, scope, come = self.found.steps[step.id], self.scopes[frame], StepRehearsal()
        more: dict[str, Any] = {}
        try:
            match definition:
                case TransformStep():
                    come.output = render(definition.value, scope)
                case SwitchStep():
                    come.output = entry.branch = more["branch"] = frames.branch(definition, scope)
                case AgentStep():
                    agent = self.found.definition.agents[definition.agent]
                    more["model"] = self._stand_ins.catalogue.model_of(agent)
                    more["finish_reason"] = "stop"
                    self._stand_ins.agent(step.id, definition, scope, come)
                case ToolStep():
                    self._stand_ins.tool(step.id, definition, scope, come)
                case HumanStep():
                    self._stand_ins.human(step.id, definition, scope, come)
                case CollaborationStep():
                    self._stand_ins.collaboration(step.id, definition, scope, come)
                case WaitStep():
                    self._stand_ins.wait(step.id, definition, scope, come)
                case _:
                    raise AssertionError(f"a step of kind {step.kind} has a body")
            output = checked_output(come.output)
        finally:
            entry.input, entry.mocked = self._show(come.input), come.mocked
        self._complete(entry, output)
        self.see(frame, step.id, COMPLETED, output=output, **more)
        return StepEnd(step.id, COMPLETED, entry.branch)

    async def note_skipped(self, step: PlanStep, frame: str) -> None:
        self._note(step, frame, SKIPPED)

    async def note_opened(self, step: PlanStep, frame: str, value: Json) -> None:
        self._hold(value)
        self._note(step, frame, "running").input = self._show(value)

    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        await super().enter(step, frame, index)
        self._add(RehearsalEntry(f"{inner(frame, step.id)}[{index}]", "item", "running"))

    async def note_item(
        self, step: PlanStep, frame: str, index: int, turn: IterationResult | None, error: StepError | None
    ) -> None:
        entry = self._last[f"{inner(frame, step.id)}[{index}]"]
        if turn:
            self._hold(turn.carry)
            self._complete(entry, turn.output)
        elif error:
            entry.status, entry.error = "failed", _facts(error)

    async def note_closed(self, step: PlanStep, frame: str, output: Json) -> None:
        # Its output was counted with its items.
        entry = self._last[inner(frame, step.id)]
        entry.status, entry.output = COMPLETED, self._show(output)

    async def note_caught(self, step: PlanStep, frame: str, then: str, value: Json, error: StepError) -> None:
        self._fail(step, frame, error)
        entry = self._last[inner(frame, step.id)]
        if then:
            entry.status = CAUGHT
        else:
            self._complete(entry, value)

    def _note(self, step: PlanStep, frame: str, status: str) -> RehearsalEntry:
        path = inner(frame, step.id)
        before = self._last.get(path)
        return self._add(RehearsalEntry(path, step.kind, status, before.attempt + 1 if before else 1))

    def _add(self, entry: RehearsalEntry) -> RehearsalEntry:
        if len(self._trace) >= self._max_steps:
            raise RehearsalStop(
                "rehearsal_too_long",
                f"stopped after {self._max_steps:,} steps; let the mocks come to shorter lists and "
                "fewer iterations.",
            )
        if time.monotonic() > self._ends_at:
            raise RehearsalStop(
                "rehearsal_too_long", f"stopped after {self._max_seconds:g} s; let it do less."
            )
        self._trace.append(entry)
        self._last[entry.path] = entry
        return entry

    def _complete(self, entry: RehearsalEntry, output: Json) -> None:
        self._hold(output)
        entry.status, entry.output = COMPLETED, self._show(output)

    def _fail(self, step: PlanStep, frame: str, error: StepError) -> None:
        """Note why the step failed, unless that is noted already."""
        entry = self._last.get(inner(frame, step.id)) or self._note(step, frame, "running")
        entry.status, entry.error = "failed", _facts(error)

    def _hold(self, value: Json) -> None:
        self._held += len(json.dumps(value, ensure_ascii=False))
        if self._held > MAX_HELD_CHARS:
            raise RehearsalStop(
                "rehearsal_too_long", f"stopped at {MAX_HELD_CHARS:,} characters of outputs; let it do less."
            )

    def _show(self, value: Json) -> Json:
        """The value as the trace has room for it."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self._shown += min(len(text), MAX_SHOWN)
        if self._shown > MAX_TRACE_CHARS:
            return None if value is None else "…"
        return value if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text):,} characters)"


def _one_after_the_other(plan: Plan) -> Plan:
    """The plan without what happens at the same time: items go one by one, and who would read others live
    reads their whole answer."""
    return Plan(
        [
            replace(
                step,
                concurrency=min(step.concurrency, 1),
                body=_one_after_the_other(step.body) if step.body else None,
                needs=[*step.needs, *step.streams],
                streams=[],
            )
            for step in plan.steps
        ]
    )


def _facts(error: FacilitairError | RehearsalStop) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def serve() -> None:
    """For a process that can be ended whatever it does: answer lines of JSON, {definition, input, mocks,
    catalogue}, by `found` and the rehearsal or `refused` and why, until stdin ends. Definitions are valid;
    mocks fit."""
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        definition = Definition.model_validate(asked["definition"])
        try:
            answers, _ = mocks.read(asked["mocks"])
            found = rehearse(definition, asked["input"], answers, from_json(asked["catalogue"]))
            print("found", json.dumps(found.as_json()), flush=True)
        except Refused as error:
            print("refused", json.dumps(_facts(error)), flush=True)


if __name__ == "__main__":
    serve()
