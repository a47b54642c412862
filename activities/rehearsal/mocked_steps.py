"""Step outcomes in a dry run: the given mocks, or made-up values that fit."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from activities.tools import text
from activities.values import as_promised, moment_of, output_fault, storable
from schema.cel.expressions import Json
from schema.errors import InvalidDefinition, StepError
from schema.language import document, json_schemas
from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.json_numbers import as_declared
from schema.language.samples import sample
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    HumanStep,
    JsonSchema,
    ToolStep,
    WaitStep,
    seconds,
)
from schema.language.templates import as_text, render
from schema.language.tools import TOOLS
from schema.rules import answers as rules_answers
from schema.rules import planning
from schema.rules.mocks import SOMEBODY, MockedExecution, Mocks
from schema.rules.validate import validate

_QUICK: Final[Mapping[str, Callable[..., Json]]] = {
    "text.diff": text.diff,
    "text.code_blocks": text.code_blocks,
    "json.parse": text.parse_json,
    "pause": lambda seconds: {"seconds": seconds},
}
"""Tools that do what they always do, apart from taking time."""
_MADE_UP: Final[Mapping[str | None, Json]] = {
    "http": {"status": 200, "headers": {}, "body": None},
    "python.check": {"findings": [], "found_issues": False, "lines": 1, "truncated": False},
}
_RETRYABLE: Final = frozenset(
    (
        "provider_rate_limited",
        "provider_unavailable",
        "provider_timeout",
        "provider_stream_cut",
        "tool_unreachable",
        "timeout",
        "io_error",
        "database_unavailable",
    )
)


class RehearsalStop(Exception):
    """The dry run goes no further; says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class MockedError(StepError):
    """The error that an answer holds."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(code, message)
        self.retryable = retryable


class Misfit(StepError):
    """An agent's answer that is not what its step promises: the agent may be asked again."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("output_invalid", f"the model's answer does not fit: {'; '.join(faults[:3])}")


@dataclass
class StepRehearsal:
    """Input and output of one rehearsed execution, filled in as far as it gets."""

    input: Json = None
    output: Json = None
    mocked: str = ""
    """`mock`, or `default` where the output was made up."""


