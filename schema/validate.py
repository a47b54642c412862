"""Definition or all its problems at once. Nothing behind this module checks a definition again."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from schema import document, json_schemas, short_form
from schema.catalogue import PROVIDERS, ROLE_DEFAULTS
from schema.compile import Dependencies, dependencies, topological
from schema.definition import Definition
from schema.errors import InvalidDefinition, Problem
from schema.expressions import ExpressionInvalid, Json, compile_expression
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
    JsonSchema,
    Route,
    Step,
    StepId,
    ToolStep,
    TransformStep,
)
from schema.templates import count, escape, expressions
from schema.tools import TOOLS

M = TypeVar("M", bound=BaseModel)

MAX_PROBLEMS: Final = 100
MAX_STEPS: Final = 1_000
MAX_EXPRESSIONS: Final = 2_000
MAX_EXPRESSION_CHARS: Final = 64_000
MAX_AGENTS: Final = 200
MAX_EDGES: Final = 5_000
MAX_NEEDS: Final = 20_000
MAX_FIELDS: Final = 64
"""Far more fields than any object of the language has."""
MAX_HINTS: Final = 20
"""Looking for the nearest name is the dearest part of a problem."""
MAX_REFUSED_CHARS: Final = 8_000
"""Characters of refused expressions, after which the rest of the document goes unread."""
MAX_CYCLES: Final = 10
MAX_SCHEMA_VALUES: Final = 6_000
"""Values in all JSON Schemas of a definition: each is checked against the schema of schemas."""

_FREE_FORM: Final = frozenset(
    {
        "args",
        "value",
        "output_schema",
        "input",
        "output",
        "steps",
        "agents",
        *FUTURE_FIELDS,
        *FUTURE_STEP_FIELDS,
    }
)

_KINDS: Final[dict[str, type[AgentStep] | type[ToolStep] | type[TransformStep]]] = {
    "agent": AgentStep, "tool": ToolStep, "transform": TransformStep,
}  # fmt: skip
_STEP_FACTS: Final = ("output", "status", "model")
_RUN_FACTS: Final = ("id", "name", "version", "tenant")


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition that will run, and the dependencies that were inferred for its steps."""

    definition: Definition
    inferred: dict[str, tuple[str, ...]]


def validate_bytes(data: bytes, *, is_yaml: bool = False, name: str | None = None) -> Checked:
    """The definition in an uploaded file; raises InvalidDefinition with every problem."""
    return validate(document.load(data, is_yaml=is_yaml), name=name)


def validate(uploaded: Json, *, name: str | None = None) -> Checked:
    """The definition in a JSON value; `name` serves a bare short-form list, which has none of its own."""
    short = short_form.is_short_form(uploaded)
    check = _Check(short_form.expand(uploaded, name) if short else uploaded)
    definition = None
    with suppress(_EnoughError):
        definition = check.run()
    if check.problems or definition is None:
        if short:
            check.problems = [
                replace(problem, pointer=short_form.as_uploaded(problem.pointer, uploaded))
                for problem in check.problems
            ]
        raise InvalidDefinition(check.problems)
    return Checked(definition, {step: link.inferred for step, link in check.links.items() if link.inferred})


