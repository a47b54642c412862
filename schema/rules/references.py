"""Expressions compile, what they refer to is there, and it can be read where they stand."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from schema.cel.expressions import Expression, ExpressionInvalid, Json, compile_expression
from schema.cel.syntax_tree import Reference
from schema.language import json_schemas
from schema.language.dependencies import handlers
from schema.language.problems import Problems, show
from schema.language.shape import Parts, PlacedStep
from schema.language.steps import AgentStep, HumanStep, LoopStep, MapStep, Step, ToolStep, TransformStep
from schema.language.templates import expressions
from schema.rules.presence import Presence, has_stand_in

_RUN_FACTS: Final = ("id", "name", "tenant", "version")
_ITERATION_FACTS: Final = ("carry", "index", "output", "previous")
_OF_ANY_END: Final = ("", "model", "status")
"""Facts that also a step has that was skipped."""
_ERROR_FACTS: Final = ("code", "message")
_DECISION_FACTS: Final = ("by", "decision", "decisions", "form", "value")
_FACTS_OF_KIND: Final = {
    "agent": ("model", "finish_reason"),
    "map": ("items",),
    "loop": ("iterations",),
    "switch": ("branch",),
}


@dataclass(frozen=True, slots=True)
class ExpressionPlace:
    """The position of an expression, which decides what it may name."""

    frame: tuple[str, ...] = ()
    """The maps and loops around it, outermost first. What a loop's `until` and `carry` see, and what a body
    comes to, stands in the body's own frame."""
    step: str = ""
    """The step that it belongs to; "" is the definition itself."""
    after: bool = False
    """`until` or `carry`, where iter.output is known."""
    output: bool = False
    """An expectation, which sees `output`."""
    undoes: Collection[str] | None = None
    """For a compensation: the steps that certainly completed when it runs, its own first."""


