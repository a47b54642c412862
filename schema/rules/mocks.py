"""Mocks of models, people and networks in a dry run: their shapes, and whether they fit a definition."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import Field, ValidationError

from schema.cel.expressions import Json
from schema.errors import Problem
from schema.language.definition import Definition
from schema.language.dependencies import walk
from schema.language.problems import nearest, show
from schema.language.steps import AgentStep, HumanStep, Shape, Step
from schema.language.templates import escape
from schema.rules.people import refused
from schema.temporal.people import Decision, QuestionState

MAX_ANSWERS: Final = 1_000
"""Most answers for one step; the last one stands for all that follow."""
SOMEBODY: Final = "user:somebody"
_EVALUATED: Final = ("transform", "switch", "map", "loop")


class Failure(Shape):
    """The step fails, as a provider, a tool or a child would."""

    code: str = Field(min_length=1, max_length=200)
    message: str = Field(default="", max_length=10_000)
    retryable: bool | None = Field(
        default=None,
        description="Whether the step's retry applies. Absent: as errors of this code usually are.",
    )


class MockedExecution(Shape):
    """The mocked result of one execution: exactly one of output, error and decision."""

    output: Any = Field(default=None, description="The step's output.")
    error: Failure | None = None
    decision: str = Field(default="", description="Of a human step the id of an action.")
    form: dict[str, Any] = Field(default_factory=dict, description="What the person filled in.")
    edited: Any = Field(default=None, description="What the person replaced the shown value by.")
    by: str = Field(default=SOMEBODY, description="user:<name>")


Mocks = Mapping[str, Sequence[MockedExecution]]
"""step → its answers, in the order of its executions: attempts, items and iterations alike."""


def read(given: Json) -> tuple[Mocks, list[Problem]]:
    """The mocks in a JSON value, and what is wrong with its shape."""
    if not isinstance(given, dict):
        return {}, [_wrong("", show(given), "an object: step to list of answers", "See docs/dry-run.md.")]
    mocks: dict[str, list[MockedExecution]] = {}
    problems: list[Problem] = []
    for name, answers in given.items():
        pointer = f"/{escape(name)}"
        if not isinstance(answers, list) or not 0 < len(answers) <= MAX_ANSWERS:
            problems.append(
                _wrong(pointer, show(answers), f"a list of 1 to {MAX_ANSWERS:,} answers", "Wrap it in [ ].")
            )
            continue
        mocks[name] = []
        for index, answer in enumerate(answers):
            try:
                mocks[name].append(MockedExecution.model_validate(answer))
            except ValidationError as error:
                problems += [
                    _wrong(
                        f"{pointer}/{index}" + "".join(f"/{escape(str(part))}" for part in item["loc"]),
                        show(item["input"]),
                        item["msg"].lower(),
                        "See docs/dry-run.md.",
                    )
                    for item in error.errors()[:5]
                ]
    return mocks, problems


def check(definition: Definition, mocks: Mocks) -> list[Problem]:
    """Return why mocks do not fit a definition; pointers lead into the mocks."""
    steps = {name: step for _, name, step, _ in walk(definition.steps)}
    return [problem for name, answers in mocks.items() for problem in _check(steps, name, answers)]


def _check(steps: Mapping[str, Step], name: str, answers: Sequence[MockedExecution]) -> Iterator[Problem]:
    pointer = f"/{escape(name)}"
    step = steps.get(name)
    if step is None:
        yield _wrong(pointer, f"the step {show(name)}", "a step of the definition", nearest(name, steps))
    elif step.kind in _EVALUATED:
        yield _wrong(
            pointer,
            f"answers for a step of kind {step.kind}",
            "a step that asks somebody",
            "It is really evaluated: remove it, and mock what it reads.",
        )
    else:
        for index, answer in enumerate(answers):
            yield from _check_answer(f"{pointer}/{index}", step, answer)


def _check_answer(pointer: str, step: Step, answer: MockedExecution) -> Iterator[Problem]:
    human = isinstance(step, HumanStep)
    given = ["output"] if "output" in answer.model_fields_set else []
    given += [word for word in ("error", "decision") if getattr(answer, word)]
    allowed = ("decision", "error") if human else ("output", "error")
    if len(given) != 1 or given[0] not in allowed:
        yield _wrong(
            pointer,
            " and ".join(given) or "nothing",
            f"either {allowed[0]} or error",
            f"Of a step of kind {step.kind} say what it comes to.",
        )
        return
    if not human and not answer.model_fields_set.isdisjoint(("form", "edited", "by")):
        yield _wrong(pointer, "form, edited or by", "what a step that asks no people has", "Remove it.")
    if isinstance(step, AgentStep) and not (step.output_schema or step.emits or answer.error):
        if not isinstance(answer.output, str):
            yield _wrong(
                f"{pointer}/output",
                show(answer.output),
                "text",
                "An agent without output_schema answers with text.",
            )
    elif isinstance(step, HumanStep) and (fault := _refusal(step, answer)):
        yield _wrong(pointer, show(answer.decision), "a decision that the step takes", fault)


def _refusal(step: HumanStep, answer: MockedExecution) -> str | None:
    if not answer.decision:
        return None
    actions = [{"id": one.id, "requires": one.requires, "edits": one.edits} for one in step.actions]
    # In a dry run everyone may decide.
    decision = Decision("", answer.decision, answer.by, form=answer.form, edited=answer.edited)
    fault = refused(QuestionState(actions=actions, form=step.form), decision)
    return fault.message if fault else None


def _wrong(pointer: str, found: str, expected: str, fix: str) -> Problem:
    return Problem("mocks_invalid", pointer, found, expected, fix)
