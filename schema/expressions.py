"""CEL expressions: compiled and type-checked at upload, evaluated without clock, chance or I/O.

Everything that knows the CEL library stands here and in `cel_ast`, so that it can be replaced.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_optional, ext_strings

from schema import cel_ast
from schema.cel_ast import Reference
from schema.errors import StepError

ROOTS: Final = frozenset({"input", "steps", "run"})
MAX_CHARS: Final = 2_000

Json = Any
"""A user's own JSON value: checked once at the boundary."""


class ExpressionInvalid(Exception):
    """An expression that cannot be accepted: `code` is a problem code, `column` counts from 1."""

    def __init__(self, code: str, found: str, expected: str, fix: str) -> None:
        super().__init__(found)
        self.code, self.found, self.expected, self.fix = code, found, expected, fix


@dataclass(frozen=True, slots=True)
class Expression:
    source: str
    references: tuple[Reference, ...]
    is_path: bool
    result_type: str
    """CEL's name for the type of the result: BOOL, STRING, DYN …"""
    program: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.source,)


def _entries(value: Mapping[str, Json]) -> list[dict[str, Json]]:
    return [{"key": key, "value": value[key]} for key in sorted(value)]


@lru_cache(maxsize=1)
def _environment() -> Any:
    kind = cel.Type
    entry = kind.Map(kind.STRING, kind.DYN)
    return cel.NewEnv(
        variables={
            "input": kind.Map(kind.STRING, kind.DYN),
            "steps": kind.Map(kind.STRING, kind.DYN),
            "run": kind.Map(kind.STRING, kind.STRING),
        },
        extensions=[ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional()],
        functions=[
            cel.FunctionDecl(
                "entries",
                [cel.Overload("entries_map", kind.List(entry), [entry], False, _entries)],
            ),
            cel.FunctionDecl(
                "list",
                # At run the argument's own type decides: a map finds no overload and is an error.
                [cel.Overload("list_list", kind.List(kind.DYN), [kind.List(kind.DYN)], False, lambda v: v)],
            ),
        ],
    )


_POSITION = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


def _compile_error(error: Exception, source: str) -> ExpressionInvalid:
    text = str(error)
    match = _POSITION.search(text)
    message = match.group(3) if match else text.splitlines()[0]
    message = re.sub(r"\s*\(in container ''\)|\s*\[[A-Z_]+\]$", "", message)
    where = f"line {match.group(1)}, column {match.group(2)}: " if match and match.group(2) != "-1" else ""
    if "undeclared reference" in message:
        return ExpressionInvalid(
            "expression_type", f"{where}{message}", "names that begin with input, steps or run",
            "Check the spelling; a step's result is steps.<id>.output.",
        )  # fmt: skip
    if "Syntax error" in message or "recursion" in message:
        return ExpressionInvalid(
            "expression_syntax", f"{where}{message[:300]}", "a CEL expression",
            f"Correct the expression {source[:80]!r}.",
        )  # fmt: skip
    return ExpressionInvalid(
        "expression_type", f"{where}{message[:300]}", "operands whose types fit together",
        "Convert with string(), int() or double(), or compare like with like.",
    )  # fmt: skip


@lru_cache(maxsize=4096)
def compile_expression(source: str) -> Expression:
    """The checked form of `source`; raises ExpressionInvalid."""
    if len(source) > MAX_CHARS:
        raise ExpressionInvalid(
            "expression_too_long", f"{len(source):,} characters", f"at most {MAX_CHARS:,}",
            "Move a part of it into a transform step.",
        )  # fmt: skip
    try:
        program = _environment().compile(source)
        serialised = program.serialize()
    except (RuntimeError, ValueError, TypeError) as error:
        raise _compile_error(error, source) from None
    facts = cel_ast.read(serialised, ROOTS)
    if facts.dynamic_roots:
        raise ExpressionInvalid(
            "expression_dynamic_step", "steps without a constant step id", "steps.<id>, named in the text",
            "Name the step: the graph must be known before the run.",
        )  # fmt: skip
    if facts.unordered_ranges:
        raise ExpressionInvalid(
            "expression_map_iteration", "a macro over something that may be a map", "a list",
            "Wrap it: list(x) for a list, entries(x) for a map's sorted {key, value} pairs.",
        )  # fmt: skip
    return Expression(source, facts.references, facts.is_path, program.return_type().name(), program)


def _plain(value: Json, source: str) -> Json:
    """CEL's value as JSON; map keys are sorted because CEL's own order differs per process."""
    if isinstance(value, dict):
        return {str(key): _plain(value[key], source) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [_plain(item, source) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, (bytes, bytearray)):
        raise StepError("expression_failed", f"{source!r} came to bytes; convert it with string().")
    if isinstance(value, float) and not math.isfinite(value):
        raise StepError("expression_failed", f"{source!r} came to {value}, which JSON cannot hold.")
    return value


def lookup(path: tuple[str, ...], scope: Mapping[str, Json]) -> tuple[bool, Json]:
    """(found, value) at `path` in nested maps."""
    value: Json = scope
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _only_what_is_read(expression: Expression, scope: Mapping[str, Json]) -> dict[str, Json]:
    """The part of the scope that the expression reads: converting megabytes it never looks at is waste."""
    data: dict[str, Json] = {"input": {}, "steps": {}, "run": scope.get("run", {})}
    for reference in sorted(expression.references, key=lambda r: len(r.path)):
        found, value = lookup(reference.path, scope)
        if reference.iterated and isinstance(value, Mapping):
            raise StepError(
                "expression_failed",
                f"{expression.source!r} iterates {'.'.join(reference.path)}, which came to a map; "
                "wrap it in entries() to get its sorted {key, value} pairs.",
            )
        target, source = data, scope
        for depth, key in enumerate(reference.path):
            if not isinstance(source, Mapping) or key not in source:
                break
            if depth == len(reference.path) - 1:
                target[key] = value if found else None
            else:
                source = source[key]
                if not isinstance(target.get(key), dict):
                    target[key] = {}
                elif target[key] is source:
                    break
                target = target[key]
    return data


def evaluate(expression: Expression, scope: Mapping[str, Json]) -> Json:
    """The value of the expression; raises StepError("expression_failed")."""
    if expression.is_path:
        path = expression.references[0].path
        found, value = lookup(path, scope)
        if found:
            return value
        raise StepError(
            "expression_failed",
            f"{expression.source!r} found nothing at {'.'.join(path)}. "
            "Use [?'name'] and orValue() where it may be absent.",
        )
    result = expression.program.eval(data=_only_what_is_read(expression, scope))
    if result.type() == cel.Type.ERROR:
        raise StepError("expression_failed", f"{expression.source!r} failed: {result.plain_value()}")
    return _plain(result.plain_value(), expression.source)