class _EnoughError(Exception):
    """So much is wrong that looking further would help nobody, and would cost the server."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word[:64], names[:200], n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}." if names else "There are none."


class _Outline(Definition):
    """A definition apart from what its agents and steps hold."""

    agents: dict[str, Any] = Field(default_factory=dict)
    steps: dict[StepId, Any] = Field(min_length=1)


@dataclass
class _Check:
    uploaded: Json
    problems: list[Problem] = field(default_factory=list)
    links: dict[str, Dependencies] = field(default_factory=dict)
    _steps: dict[str, Step] = field(default_factory=dict)
    _agents: dict[str, Agent] = field(default_factory=dict)
    _bad_steps: set[str] = field(default_factory=set)
    """Steps that are there but malformed: naming one is no second problem."""
    _hints: int = 0
    _refused_chars: int = 0
    _schema_values: int = 0

    def add(self, code: str, pointer: str, found: str, expected: str, fix: str) -> None:
        self.problems.append(Problem(code, pointer, found, expected, fix))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _EnoughError

    def _add_refused(self, pointer: str, source: str, error: ExpressionInvalid) -> None:
        self.add(error.code, pointer, error.found, error.expected, error.fix)
        self._refused_chars += len(source)
        if self._refused_chars > MAX_REFUSED_CHARS:
            raise _EnoughError

    def _nearest(self, word: str, known: Iterable[str]) -> str:
        self._hints += 1
        return nearest(word, known) if self._hints <= MAX_HINTS else "Correct the name."

    def run(self) -> Definition | None:
        if not isinstance(self.uploaded, dict):
            self.add(
                "type_wrong", "", _kind_of(self.uploaded), "an object",
                "A definition is one JSON object with name and steps.",
            )  # fmt: skip
            return None
        if self._too_many():
            return None
        known = self._without_future(self.uploaded)
        definition = self._shapes(known)
        raw_steps = known.get("steps")
        all_ids = dict.fromkeys(raw_steps) if isinstance(raw_steps, dict) else {}
        self._bad_steps = set(all_ids) - set(self._steps)
        self._check_agents()
        for name, step in self._steps.items():
            self._check_step(name, step, all_ids)
        self._check_cycles()
        if definition is not None or isinstance(known.get("input"), dict):
            self._check_schema("/input", known.get("input", {"type": "object"}))
        if "output" in known:
            self._check_template("/output", known["output"])
        self._check_stream(known.get("stream"))
        return definition

    # Shape

    def _too_many(self) -> bool:
        """Counts that bound the work of everything that follows."""
        sizes = (
            ("steps", MAX_STEPS, "Split the work into several definitions."),
            ("agents", MAX_AGENTS, "Let steps share agents."),
            ("stream", MAX_EDGES, "Stream to fewer steps."),
        )
        for key, limit, fix in sizes:
            items = self.uploaded.get(key)
            if isinstance(items, (dict, list)) and len(items) > limit:
                self.add("too_many", f"/{key}", f"{len(items):,} {key}", f"at most {limit:,}", fix)
        if not self.problems:
            self._too_wide()
        if self.problems:
            return True
        number, chars = count(self.uploaded, MAX_EXPRESSIONS)
        steps = self.uploaded.get("steps")
        if isinstance(steps, dict):
            whens = [step["when"] for step in steps.values() if isinstance(step, dict) and "when" in step]
            number += len(whens)
            chars += sum(len(when) for when in whens if isinstance(when, str))
            needs = [step["needs"] for step in steps.values() if isinstance(step, dict) and "needs" in step]
            total = sum(len(need) for need in needs if isinstance(need, list))
            if total > MAX_NEEDS:
                self.add(
                    "too_many", "/steps", f"{total:,} needs", f"at most {MAX_NEEDS:,}",
                    "Gather them in a transform step that the others need.",
                )  # fmt: skip
        if number > MAX_EXPRESSIONS or chars > MAX_EXPRESSION_CHARS:
            self.add(
                "too_many", "", f"{number:,} expressions with {chars:,} characters",
                f"at most {MAX_EXPRESSIONS:,} with {MAX_EXPRESSION_CHARS:,} together",
                "Compute shared values once in a transform step.",
            )  # fmt: skip
        return bool(self.problems)

    def _too_wide(self) -> None:
        """An object of the language's own with far too many fields: each would become a problem."""
        stack: list[tuple[str, Json]] = [("", self.uploaded)]
        for section in ("agents", "steps"):
            items = self.uploaded.get(section)
            if isinstance(items, dict):
                stack.extend((f"/{section}/{escape(name)}", item) for name, item in items.items())
        while stack:
            pointer, item = stack.pop()
            if isinstance(item, list):
                stack.extend(
                    (f"{pointer}/{at}", part)
                    for at, part in enumerate(item)
                    if isinstance(part, (dict, list))
                )
            elif isinstance(item, dict):
                if len(item) > MAX_FIELDS:
                    self.add(
                        "too_many", pointer, f"an object with {len(item):,} fields", f"at most {MAX_FIELDS}",
                        "Remove the fields that the language does not have.",
                    )  # fmt: skip
                    return
                stack.extend(
                    (f"{pointer}/{escape(key)}", part)
                    for key, part in item.items()
                    if isinstance(part, (dict, list)) and key not in _FREE_FORM
                )

    def _without_future(self, uploaded: dict[str, Json]) -> dict[str, Json]:
        """The document less what this release does not support, each such thing reported."""
        known = {key: value for key, value in uploaded.items() if key not in FUTURE_FIELDS}
        for key in FUTURE_FIELDS:
            if key in uploaded:
                self._not_supported(f"/{key}", f"the field {key!r}")
        steps = known.get("steps")
        if isinstance(steps, dict):
            known["steps"] = kept = {}
            for name, step in steps.items():
                if isinstance(step, dict):
                    for key in FUTURE_STEP_FIELDS:
                        if key in step:
                            self._not_supported(f"/steps/{escape(name)}/{key}", f"the field {key!r}")
                    step = {key: value for key, value in step.items() if key not in FUTURE_STEP_FIELDS}
                kept[name] = step
        return known

    def _not_supported(self, pointer: str, what: str) -> None:
        self.add(
            "not_supported", pointer, what, "what this release of facilitair/v1 runs",
            "It belongs to the language but cannot be run yet; leave it out.",
        )  # fmt: skip

    def _shapes(self, known: dict[str, Json]) -> Definition | None:
        """Every item is checked by itself, so that one malformed step does not hide the others."""
        agents, steps = known.get("agents"), known.get("steps")
        if isinstance(agents, dict):
            for name, agent in agents.items():
                if parsed := self._parse(Agent, agent, f"/agents/{escape(name)}"):
                    self._agents[name] = parsed
        if isinstance(steps, dict):
            for name, step in steps.items():
                if parsed_step := self._parse_step(name, step):
                    self._steps[name] = parsed_step
        self._parse(_Outline, known, "")
        return None if self.problems else Definition.model_validate(known)

    def _parse_step(self, name: str, step: Json) -> Step | None:
        pointer = f"/steps/{escape(name)}"
        if name in RESERVED_IDS:
            self.add(
                "value_wrong", pointer, f"the step id {name!r}", "an id that CEL does not keep for itself",
                "Choose another name.",
            )  # fmt: skip
        if not isinstance(step, dict):
            self.add("type_wrong", pointer, _kind_of(step), "an object", "A step is an object with a kind.")
            return None
        kind = step.get("kind")
        if "kind" not in step:
            self.add(
                "field_missing", f"{pointer}/kind", "no kind", f"one of {', '.join(_KINDS)}", "Add it.",
            )  # fmt: skip
            return None
        if isinstance(kind, str) and kind in _KINDS:
            return self._parse(_KINDS[kind], step, pointer)
        if kind in FUTURE_KINDS:
            self._not_supported(f"{pointer}/kind", f"the step kind {kind!r}")
        else:
            hint = (
                self._nearest(kind, (*_KINDS, *FUTURE_KINDS)) if isinstance(kind, str) else "Write its name."
            )
            self.add("kind_unknown", f"{pointer}/kind", _show(kind), f"one of {', '.join(_KINDS)}", hint)
        return None

    def _parse(self, shape: type[M], value: Json, pointer: str) -> M | None:
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
            located = [(detail, *_locate(detail, value, pointer)) for detail in details]
            inside = {where.rpartition("/")[0] for _, where, _ in located}
            for detail, where, culprit in located:
                # A union that fits no branch is reported by each: the branch that came further knows best.
                if detail["type"] not in _TYPE_NAMES or where not in inside:
                    self._add_shape(detail, where, culprit, shape)
            return None

    def _add_shape(self, detail: ErrorDetails, pointer: str, culprit: Json, shape: type[BaseModel]) -> None:
        if any(problem.pointer == pointer for problem in self.problems[-20:]):
            return  # the other branch of a union, or found already
        code, expected, fix = _shape_problem(detail)
        if code == "field_unknown" and len(detail["loc"]) == 1:
            names = [item.alias or name for name, item in shape.model_fields.items()]
            fix = f"Remove it or correct its name. {self._nearest(str(detail['loc'][0]), names)}"
        found = "nothing" if code == "field_missing" else _show(culprit)
        self.add(code, pointer, found, expected, fix)

    # Meaning

    def _check_agents(self) -> None:
        for name, agent in self._agents.items():
            pointer = f"/agents/{escape(name)}"
            if agent.model is None and agent.role is None:
                self.add(
                    "agent_without_model", pointer, f"agent {name!r} with neither model nor role",
                    "a model, a routing rule or a role", 'Add "model": "openai/gpt-4" or "role": "coder".',
                )  # fmt: skip
            if isinstance(agent.model, Route):
                for index, model in enumerate(agent.model.among):
                    self._check_model(f"{pointer}/model/among/{index}", model)
            elif agent.model is not None:
                self._check_model(f"{pointer}/model", agent.model)

    def _check_model(self, pointer: str, model: str) -> None:
        provider, _, rest = model.partition("/")
        if provider not in PROVIDERS or not rest or len(model) > 200:
            known = dict.fromkeys(default.model for default in ROLE_DEFAULTS.values())
            self.add(
                "model_unknown", pointer, _show(model),
                f"provider/model with a provider of {', '.join(PROVIDERS)}", self._nearest(model, known),
            )  # fmt: skip

    def _check_step(self, name: str, step: Step, all_ids: Collection[str]) -> None:
        pointer = f"/steps/{escape(name)}"
        for index, need in enumerate(step.needs):
            if need not in all_ids:
                self._step_unknown(f"{pointer}/needs/{index}", need, all_ids)
        fine = step.when is None or self._check_expression(f"{pointer}/when", step.when, "BOOL")
        match step:
            case AgentStep():
                if step.agent not in (self._agents.keys() | _names(self.uploaded.get("agents"))):
                    self.add(
                        "agent_unknown", f"{pointer}/agent", _show(step.agent), "an agent of this definition",
                        self._nearest(step.agent, self._agents),
                    )  # fmt: skip
                fine = self._check_template(f"{pointer}/prompt", step.prompt) and fine
            case ToolStep():
                self._check_tool(pointer, step)
                fine = self._check_template(f"{pointer}/args", step.args) and fine
            case TransformStep():
                fine = self._check_template(f"{pointer}/value", step.value) and fine
        if isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
            self._check_schema(f"{pointer}/output_schema", step.output_schema)
        self.links[name] = dependencies(step) if fine else Dependencies(tuple(step.needs), (), ())

    def _check_tool(self, pointer: str, step: ToolStep) -> None:
        if (step.tool is None) == (step.activity is None):
            self.add(
                "tool_unknown", pointer,
                "both tool and activity" if step.tool else "neither tool nor activity", "exactly one of them",
                "Name a built-in tool, or your own activity with its task_queue.",
            )  # fmt: skip
        if step.activity is not None and step.task_queue is None:
            self.add(
                "field_missing", f"{pointer}/task_queue", "nothing", "the queue your worker serves",
                "Add task_queue.",
            )  # fmt: skip
        if step.tool is None:
            return
        if step.tool not in TOOLS:
            self.add(
                "tool_unknown", f"{pointer}/tool", _show(step.tool), "a built-in tool",
                self._nearest(step.tool, TOOLS),
            )  # fmt: skip
            return
        schema = TOOLS[step.tool].args
        for key in schema["required"]:
            if key not in step.args:
                self.add(
                    "tool_args_wrong", f"{pointer}/args/{key}", "nothing", f"the argument {key!r}", "Add it.",
                )  # fmt: skip
        for key, value in step.args.items():
            at = f"{pointer}/args/{escape(key)}"
            if key not in schema["properties"]:
                self.add(
                    "tool_args_wrong", at, f"the argument {_show(key)}", f"an argument of {step.tool}",
                    self._nearest(key, schema["properties"]),
                )  # fmt: skip
            elif "${" not in str(value) and (
                wrong := json_schemas.violations(schema["properties"][key], value)
            ):
                self.add("tool_args_wrong", at, wrong[0][1], "a fitting value", "Correct it.")

    def _check_template(self, pointer: str, value: Json) -> bool:
        """Whether every expression in the value compiles."""
        fine = True
        try:
            for where, source in expressions(value, pointer):
                fine = self._check_expression(where, source, None) and fine
        except ExpressionInvalid as error:
            self._add_refused(pointer, "", error)
            return False
        return fine

    def _check_expression(self, pointer: str, source: str, result: str | None) -> bool:
        try:
            compiled = compile_expression(source)
        except ExpressionInvalid as error:
            self._add_refused(pointer, source, error)
            return False
        if result and compiled.result_type not in (result, "DYN"):
            self.add(
                "expression_type", pointer, f"an expression of type {compiled.result_type.lower()}",
                "true or false", "Compare it with something.",
            )  # fmt: skip
        for path in dict.fromkeys(reference.path for reference in compiled.references):
            self._check_path(pointer, path)
        return True

    def _check_path(self, pointer: str, path: tuple[str, ...]) -> None:
        match path:
            case ("steps", name, *rest):
                if name in self._steps:
                    self._check_step_path(pointer, path, self._steps[name], rest)
                elif name not in self._bad_steps:
                    self._step_unknown(pointer, name, self._steps)
            case ("input", name, *_):
                schema = self.uploaded.get("input")
                fields = json_schemas.declared_fields(schema) if isinstance(schema, dict) else None
                self._check_field(pointer, path, name, fields, "the input schema")
            case ("run", name, *_):
                self._check_field(pointer, path, name, set(_RUN_FACTS), "run")

    def _check_step_path(self, pointer: str, path: tuple[str, ...], step: Step, rest: list[str]) -> None:
        if not rest:
            return
        self._check_field(pointer, path, rest[0], set(_STEP_FACTS), "a step")
        if rest[0] == "output" and len(rest) > 1:
            if isinstance(step, AgentStep) and step.output_schema is None:
                self.add(
                    "reference_unknown", pointer, ".".join(path), f"steps.{path[1]}.output, which is text",
                    f"Give step {path[1]!r} an output_schema to get fields.",
                )  # fmt: skip
            elif isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
                fields = json_schemas.declared_fields(step.output_schema)
                self._check_field(pointer, path, rest[1], fields, f"the output_schema of {path[1]!r}")

    def _check_field(
        self, pointer: str, path: tuple[str, ...], name: str, known: set[str] | None, owner: str
    ) -> None:
        if known is not None and name not in known:
            self.add(
                "reference_unknown", pointer, ".".join(path)[:200], f"a field that {owner} has",
                self._nearest(name, sorted(known)),
            )  # fmt: skip

    def _step_unknown(self, pointer: str, name: str, known: Iterable[str]) -> None:
        self.add(
            "step_unknown",
            pointer,
            f"step {_show(name)}",
            "a step of this definition",
            self._nearest(name, known),
        )

    def _check_schema(self, pointer: str, schema: JsonSchema) -> None:
        self._schema_values += json_schemas.size(schema)
        if self._schema_values > MAX_SCHEMA_VALUES:
            self.add(
                "too_many", pointer, f"JSON Schemas with {self._schema_values:,} values together",
                f"at most {MAX_SCHEMA_VALUES:,}", "Describe less, or split the definition.",
            )  # fmt: skip
            raise _EnoughError
        if fault := json_schemas.schema_fault(schema):
            self.add("schema_invalid", pointer, fault, "a JSON Schema (2020-12) without remote references",
                     "Correct the schema.")  # fmt: skip

    def _check_stream(self, stream: Json) -> None:
        for index, edge in enumerate(stream if isinstance(stream, list) else []):
            for end in ("from", "to"):
                name = edge.get(end) if isinstance(edge, dict) else None
                if isinstance(name, str) and name not in self._steps and name not in self._bad_steps:
                    self._step_unknown(f"/stream/{index}/{end}", name, self._steps)

    def _check_cycles(self) -> None:
        edges = {name: (*link.needs, *link.waits) for name, link in self.links.items()}
        cyclic = edges.keys() - set(topological(edges))
        left = {name: [need for need in edges[name] if need in cyclic] for name in edges if name in cyclic}
        for _ in range(MAX_CYCLES):
            cycle = _find_cycle(left)
            if not cycle:
                return
            shown = " → ".join(cycle[:12]) + (" → …" if len(cycle) > 12 else "")
            self.add(
                "cycle", f"/steps/{escape(cycle[0])}", f"the cycle {shown}",
                "steps that depend on earlier ones only",
                "A DAG has no cycles, and bounded loops are not supported yet: drop one of these "
                "dependencies, or write the rounds out as separate steps.",
            )  # fmt: skip
            gone = set(cycle)
            left = {
                name: [need for need in needs if need not in gone]
                for name, needs in left.items()
                if name not in gone
            }


def _find_cycle(edges: Mapping[str, list[str]]) -> list[str]:
    """One cycle in the direction of the data (a step after those it needs), first id repeated at the end."""
    done: set[str] = set()
    for start in edges:
        path: dict[str, None] = {}
        node: str | None = start
        while node is not None and node not in done:
            if node in path:
                walked = list(path)
                cycle = walked[walked.index(node) :]
                cycle = [node, *reversed(cycle)]
                return cycle
            path[node] = None
            node = next((dep for dep in edges[node] if dep not in done), None)
        done.update(path)
    return []


def _names(value: Json) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _kind_of(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _show(value: Json) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "…")
    if isinstance(value, (bool, int, float)):
        return str(value).lower()[:80]
    return _kind_of(value)


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


def _shape_problem(detail: ErrorDetails) -> tuple[str, str, str]:
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
