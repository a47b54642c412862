"""From JSON to typed parts: what this release does not support, and what pydantic finds, as our problems."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from schema.definition import Definition
from schema.expressions import Json
from schema.problems import Problems, kind_of, show
from schema.steps import (
    DURATION,
    FUTURE_FIELDS,
    FUTURE_KINDS,
    FUTURE_STEP_FIELDS,
    NAME,
    RESERVED_IDS,
    STEP_ID,
    Agent,
    AgentStep,
    Step,
    StepId,
    ToolStep,
    TransformStep,
)
from schema.templates import escape

M = TypeVar("M", bound=BaseModel)

_KINDS: Final[dict[str, type[AgentStep] | type[ToolStep] | type[TransformStep]]] = {
    "agent": AgentStep, "tool": ToolStep, "transform": TransformStep,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """A document as far as it could be read."""

    document: dict[str, Json]
    """Without what this release does not support."""
    agents: dict[str, Agent]
    steps: dict[str, Step]
    agent_names: Collection[str]
    step_ids: Collection[str]
    """Also those of malformed steps: naming one is no second problem."""
    definition: Definition | None
    """The whole, when nothing in it is malformed."""


class _Outline(Definition):
    """A definition apart from what its agents and steps hold."""

    agents: dict[str, Any] = Field(default_factory=dict)
    steps: dict[StepId, Any] = Field(min_length=1)


def read(uploaded: dict[str, Json], problems: Problems) -> Parts:
    """Every item is parsed by itself, so that one malformed step does not hide the others."""
    document = _without_future(uploaded, problems)
    raw_agents, raw_steps = _items(document, "agents"), _items(document, "steps")
    agents = {
        name: agent
        for name, raw in raw_agents.items()
        if (agent := _parse(Agent, raw, f"/agents/{escape(name)}", problems))
    }
    steps = {name: step for name, raw in raw_steps.items() if (step := _parse_step(name, raw, problems))}
    _parse(_Outline, document, "", problems)
    definition = None if problems.all else Definition.model_validate(document)
    return Parts(document, agents, steps, raw_agents.keys(), raw_steps.keys(), definition)


def _items(document: dict[str, Json], section: str) -> dict[str, Json]:
    items = document.get(section)
    return items if isinstance(items, dict) else {}


def _without_future(uploaded: dict[str, Json], problems: Problems) -> dict[str, Json]:
    """The document less what this release does not support, each such thing reported."""
    document = _without(FUTURE_FIELDS, uploaded, "", problems)
    steps = document.get("steps")
    if isinstance(steps, dict):
        document["steps"] = {
            name: _without(FUTURE_STEP_FIELDS, step, f"/steps/{escape(name)}", problems)
            if isinstance(step, dict)
            else step
            for name, step in steps.items()
        }
    return document


def _without(
    fields: Collection[str], item: dict[str, Json], pointer: str, problems: Problems
) -> dict[str, Json]:
    for key in fields:
        if key in item:
            _not_supported(f"{pointer}/{key}", f"the field {key!r}", problems)
    return {key: value for key, value in item.items() if key not in fields}


def _not_supported(pointer: str, what: str, problems: Problems) -> None:
    problems.add(
        "not_supported", pointer, what, "what this release of facilitair/v1 runs",
        "It belongs to the language but cannot be run yet; leave it out.",
    )  # fmt: skip


def _parse_step(name: str, step: Json, problems: Problems) -> Step | None:
    pointer = f"/steps/{escape(name)}"
    if name in RESERVED_IDS:
        problems.add(
            "value_wrong", pointer, f"the step id {name!r}", "an id that CEL does not keep for itself",
            "Choose another name.",
        )  # fmt: skip
    if not isinstance(step, dict):
        problems.add("type_wrong", pointer, kind_of(step), "an object", "A step is an object with a kind.")
        return None
    expected = f"one of {', '.join(_KINDS)}"
    if "kind" not in step:
        problems.add("field_missing", f"{pointer}/kind", "no kind", expected, "Add it.")
        return None
    kind = step["kind"]
    if isinstance(kind, str) and kind in _KINDS:
        return _parse(_KINDS[kind], step, pointer, problems)
    if kind in FUTURE_KINDS:
        _not_supported(f"{pointer}/kind", f"the step kind {kind!r}", problems)
    else:
        known = (*_KINDS, *FUTURE_KINDS)
        fix = problems.hint(kind, known) if isinstance(kind, str) else "Write its name."
        problems.add("kind_unknown", f"{pointer}/kind", show(kind), expected, fix)
    return None


def _parse(shape: type[M], value: Json, pointer: str, problems: Problems) -> M | None:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        located = [(detail, *_locate(detail, value, pointer)) for detail in details]
        inside = {where.rpartition("/")[0] for _, where, _ in located}
        for detail, where, culprit in located:
            # A union that fits no branch is reported by each: the branch that came further knows best.
            if detail["type"] not in _TYPE_NAMES or where not in inside:
                _add(detail, where, culprit, shape, problems)
        return None


def _locate(detail: ErrorDetails, value: Json, base: str) -> tuple[str, Json]:
    """The pointer to the culprit and its value. Pydantic's location also names union branches, which are
    no part of the document."""
    pointer, at = base, value
    location = [part for part in detail["loc"] if part != "[key]"]
    missing = detail["type"] == "missing"
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(at, dict) and isinstance(part, str) and (part in at or (last and missing)):
            pointer, at = f"{pointer}/{escape(part)}", at.get(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            pointer, at = f"{pointer}/{part}", at[part]
    return pointer, detail["loc"][-2] if detail["loc"] and detail["loc"][-1] == "[key]" else at


def _add(
    detail: ErrorDetails, pointer: str, culprit: Json, shape: type[BaseModel], problems: Problems
) -> None:
    if any(problem.pointer == pointer for problem in problems.all[-20:]):
        return  # the other branch of a union, or found already
    code, expected, fix = _translate(detail)
    if code == "field_unknown" and len(detail["loc"]) == 1:
        names = [item.alias or name for name, item in shape.model_fields.items()]
        fix = f"{fix} {problems.hint(str(detail['loc'][0]), names)}"
    found = "nothing" if code == "field_missing" else show(culprit)
    problems.add(code, pointer, found, expected, fix)


_TYPE_NAMES: Final = {
    "dict_type": "an object", "model_type": "an object", "model_attributes_type": "an object",
    "list_type": "a list", "string_type": "a string", "int_type": "a whole number",
    "float_type": "a number", "bool_type": "true or false",
}  # fmt: skip
_PATTERNS: Final = {
    DURATION: "a number with its unit, such as 500ms, 30s, 5m, 2h or 1d",
    STEP_ID: "lower case letters, digits and _, at most 63, a letter first",
    NAME: "lower case letters, digits, - and _, at most 63, a letter or digit first",
}


def _translate(detail: ErrorDetails) -> tuple[str, str, str]:
    """(code, expected, fix) for one of pydantic's findings."""
    kind = detail["type"]
    rule: Callable[[str], Any] = (detail.get("ctx") or {}).get
    if kind == "missing":
        return "field_missing", f"the field {str(detail['loc'][-1])!r}", "Add it."
    if kind == "extra_forbidden":
        return "field_unknown", "a field of facilitair/v1", "Remove it or correct its name."
    if kind in _TYPE_NAMES:
        return "type_wrong", _TYPE_NAMES[kind], "Correct the value."
    if kind in ("too_long", "string_too_long"):
        return "too_many", f"at most {rule('max_length')}", "Shorten it."
    if kind == "string_pattern_mismatch":
        expected = _PATTERNS.get(rule("pattern"), f"text that matches {rule('pattern')}")
        return "value_wrong", expected, "Correct the value."
    return "value_wrong", detail["msg"].removeprefix("Input should be ").lower(), "Correct the value."
