"""Rules for each kind of step by itself: its fields fit together, its names exist."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from schema.cel.expressions import ExpressionInvalid, Json
from schema.language import json_schemas
from schema.language.problems import EnoughProblems, Problems, show
from schema.language.shape import PlacedStep
from schema.language.steps import (
    AgentStep,
    CollaborationStep,
    Compensate,
    HumanStep,
    JsonSchema,
    LoopStep,
    MapStep,
    Route,
    Step,
    SwitchStep,
    ToolStep,
    TransformStep,
    WaitStep,
)
from schema.language.templates import escape, split
from schema.language.tools import TOOLS
from schema.rules.references import ExpressionPlace, References
from schema.temporal.queues import PLATFORM_QUEUES

MAX_SCHEMA_VALUES: Final = 6_000
"""Values in all JSON Schemas of a definition: each is checked against the schema of schemas."""

_PERSON: Final = re.compile(r"(user|group):\S{1,200}")


@dataclass
class Schemas:
    """Checks JSON Schemas, so many values of them in all."""

    problems: Problems
    _values: int = 0

    def check(self, pointer: str, schema: JsonSchema) -> None:
        self._values += json_schemas.size(schema)
        if self._values > MAX_SCHEMA_VALUES:
            self.problems.add(
                "too_many",
                pointer,
                f"JSON Schemas with {self._values:,} values together",
                f"at most {MAX_SCHEMA_VALUES:,}",
                "Describe less, or split the definition.",
            )
            raise EnoughProblems
        if fault := json_schemas.schema_fault(schema):
            self.problems.add(
                "schema_invalid",
                pointer,
                fault,
                "a JSON Schema (2020-12) without remote references",
                "Correct the schema.",
            )
            return
        for where, wrong in json_schemas.default_faults(schema):
            self.problems.add(
                "schema_invalid",
                f"{pointer}{where}",
                wrong,
                "a default that fits its own schema",
                "Correct one of them: a value that leaves the field out would be refused.",
            )


def check_people(pointer: str, people: Iterable[str], problems: Problems) -> None:
    for index, one in enumerate(people):
        if not _PERSON.fullmatch(one):
            problems.add(
                "value_wrong",
                f"{pointer}/{index}",
                show(one),
                "user:<name> or group:<name>",
                "Say which of the two it is.",
            )


def useless(pointer: str, found: str, why: str, problems: Problems) -> None:
    problems.add("field_useless", pointer, found, "fields that have an effect", why)


def conflict(pointer: str, found: str, expected: str, fix: str, problems: Problems) -> None:
    problems.add("fields_conflict", pointer, found, expected, fix)


@dataclass(frozen=True, slots=True)
class StepRules:
    references: References
    schemas: Schemas

    @property
    def problems(self) -> Problems:
        return self.references.problems

    def check(self, name: str, placed: PlacedStep) -> bool:
        """Check that all expressions of the step compile, apart from those in its body."""
        pointer, step = placed.pointer, placed.step
        place = ExpressionPlace(placed.frame, name)
        fine = True
        if step.when is not None:
            fine = self.references.check_condition(f"{pointer}/when", step.when, place)
        match step:
            case AgentStep():
                fine = self._agent(pointer, step, place) and fine
            case ToolStep():
                self._tool(pointer, step)
                fine = self.references.check_template(f"{pointer}/args", step.args, place) and fine
            case TransformStep():
                fine = self.references.check_template(f"{pointer}/value", step.value, place) and fine
            case SwitchStep():
                for at, case in enumerate(step.cases):
                    where = f"{pointer}/cases/{at}/when"
                    fine = self.references.check_condition(where, case.when, place) and fine
            case MapStep():
                fine = self._map(pointer, step, place) and fine
            case LoopStep():
                fine = self._loop(pointer, step, place) and fine
            case HumanStep():
                fine = self._human(pointer, step, place) and fine
            case CollaborationStep():
                fine = self._collaboration(pointer, step, place) and fine
            case WaitStep():
                fine = self._wait(pointer, step, place) and fine
            case _:
                assert_never(step)
        for at, rule in enumerate(step.catch):
            fine = self.references.check_template(f"{pointer}/catch/{at}/value", rule.value, place) and fine
        if isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
            self.schemas.check(f"{pointer}/output_schema", step.output_schema)
        self._check_effects(pointer, step)
        return fine

    def _agent(self, pointer: str, step: AgentStep, place: ExpressionPlace) -> bool:
        parts, problems = self.references.parts, self.problems
        if step.agent not in parts.agent_names:
            problems.add(
                "agent_unknown",
                f"{pointer}/agent",
                show(step.agent),
                "an agent of this definition",
                problems.hint(step.agent, parts.agents),
            )
        if step.emits is not None and step.output_schema is not None:
            conflict(
                f"{pointer}/output_schema",
                "emits and output_schema",
                "one of them",
                "A definition is checked like an upload: leave output_schema out.",
                problems,
            )
        fine = self.references.check_template(f"{pointer}/prompt", step.prompt, place)
        expecting = ExpressionPlace(place.frame, place.step, output=True)
        for at, one in enumerate(step.reflect.expect if step.reflect else []):
            where = f"{pointer}/reflect/expect/{at}/that"
            fine = self.references.check_condition(where, one.that, expecting) and fine
        return fine

    def _tool(self, pointer: str, step: ToolStep | Compensate) -> None:
        problems = self.problems
        if (step.tool is None) == (step.activity is None):
            problems.add(
                "tool_unknown",
                pointer,
                "both tool and activity" if step.tool else "neither tool nor activity",
                "exactly one of them",
                "Name a built-in tool, or your own activity with its task_queue.",
            )
        if step.activity is not None and step.task_queue is None:
            problems.add(
                "field_missing",
                f"{pointer}/task_queue",
                "nothing",
                "the queue your worker serves",
                "Add task_queue.",
            )
        if step.task_queue in PLATFORM_QUEUES:
            problems.add(
                "queue_reserved",
                f"{pointer}/task_queue",
                f"the platform's own queue {step.task_queue!r}",
                "the queue of a worker of yours",
                "Serve your activity on a queue of your own and name that.",
            )
        if step.tool is None:
            return
        if step.tool not in TOOLS:
            problems.add(
                "tool_unknown",
                f"{pointer}/tool",
                show(step.tool),
                "a built-in tool",
                problems.hint(step.tool, TOOLS),
            )
            return
        self._tool_args(f"{pointer}/args", step.tool, step.args)

    def _tool_args(self, pointer: str, tool: str, args: Mapping[str, Json]) -> None:
        schema, problems = TOOLS[tool].args, self.problems
        for key in schema["required"]:
            if key not in args:
                problems.add(
                    "tool_args_wrong", f"{pointer}/{key}", "nothing", f"the argument {key!r}", "Add it."
                )
        for key, value in args.items():
            at = f"{pointer}/{escape(key)}"
            if key not in schema["properties"]:
                problems.add(
                    "tool_args_wrong",
                    at,
                    f"the argument {show(key)}",
                    f"an argument of {tool}",
                    problems.hint(key, schema["properties"]),
                )
            elif "${" not in str(value) and (
                wrong := json_schemas.violations(schema["properties"][key], value)
            ):
                problems.add("tool_args_wrong", at, wrong[0][1], "a fitting value", "Correct it.")

    def _map(self, pointer: str, step: MapStep, place: ExpressionPlace) -> bool:
        if step.tolerate.failed is not None and step.tolerate.failed_percent is not None:
            conflict(
                f"{pointer}/tolerate",
                "failed and failed_percent",
                "at most one of them",
                "Remove one: how many, or which share.",
                self.problems,
            )
        fine = self.references.check_list(f"{pointer}/over", step.over, place)
        inside = ExpressionPlace((*place.frame, place.step))
        return self.references.check_template(f"{pointer}/body/output", step.body.output, inside) and fine

    def _loop(self, pointer: str, step: LoopStep, place: ExpressionPlace) -> bool:
        if step.until is None and "on_exhausted" in step.model_fields_set:
            useless(
                f"{pointer}/on_exhausted",
                "on_exhausted without until",
                "A loop without until always runs max_iterations: remove it, or add until.",
                self.problems,
            )
        fine = self.references.check_template(f"{pointer}/init", step.init, place)
        frame = (*place.frame, place.step)
        inside, after = ExpressionPlace(frame), ExpressionPlace(frame, after=True)
        fine = self.references.check_template(f"{pointer}/body/output", step.body.output, inside) and fine
        fine = self.references.check_template(f"{pointer}/carry", step.carry, after) and fine
        if step.until is not None:
            fine = self.references.check_condition(f"{pointer}/until", step.until, after) and fine
        return fine

    def _human(self, pointer: str, step: HumanStep, place: ExpressionPlace) -> bool:
        problems = self.problems
        if step.form is not None:
            self.schemas.check(f"{pointer}/form", step.form)
            if step.form.get("type") != "object":
                problems.add(
                    "value_wrong",
                    f"{pointer}/form",
                    "a JSON Schema of something else than an object",
                    'a JSON Schema with "type": "object"',
                    "Make what they fill in properties of an object.",
                )
        self._actions(pointer, step)
        check_people(f"{pointer}/assignees", step.assignees, problems)
        check_people(f"{pointer}/escalate_to", step.escalate_to, problems)
        for field, people in (("assignees", step.assignees), ("escalate_to", step.escalate_to)):
            users = set(people)
            if users and all(one.startswith("user:") for one in users) and step.approvals > len(users):
                problems.add(
                    "value_wrong",
                    f"{pointer}/approvals",
                    f"{step.approvals} approvals",
                    f"at most the {len(users)} of {field}",
                    "Ask more people, or fewer of them.",
                )
                break
        fine = self.references.check_template(f"{pointer}/title", step.title, place)
        return self.references.check_template(f"{pointer}/show", step.show, place) and fine

    def _actions(self, pointer: str, step: HumanStep) -> None:
        problems = self.problems
        properties = (step.form or {}).get("properties")
        fields = properties if isinstance(properties, dict) else {}
        ids = [action.id for action in step.actions]
        for at, action in enumerate(step.actions):
            where = f"{pointer}/actions/{at}"
            if action.id in ids[:at] or action.id in ("fail", "escalate"):
                problems.add(
                    "value_wrong",
                    f"{where}/id",
                    f"the action {action.id!r}",
                    "each id once, and neither fail nor escalate",
                    "Choose another id.",
                )
            for index, field in enumerate(action.requires):
                if field not in fields:
                    problems.add(
                        "value_wrong",
                        f"{where}/requires/{index}",
                        show(field),
                        "a property of the form",
                        problems.hint(field, fields),
                    )
            if action.edits is not None and action.edits not in step.show:
                problems.add(
                    "value_wrong",
                    f"{where}/edits",
                    show(action.edits),
                    "an entry of show",
                    problems.hint(action.edits, step.show),
                )
        if step.on_timeout == "escalate" and not step.escalate_to:
            problems.add(
                "field_missing", f"{pointer}/escalate_to", "nothing", "who is asked next", "Add escalate_to."
            )
        elif step.on_timeout != "escalate" and step.escalate_to:
            useless(
                f"{pointer}/escalate_to",
                "escalate_to without on_timeout: escalate",
                'Add "on_timeout": "escalate", or remove it.',
                problems,
            )
        if step.on_timeout in ("fail", "escalate"):
            return
        if step.on_timeout not in ids:
            problems.add(
                "value_wrong",
                f"{pointer}/on_timeout",
                show(step.on_timeout),
                "fail, escalate or the id of an action",
                problems.hint(step.on_timeout, ["fail", "escalate", *ids]),
            )
        elif any(
            action.id == step.on_timeout and (action.requires or action.edits) for action in step.actions
        ):
            problems.add(
                "value_wrong",
                f"{pointer}/on_timeout",
                f"the action {step.on_timeout!r}, which asks for something",
                "an action without requires and edits",
                "Nobody fills in a form when the time is over.",
            )

    def _collaboration(self, pointer: str, step: CollaborationStep, place: ExpressionPlace) -> bool:
        problems = self.problems
        if (step.ref is None) == (step.definition is None):
            found = "both ref and definition" if step.ref else "neither ref nor definition"
            conflict(
                pointer,
                found,
                "exactly one of them",
                "Name a stored definition, or write ${ } that comes to one.",
                problems,
            )
        for field, value in (("definition", step.definition), ("input", step.input)):
            if (
                value is not None
                and not _one_expression(value)
                and (field == "definition" or not isinstance(value, dict))
            ):
                problems.add(
                    "value_wrong",
                    f"{pointer}/{field}",
                    show(value),
                    "one ${ } that comes to an object" + (" or an object" if field == "input" else ""),
                    "A definition that is known now is uploaded by itself and named by ref."
                    if field == "definition"
                    else "Name the fields of the input.",
                )
        fine = self.references.check_template(f"{pointer}/definition", step.definition, place)
        return self.references.check_template(f"{pointer}/input", step.input, place) and fine

    def _wait(self, pointer: str, step: WaitStep, place: ExpressionPlace) -> bool:
        if (step.duration is None) == (step.until is None):
            found = "both for and until" if step.until else "neither for nor until"
            conflict(pointer, found, "exactly one of them", "Say how long, or until when.", self.problems)
        return self.references.check_template(f"{pointer}/until", step.until, place)

    def _check_effects(self, pointer: str, step: Step) -> None:
        """Fields that the step has like every other, and that could do nothing for it."""
        if step.retry is not None and (why := _NEVER_TRIED_AGAIN.get(step.kind)):
            useless(f"{pointer}/retry", f"retry of a step of kind {step.kind}", why, self.problems)
        if step.timeout is not None and (why := _WITHOUT_TIMEOUT.get(step.kind)):
            useless(f"{pointer}/timeout", f"timeout of a step of kind {step.kind}", why, self.problems)
        if step.chain is True and (why := self._never_chains(step)):
            useless(f"{pointer}/chain", "a step that cannot share an activity", why, self.problems)
        if step.chain is False and isinstance(step, (TransformStep, SwitchStep)):
            useless(
                f"{pointer}/chain",
                f"chain: false of a step of kind {step.kind}",
                "It takes no time and is never an activity of its own: remove it.",
                self.problems,
            )

    def _never_chains(self, step: Step) -> str:
        match step:
            case HumanStep() | WaitStep() | CollaborationStep():
                return f"A step of kind {step.kind} waits for others: remove chain."
            case ToolStep() if step.activity is not None:
                return "Your own activity runs on your own worker: remove chain."
            case AgentStep() if step.recall:
                return "A step with recall asks the memory by an activity of its own: remove chain."
            case AgentStep():
                agent = self.references.parts.agents.get(step.agent)
                if agent and isinstance(agent.model, Route):
                    return "The router chooses the model by an activity of its own: remove chain."
        return ""

    def check_compensation(
        self, name: str, placed: PlacedStep, compensate: Compensate, needs: Iterable[str]
    ) -> None:
        """`needs` are the steps that have surely completed when the step has."""
        pointer = f"{placed.pointer}/compensate"
        self._tool(pointer, compensate)
        place = ExpressionPlace(placed.frame, name, undoes={name, *needs})
        self.references.check_template(f"{pointer}/args", compensate.args, place)


_NEVER_TRIED_AGAIN: Final = {
    "transform": "The same expressions come to the same again: remove retry.",
    "switch": "The same expressions come to the same again: remove retry.",
    "map": "The steps of its body are tried again by themselves: give retry to them.",
    "loop": "The steps of its body are tried again by themselves: give retry to them.",
    "human": "People are reminded and asked again by remind_after and on_timeout: remove retry.",
    "wait": "There is nothing in it that could fail for a while: remove retry.",
    "collaboration": "Its own steps are tried again by themselves: give retry to them.",
}
_WITHOUT_TIMEOUT: Final = {
    "transform": "It takes milliseconds: remove timeout.",
    "switch": "It takes milliseconds: remove timeout.",
    "map": "The steps of its body have their own: give timeout to them.",
    "loop": "The steps of its body have their own: give timeout to them.",
    "wait": "It ends by itself: remove timeout.",
}


def _one_expression(value: Json) -> bool:
    """Tell whether the value is one ${…} and nothing else; a malformed one is refused elsewhere."""
    if not isinstance(value, str):
        return False
    try:
        parts = split(value)
    except ExpressionInvalid:
        return True
    return len(parts) == 1 and isinstance(parts[0], tuple)