@dataclass(frozen=True, slots=True)
class References:
    """Checks expressions against the document that they stand in."""

    parts: Parts
    problems: Problems
    takes_over: dict[str, list[str]] = field(init=False)
    """step → the steps that it handles the errors of."""
    read_by_their_parts: set[str] = field(default_factory=set)
    """Maps and loops that a step of their body names, which is refused; it is no circle besides."""
    read_at_end: list[tuple[str, str]] = field(default_factory=list)
    """(pointer, step) of what is read as if it had surely completed when its frame has ended."""

    def __post_init__(self) -> None:
        steps = {name: placed.step for name, placed in self.parts.steps.items()}
        object.__setattr__(self, "takes_over", handlers(steps))

    def check_template(self, pointer: str, value: Json, place: ExpressionPlace) -> bool:
        """Check that every expression in the value compiles."""
        fine = True
        try:
            for where, source in expressions(value, pointer):
                fine = self.check_expression(where, source, place) is not None and fine
        except ExpressionInvalid as error:
            self.problems.add_refused(pointer, "", error)
            return False
        return fine

    def check_condition(self, pointer: str, source: str, place: ExpressionPlace) -> bool:
        """Check that the expression compiles and may be true or false."""
        compiled = self.check_expression(pointer, source, place)
        if compiled and compiled.result_type not in ("BOOL", "DYN"):
            self._type_wrong(pointer, compiled, "true or false", "Compare it with something.")
        return compiled is not None

    def check_list(self, pointer: str, source: str, place: ExpressionPlace) -> bool:
        """Check that the expression compiles and may be a list."""
        compiled = self.check_expression(pointer, source, place)
        if compiled and compiled.result_type != "DYN" and not compiled.result_type.startswith("LIST"):
            self._type_wrong(pointer, compiled, "a list", "Wrap a map in entries(), a single value in [ ].")
        return compiled is not None

    def _type_wrong(self, pointer: str, compiled: Expression, expected: str, fix: str) -> None:
        found = f"an expression of type {compiled.result_type.lower()}"
        self.problems.add("expression_type", pointer, found, expected, fix)

    def check_expression(self, pointer: str, source: str, place: ExpressionPlace) -> Expression | None:
        """The expression when it compiles; what it refers to in vain is a problem all the same."""
        try:
            compiled = compile_expression(source)
        except ExpressionInvalid as error:
            if source.lstrip().startswith("${"):
                error.fix = "Write it without ${ }: this field is an expression as it stands."
            self.problems.add_refused(pointer, source, error)
            return None
        for reference in compiled.references:
            if not reference.iterated:  # what is iterated is among them as what is read, too
                self._check_reference(pointer, reference, place)
        return compiled

    def _check_reference(self, pointer: str, reference: Reference, place: ExpressionPlace) -> None:
        path = reference.path
        match path:
            case ("steps", name, *rest):
                if name not in self.parts.frames:
                    self.step_unknown(pointer, name)
                elif self.check_visible(pointer, name, place) and name in self.parts.steps:
                    placed = self.parts.steps[name]
                    if self._check_certain(pointer, reference, rest, placed, place):
                        self._check_facts(pointer, path, placed.step, rest)
            case ("input", name, *_):
                schema = self.parts.document.get("input")
                fields = json_schemas.declared_fields(schema) if isinstance(schema, dict) else None
                self._check_field(pointer, path, name, fields, "the input schema")
            case ("run", name, *_):
                self._check_field(pointer, path, name, _RUN_FACTS, "run")
            case ("item" | "index", *_):
                if not self._inside("map", place):
                    self._out_of_place(
                        pointer, path[0], "names that exist here", "Only the body of a map sees it."
                    )
            case ("iter", *rest):
                self._check_iteration(pointer, path, rest, place)
            case ("output", *_) if not place.output:
                self._out_of_place(
                    pointer,
                    "output",
                    "names that exist here",
                    "Only reflect.expect sees it; a step's result is steps.<id>.output.",
                )

    def _inside(self, kind: str, place: ExpressionPlace) -> bool:
        return any(self.parts.kinds.get(owner) == kind for owner in place.frame)

    def _check_iteration(
        self, pointer: str, path: tuple[str, ...], rest: list[str], place: ExpressionPlace
    ) -> None:
        if not self._inside("loop", place):
            self._out_of_place(pointer, "iter", "names that exist here", "Only the body of a loop sees it.")
        elif rest[:1] == ["output"] and not place.after:
            self._out_of_place(
                pointer,
                "iter.output",
                "what is known while an iteration runs",
                "Only until and carry see it; iter.previous is the output of the iteration before.",
            )
        elif rest:
            self._check_field(pointer, path, rest[0], _ITERATION_FACTS, "iter")

    def check_visible(self, pointer: str, name: str, place: ExpressionPlace) -> bool:
        """Check that a step can be named there: in the same frame or an enclosing one."""
        frame = self.parts.frames[name]
        if name in place.frame:
            self.read_by_their_parts.add(name)
            self._out_of_place(
                pointer,
                f"step {name!r}, which this is a part of",
                "a step that ends before",
                "In the body of a loop, iter.previous is what the iteration before came to.",
            )
            return False
        if frame != place.frame[: len(frame)]:
            owner = next(one for at, one in enumerate(frame) if place.frame[at : at + 1] != (one,))
            self._out_of_place(
                pointer,
                f"step {name!r} in the body of {owner!r}",
                "a step of the same body or around it",
                f"Use steps.{owner}.output, and let the body's output hold what is needed.",
            )
            return False
        return True

    def _check_certain(
        self, pointer: str, reference: Reference, rest: list[str], placed: PlacedStep, place: ExpressionPlace
    ) -> bool:
        """Check that a value which is read as if present is certainly there."""
        name = reference.path[1]
        fact = rest[0] if rest else ""
        soft = f"Use steps[?{name!r}], with orValue() for when it is absent."
        if place.undoes is not None:
            around = len(placed.frame) < len(place.frame)  # it ended before the map or loop began
            if not (reference.optional or reference.guarded or around or name in place.undoes):
                self._uncertain(pointer, name, "may not have run when this one is undone", soft)
                return False
            return True
        if self._chosen_from(pointer, reference, placed, place, soft):
            return False
        if reference.optional:
            return True
        if fact == "branch" and has_stand_in(placed.step) and not reference.guarded:
            self._uncertain(pointer, name, "takes no branch where a value stands in for it", soft)
            return False
        if not (place.step or reference.guarded or fact in _OF_ANY_END) and placed.frame == place.frame:
            self.read_at_end.append((pointer, name))
        handled = self._handled(name, place)
        if len(handled) > 1:
            self._uncertain(pointer, name, f"is one of {len(handled)} whose errors are handled here", soft)
            return False
        if handled and fact not in ("error", "status", ""):
            self._out_of_place(
                pointer,
                f"steps.{name}.{fact} of a step that has failed here",
                "its error or its status",
                f"Read steps.{name}.error.code or .message.",
            )
            return False
        if fact == "error" and not handled:
            self._out_of_place(
                pointer,
                f"steps.{name}.error where {name!r} has completed",
                "a step that catches its errors",
                f"Read it in a step that `catch` of {name!r} names, or as steps[?{name!r}].?error.",
            )
            return False
        return True

    def _handled(self, name: str, place: ExpressionPlace) -> list[str]:
        """The steps whose errors are handled where this stands, when the named one is among them."""
        handling = (self.takes_over.get(one, []) for one in (place.step, *place.frame))
        return next((handled for handled in handling if name in handled), [])

    def _chosen_from(
        self, pointer: str, reference: Reference, placed: PlacedStep, place: ExpressionPlace, soft: str
    ) -> bool:
        """Tell whether the reading step, or a map or loop around it, starts before all its needs ended."""
        name = reference.path[1]
        for starter in (place.step, *place.frame):
            waiting = self.parts.steps.get(starter)
            if waiting is None or waiting.step.join == "all" or waiting.frame != placed.frame:
                continue
            if not reference.optional:
                self._uncertain(pointer, name, f"may be absent when {starter!r} starts", soft)
                return True
            if starter != place.step and name in {need.partition(":")[0] for need in waiting.step.needs}:
                self._uncertain(
                    pointer,
                    name,
                    f"may still run when {starter!r} starts",
                    "Read it in a transform step that this one needs.",
                )
                return True
        return False

    def check_read_at_end(self, presence: Presence) -> None:
        """Check that whatever a definition, a body, `until` and `carry` read has certainly completed
        by then."""
        for pointer, name in dict.fromkeys(self.read_at_end):
            if not presence.is_certain(name):
                self._uncertain(
                    pointer,
                    name,
                    "may have been skipped or caught by then",
                    f"Write steps[?{name!r}].?output.orValue(…), with what it comes to without the step.",
                )

    def _uncertain(self, pointer: str, name: str, why: str, fix: str) -> None:
        self.problems.add(
            "reference_uncertain",
            pointer,
            f"step {name!r}, which {why}",
            "a step that has surely completed",
            fix,
        )

    def _check_facts(self, pointer: str, path: tuple[str, ...], step: Step, rest: list[str]) -> None:
        if not rest:
            return
        catches = bool(step.catch)
        known = ["output", "status", *(["error"] if catches else []), *_FACTS_OF_KIND.get(step.kind, ())]
        owner = f"a step of kind {step.kind}"
        if rest[0] == "error" and not catches:
            owner += " without `catch`"
        self._check_field(pointer, path, rest[0], known, owner)
        if rest[0] == "error" and catches and len(rest) > 1:
            self._check_field(pointer, path, rest[1], _ERROR_FACTS, "an error")
        if (
            rest[0] == "output"
            and len(rest) > 1
            and not any("value" in rule.model_fields_set for rule in step.catch)
        ):
            self._check_output_field(pointer, path, step, rest[1])

    def _check_output_field(self, pointer: str, path: tuple[str, ...], step: Step, name: str) -> None:
        is_text = isinstance(step, AgentStep) and step.output_schema is None and step.emits is None
        if is_text or isinstance(step, MapStep):
            what, fix = (
                ("text", f"Give step {path[1]!r} an output_schema to get fields.")
                if is_text
                else ("a list", "Take one by its number, as in output[0], or go over them with map().")
            )
            self.problems.add(
                "reference_unknown",
                pointer,
                ".".join(path)[:200],
                f"steps.{path[1]}.output, which is {what}",
                fix,
            )
        elif isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
            fields = json_schemas.declared_fields(step.output_schema)
            self._check_field(pointer, path, name, fields, f"the output_schema of {path[1]!r}")
        elif isinstance(step, HumanStep):
            self._check_field(pointer, path, name, _DECISION_FACTS, "a decision")
        elif isinstance(step, TransformStep) and isinstance(step.value, dict):
            self._check_field(pointer, path, name, step.value, f"the value of {path[1]!r}")
        elif isinstance(step, LoopStep) and isinstance(step.body.output, dict):
            self._check_field(pointer, path, name, step.body.output, f"the body's output of {path[1]!r}")

    def _check_field(
        self, pointer: str, path: tuple[str, ...], name: str, known: Collection[str] | None, owner: str
    ) -> None:
        if known is not None and name not in known:
            self.problems.add(
                "reference_unknown",
                pointer,
                ".".join(path)[:200],
                f"a field that {owner} has",
                self.problems.hint(name, sorted(known)),
            )

    def _out_of_place(self, pointer: str, found: str, expected: str, fix: str) -> None:
        self.problems.add("reference_out_of_place", pointer, found, expected, fix)

    def step_unknown(self, pointer: str, name: str) -> None:
        self.problems.add(
            "step_unknown",
            pointer,
            f"step {show(name)}",
            "a step of this definition",
            self.problems.hint(name, self.parts.frames),
        )
