"""Expressions compile, and what they refer to is there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from schema import json_schemas
from schema.expressions import ExpressionInvalid, Json, compile_expression
from schema.problems import Problems, show
from schema.shape import Parts
from schema.steps import AgentStep, Step, ToolStep
from schema.templates import expressions

_STEP_FACTS: Final = ("model", "output", "status")
_RUN_FACTS: Final = ("id", "name", "tenant", "version")


@dataclass(frozen=True, slots=True)
class References:
    """Checks expressions against the document that they stand in."""

    parts: Parts
    problems: Problems

    def check_template(self, pointer: str, value: Json) -> bool:
        """Whether every expression in the value compiles."""
        fine = True
        try:
            for where, source in expressions(value, pointer):
                fine = self.check_expression(where, source) and fine
        except ExpressionInvalid as error:
            self.problems.add_refused(pointer, "", error)
            return False
        return fine

    def check_expression(self, pointer: str, source: str, *, condition: bool = False) -> bool:
        """Whether the expression compiles; what it refers to in vain is a problem all the same."""
        try:
            compiled = compile_expression(source)
        except ExpressionInvalid as error:
            self.problems.add_refused(pointer, source, error)
            return False
        if condition and compiled.result_type not in ("BOOL", "DYN"):
            self.problems.add(
                "expression_type", pointer, f"an expression of type {compiled.result_type.lower()}",
                "true or false", "Compare it with something.",
            )  # fmt: skip
        for path in dict.fromkeys(reference.path for reference in compiled.references):
            self._check_path(pointer, path)
        return True

    def _check_path(self, pointer: str, path: tuple[str, ...]) -> None:
        match path:
            case ("steps", name, *rest):
                if name in self.parts.steps:
                    self._check_step_path(pointer, path, self.parts.steps[name], rest)
                elif name not in self.parts.step_ids:
                    self.step_unknown(pointer, name, self.parts.steps)
            case ("input", name, *_):
                schema = self.parts.document.get("input")
                fields = json_schemas.declared_fields(schema) if isinstance(schema, dict) else None
                self._check_field(pointer, path, name, fields, "the input schema")
            case ("run", name, *_):
                self._check_field(pointer, path, name, _RUN_FACTS, "run")

    def _check_step_path(self, pointer: str, path: tuple[str, ...], step: Step, rest: list[str]) -> None:
        if not rest:
            return
        self._check_field(pointer, path, rest[0], _STEP_FACTS, "a step")
        if rest[0] == "output" and len(rest) > 1:
            if isinstance(step, AgentStep) and step.output_schema is None:
                self.problems.add(
                    "reference_unknown", pointer, ".".join(path), f"steps.{path[1]}.output, which is text",
                    f"Give step {path[1]!r} an output_schema to get fields.",
                )  # fmt: skip
            elif isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
                fields = json_schemas.declared_fields(step.output_schema)
                self._check_field(pointer, path, rest[1], fields, f"the output_schema of {path[1]!r}")

    def _check_field(
        self, pointer: str, path: tuple[str, ...], name: str, known: Collection[str] | None, owner: str
    ) -> None:
        if known is not None and name not in known:
            self.problems.add(
                "reference_unknown", pointer, ".".join(path)[:200], f"a field that {owner} has",
                self.problems.hint(name, sorted(known)),
            )  # fmt: skip

    def step_unknown(self, pointer: str, name: str, known: Iterable[str]) -> None:
        self.problems.add(
            "step_unknown", pointer, f"step {show(name)}", "a step of this definition",
            self.problems.hint(name, known),
        )  # fmt: skip