@dataclass
class StandIns:
    answers: Mocks
    catalogue: Catalogue = BUILT_IN
    model_calls: int = 0
    defaulted: dict[str, None] = field(default_factory=dict)
    """Steps that got a made-up output."""
    _used: dict[str, int] = field(default_factory=dict)

    def agent(self, name: str, step: AgentStep, scope: Mapping[str, Json], come: StepRehearsal) -> None:
        """Raises Misfit, MockedError, or StepError when the prompt cannot be made."""
        come.input = prompt = as_text(render(step.prompt, scope))
        self.model_calls += 1
        if answer := self._answer(name, come):
            come.output = as_declared(step.output_schema or {}, storable(answer.output))
            if found := rules_answers.faults(step, come.output, scope, self.catalogue):
                raise Misfit(found)
        elif step.emits:
            come.output = planning.EXAMPLE
        elif step.output_schema is not None:
            come.output = _made_up(name, step.output_schema)
        else:
            come.output = f"{step.agent}: {prompt[:80]}"

    def tool(self, name: str, step: ToolStep, scope: Mapping[str, Json], come: StepRehearsal) -> None:
        """Raises StepError."""
        come.input = args = render(step.args, scope)
        if step.tool and (wrong := json_schemas.faults(TOOLS[step.tool].args, args, most=1)):
            raise StepError("tool_args_wrong", f"{step.tool}: {wrong}.")
        quick = _QUICK.get(step.tool or "")
        if quick and name not in self.answers:
            come.output = storable(quick(**args))
        elif answer := self._answer(name, come, fails_softly=step.activity is not None):
            come.output = storable(answer.output)
        elif step.output_schema is not None:
            come.output = _made_up(name, step.output_schema)
        else:
            come.output = _MADE_UP.get(step.tool)
        come.output = as_promised(step, come.output)
        if fault := output_fault(step, come.output):
            raise StepError("output_invalid", fault)

    def human(self, name: str, step: HumanStep, scope: Mapping[str, Json], come: StepRehearsal) -> None:
        """Raises StepError."""
        show = render(step.show, scope)
        come.input = {"title": as_text(render(step.title, scope)), "show": show}
        answer = self._answer(name, come)
        if answer is None:
            form = _made_up(name, step.form) if step.form else {}
            answer = MockedExecution(decision=step.actions[0].id, form=form)
        form = as_declared(step.form or {}, storable(answer.form))
        come.output = _decided(step, show, form, storable(answer.edited), answer)

    def collaboration(
        self, name: str, step: CollaborationStep, scope: Mapping[str, Json], come: StepRehearsal
    ) -> None:
        """Raises StepError."""
        come.input = render(step.input, scope)
        if step.definition is not None:
            _check_plan(render(step.definition, scope), come.input, self.catalogue)
        answer = self._answer(name, come)
        come.output = storable(answer.output) if answer else None

    def wait(self, name: str, step: WaitStep, scope: Mapping[str, Json], come: StepRehearsal) -> None:
        """Raises StepError."""
        come.input = step.duration or render(step.until, scope)
        until = _until(step, come.input)
        answer = self._answer(name, come, is_guess=False)
        come.output = storable(answer.output) if answer else {"until": until.isoformat()}

    def _answer(
        self, name: str, come: StepRehearsal, *, fails_softly: bool = False, is_guess: bool = True
    ) -> MockedExecution | None:
        """The next of the step's answers, the last again when there are no more; raises MockedError."""
        answers = self.answers.get(name)
        if not answers:
            if is_guess:
                come.mocked = "default"
                self.defaulted[name] = None
            return None
        come.mocked = "mock"
        at = self._used[name] = self._used.get(name, -1) + 1
        answer = answers[min(at, len(answers) - 1)]
        if error := answer.error:
            retryable = error.retryable
            if retryable is None:
                retryable = fails_softly or error.code in _RETRYABLE
            raise MockedError(error.code, error.message or "as the mock says", retryable=retryable)
        return answer


def _made_up(name: str, schema: JsonSchema) -> Json:
    output = sample(schema)
    if fault := json_schemas.faults(schema, output, most=1):
        raise RehearsalStop(
            "mock_missing",
            f"found no plain value that fits what {name!r} promises ({fault}); "
            f"give answers for {name!r} in the mocks.",
        )
    return output


def _check_plan(value: Json, given: Json, catalogue: Catalogue) -> None:
    """Raises StepError, as a real run would of a definition that a step wrote."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        plan = document.load(text.encode("utf-8", "replace"))
        named = {**plan, "name": "plan"} if isinstance(plan, dict) else plan
        found = validate(named, name="plan", catalogue=catalogue, planned=True).definition
    except InvalidDefinition as error:
        raise StepError("plan_invalid", error.message) from None
    full = json_schemas.with_defaults(found.input, given)
    if fault := json_schemas.faults(found.input, full, most=1):
        raise StepError("input_invalid", f"the input of the plan at {fault}")


def _decided(
    step: HumanStep, show: dict[str, Json], form: dict[str, Any], edited: Json, answer: MockedExecution
) -> dict[str, Json]:
    """Build the output of a human step on which enough people decide the same."""
    people = [answer.by, *(f"{SOMEBODY}_{number}" for number in range(2, step.approvals + 1))]
    edits = next(action.edits for action in step.actions if action.id == answer.decision)
    now = datetime.now(UTC).isoformat()
    return {
        "decision": answer.decision,
        "by": people,
        "form": form,
        "value": (show.get(edits) if edited is None else edited) if edits else None,
        "decisions": [{"actor": one, "action": answer.decision, "form": form, "at": now} for one in people],
    }


def _until(step: WaitStep, given: Json) -> datetime:
    if step.duration is not None:
        return datetime.now(UTC) + timedelta(seconds=seconds(step.duration))
    return moment_of(given)
