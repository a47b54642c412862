"""From JSON to typed parts; what pydantic finds, as our problems."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from schema.cel.expressions import Json
from schema.language.definition import Budget, Definition
from schema.language.problems import Problems, kind_of, show
from schema.language.steps import (
    DURATION,
    NAME,
    NEED,
    PROMPT_REF,
    REF,
    STEP_ID,
    Agent,
    AgentStep,
    Body,
    CollaborationStep,
    HumanStep,
    LoopStep,
    MapStep,
    Step,
    StepId,
    SwitchStep,
    ToolStep,
    TransformStep,
    WaitStep,
)
from schema.language.templates import escape
from schema.names import RESERVED_IDS

M = TypeVar("M", bound=BaseModel)


class _Outline(Definition):
    """A definition apart from what its agents and steps hold."""

    agents: dict[str, Any] = Field(default_factory=dict)
    steps: dict[StepId, Any] = Field(min_length=1)


class _BodyOutline(Body):
    steps: dict[StepId, Any] = Field(min_length=1, max_length=200)


class _MapOutline(MapStep):
    body: _BodyOutline


class _LoopOutline(LoopStep):
    body: _BodyOutline


_KINDS: Final[dict[str, type[Step]]] = {
    "agent": AgentStep,
    "tool": ToolStep,
    "transform": TransformStep,
    "switch": SwitchStep,
    "map": _MapOutline,
    "loop": _LoopOutline,
    "human": HumanStep,
    "collaboration": CollaborationStep,
    "wait": WaitStep,
}


@dataclass(frozen=True, slots=True)
class PlacedStep:
    """A step and where it stands."""

    pointer: str
    frame: tuple[str, ...]
    """The maps and loops around it, outermost first."""
    step: Step


@dataclass(frozen=True, slots=True)
class Parts:
    """A document as far as it could be read."""

    document: dict[str, Json]
    agents: dict[str, Agent]
    agent_names: Collection[str]
    """Also those of malformed agents: naming one is no second problem."""
    budget: Budget | None
    steps: dict[str, PlacedStep] = field(default_factory=dict)
    """Every well-formed step, those of bodies included; a body holds only its well-formed ones."""
    frames: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """step → the maps and loops around it; also of malformed ones."""
    kinds: dict[str, str] = field(default_factory=dict)
    """step → its kind, as far as it names one."""

    def frame_steps(self) -> dict[tuple[str, ...], dict[str, Step]]:
        """The well-formed steps of each frame."""
        found: dict[tuple[str, ...], dict[str, Step]] = {}
        for name, placed in self.steps.items():
            found.setdefault(placed.frame, {})[name] = placed.step
        return found


def read(document: dict[str, Json], problems: Problems) -> Parts:
    """Every item is parsed by itself, so that one malformed step does not hide the others."""
    raw_agents = _items(document, "agents")
    agents = {
        name: agent
        for name, raw in raw_agents.items()
        if (agent := _parse(Agent, raw, f"/agents/{escape(name)}", problems))
    }
    raw_budget = document.get("budget")
    budget = None if raw_budget is None else _parse(Budget, raw_budget, "/budget", problems)
    parts = Parts(document, agents, raw_agents.keys(), budget)
    _read_steps(_items(document, "steps"), "/steps", (), parts, problems)
    _parse(_Outline, {key: value for key, value in document.items() if key != "budget"}, "", problems)
    return parts


def _items(value: Json, section: str) -> dict[str, Json]:
    items = value.get(section) if isinstance(value, dict) else None
    return items if isinstance(items, dict) else {}


def _read_steps(
    raw_steps: Mapping[str, Json], base: str, frame: tuple[str, ...], parts: Parts, problems: Problems
) -> dict[str, Step]:
    """The well-formed steps of one frame; they and those of their bodies are added to the parts."""
    found: dict[str, Step] = {}
    for name, raw in raw_steps.items():
        pointer = f"{base}/{escape(name)}"
        known = name in parts.frames
        if known:
            problems.add(
                "id_duplicate",
                pointer,
                f"a second step {show(name)}",
                "each id once, bodies included",
                "Choose another name: expressions and records tell steps apart by their ids.",
            )
        else:
            parts.frames[name] = frame
        step = _parse_step(name, raw, pointer, problems)
        if step is not None and not known:
            parts.steps[name] = PlacedStep(pointer, frame, step)  # before the steps of its body
        kind = raw.get("kind") if isinstance(raw, dict) else None
        if isinstance(kind, str) and not known:
            parts.kinds[name] = kind
        if kind in ("map", "loop"):
            body = _items(raw.get("body"), "steps")
            inner = _read_steps(body, f"{pointer}/body/steps", (*frame, name), parts, problems)
            if isinstance(step, (MapStep, LoopStep)):
                step = step.model_copy(update={"body": step.body.model_copy(update={"steps": inner})})
        if step is not None and not known:
            parts.steps[name] = PlacedStep(pointer, frame, step)
            found[name] = step
    return found


def _parse_step(name: str, step: Json, pointer: str, problems: Problems) -> Step | None:
    if name in RESERVED_IDS:
        problems.add(
            "value_wrong",
            pointer,
            f"the step id {name!r}",
            "an id that CEL does not keep for itself",
            "Choose another name.",
        )
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
    fix = problems.hint(kind, _KINDS) if isinstance(kind, str) else "Write its name."
    problems.add("kind_unknown", f"{pointer}/kind", show(kind), expected, fix)
    return None


def _parse(shape: type[M], value: Json, pointer: str, problems: Problems) -> M | None:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        located = [(detail, *_locate(detail, value, pointer)) for detail in details]
        inside = {above for _, where, _ in located for above in _above(where)}
        for detail, where, culprit in located:
            # A union that fits no branch is reported by each: the branch that came further knows best.
            if detail["type"] not in _TYPE_NAMES or where not in inside:
                _add(detail, where, culprit, shape, problems)
        return None


def _above(pointer: str) -> Iterator[str]:
    """The pointers to what a value lies in."""
    while pointer:
        pointer = pointer.rpartition("/")[0]
        yield pointer


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
        fix = f"{fix} {_elsewhere(str(detail['loc'][0]), shape, problems)}"
    found = "nothing" if code == "field_missing" else show(culprit)
    problems.add(code, pointer, found, expected, fix)


def _field_names(shape: type[BaseModel]) -> list[str]:
    return [item.alias or name for name, item in shape.model_fields.items()]


def _elsewhere(name: str, shape: type[BaseModel], problems: Problems) -> str:
    """Suggest where an unknown field was meant to be: in a step of another kind, or under another
    spelling."""
    if shape in _KINDS.values():
        kinds = [kind for kind, other in _KINDS.items() if name in _field_names(other)]
        if kinds:
            return f"Steps of kind {', '.join(kinds)} have it."
    return problems.hint(name, _field_names(shape))


_TYPE_NAMES: Final = {
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "list_type": "a list",
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
_PATTERNS: Final = {
    DURATION: "a number with its unit, such as 500ms, 30s, 5m, 2h or 1d",
    STEP_ID: "lower case letters, digits and _, at most 63, a letter first",
    NAME: "lower case letters, digits, - and _, at most 63, a letter or digit first",
    NEED: "a step id, or switch:branch",
    REF: "name, name@3 or name@alias of a stored definition",
    PROMPT_REF: "name or name@3 of a stored prompt",
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
