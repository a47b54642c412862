"""CEL expressions: compiled and type-checked at upload, evaluated without clock, chance or I/O.

Everything that knows the CEL library stands here, in `cel_environment` and in `cel_ast`, so that it can be
replaced.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from schema.cel import cost, syntax_tree
from schema.cel.cost import CostBudget, Node, Path, Slices
from schema.cel.environment import ROOTS, VALUE_ROOTS, begin_evaluation, environment
from schema.cel.syntax_tree import Reference
from schema.errors import StepError
from schema.names import RESERVED_IDS

MAX_CHARS: Final = 2_000
MAX_COPIES: Final = 1_000
"""Most copies of one value by `+` and lists, nested macros multiplying."""

_PATH: Final = re.compile(r"(input|steps|item|iter|output)(\.[a-zA-Z_][a-zA-Z0-9_]*){1,12}", re.ASCII)
"""A plain path, as most expressions are: no type can contradict its value before the run."""
_OF_LARGE: Final = (
    "; an integer beyond 64 bits can only be passed on, compared with another one and made text by string()."
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

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
    """CEL's name for the type of the result: BOOL, STRING, DYN …; NUMBER: an integer or a double."""
    tree: Node
    repeats: bool
    """It may read a value more than once, as macros do."""
    slices: Slices | None
    program: Any
    """The compiled CEL program; None for a plain path, which needs no CEL."""

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.source,)


def storable(text: str) -> bool:
    """Tell whether Postgres and UTF-8 can hold the text."""
    return "\0" not in text and (text.isascii() or _SURROGATE.search(text) is None)


_POSITION = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


def _compile_error(error: Exception, source: str) -> tuple[str, str, str, str]:
    text = str(error)
    match = _POSITION.search(text)
    message = match.group(3) if match else text.splitlines()[0]
    message = re.sub(r"\s*\(in container ''\)|\s*\[[A-Z_]+\]$|^[A-Z_]+: | expecting \{.*\}", "", message)[
        :300
    ]
    where = f"line {match.group(1)}, column {match.group(2)}: " if match and match.group(2) != "-1" else ""
    if "undeclared reference" in message:
        return (
            "expression_type",
            f"{where}{message}",
            "names that begin with input, steps or run (in bodies also item, index, iter)",
            "Check the spelling; a step's result is steps.<id>.output.",
        )
    if "Syntax error" in message or "recursion" in message:
        return (
            "expression_syntax",
            f"{where}{message}",
            "a CEL expression, nested at most 32 deep",
            f"Correct the expression {source[:80]!r}.",
        )
    return (
        "expression_type",
        f"{where}{message}",
        "operands whose types fit together",
        "Convert with string(), int() or double(), or compare like with like.",
    )


def compile_expression(source: str) -> Expression:
    """The checked form of `source`; raises ExpressionInvalid."""
    if len(source) > MAX_CHARS:
        raise ExpressionInvalid(
            "expression_too_long",
            f"{len(source):,} characters",
            f"at most {MAX_CHARS:,}",
            "Move a part of it into a transform step.",
        )
    compiled = _compile(source)
    if isinstance(compiled, Expression):
        return compiled
    raise ExpressionInvalid(*compiled)


@lru_cache(maxsize=4096)
def _compile(source: str) -> Expression | tuple[str, str, str, str]:
    """The expression, or what ExpressionInvalid is made of: refusing twice costs no more than once."""
    if _PATH.fullmatch(source) and RESERVED_IDS.isdisjoint(path := source.split(".")):
        return Expression(
            source, (Reference(tuple(path), False),), True, "DYN", Path(tuple(path)), False, None, None
        )
    try:
        program = environment().compile(source)
        serialised = program.serialize()
    except (RuntimeError, ValueError, TypeError) as error:
        return _compile_error(error, source)
    facts = syntax_tree.read(serialised, ROOTS, VALUE_ROOTS)
    if facts.dynamic_roots:
        return (
            "expression_dynamic_step",
            "steps without a constant step id",
            "steps.<id>, named in the text",
            "Name the step: the graph must be known before the run.",
        )
    if facts.unordered_ranges:
        return (
            "expression_map_iteration",
            "a macro over something that may be a map",
            "a list",
            "Wrap it: list(x) for a list, entries(x) for a map's sorted {key, value} pairs.",
        )
    if facts.copies > MAX_COPIES:
        return (
            "expression_too_large",
            f"nested macros that repeat one value {facts.copies:,} times",
            f"at most {MAX_COPIES:,}",
            "Spread the work over several transform steps.",
        )
    result_type = "NUMBER" if facts.is_number else program.return_type().name()
    return Expression(
        source,
        facts.references,
        facts.is_path,
        result_type,
        facts.tree,
        cost.repeats(facts.tree),
        cost.slices(facts.tree),
        program,
    )


def _plain(value: Json, source: str, large: Mapping[bytes, int]) -> Json:
    """CEL's value as JSON; map keys are sorted because CEL's own order differs per process. `large` are the
    integers that bytes stand for."""
    match value:
        case None | bool() | int():
            return value
        case str():
            if not storable(value):
                raise StepError("expression_failed", f"{source!r} came to text with a NUL character.")
            return value
        case dict():
            return {str(key): _plain(value[key], source, large) for key in sorted(value, key=str)}
        case list() | tuple():
            return [_plain(item, source, large) for item in value]
        case float() if math.isfinite(value):
            return value
        case float():
            raise StepError("expression_failed", f"{source!r} came to {value}, which JSON cannot hold.")
        case datetime():
            return value.isoformat()
        case timedelta():
            return _duration(value)
        case bytes() | bytearray() if (digits := bytes(value)) in large:
            return large[digits]
        case bytes() | bytearray():
            raise StepError("expression_failed", f"{source!r} came to bytes; convert it with string().")
    raise StepError("expression_failed", f"{source!r} came to {value}, which JSON cannot hold.")


def _duration(value: timedelta) -> str:
    """The duration as CEL's string() writes and its duration() reads it, to the microsecond: 90s, -1.5s."""
    microseconds = value // timedelta(microseconds=1)
    whole, part = divmod(abs(microseconds), 1_000_000)
    fraction = f".{part:06d}".rstrip("0") if part else ""
    return f"{'-' if microseconds < 0 else ''}{whole}{fraction}s"


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
                if not isinstance(source, Mapping) or target.get(key) is source:
                    target[key] = source
                    break
                target = target.setdefault(key, {})
    return data


def _is_small(value: Json) -> bool:
    return not isinstance(value, (str, list, Mapping)) or (
        isinstance(value, str) and len(value) <= cost.SMALL_CHARS
    )


def _check_cost(expression: Expression, data: Mapping[str, Json], budget: CostBudget) -> Slices | None:
    """Refuse what could hold the process too long: nothing can interrupt CEL once it runs.

    Returns the list that is to be given in slices, where one is long.
    """

    def find(path: tuple[str, ...]) -> Json:
        return lookup(path, data)[1]

    if not expression.repeats and all(_is_small(find(one.path)) for one in expression.references):
        return None
    sliced = expression.slices
    long = find(sliced.path) if sliced else None
    if not isinstance(long, list) or not cost.MAX_SLICE < len(long) <= cost.MAX_ITERATIONS:
        sliced = None
    try:
        cost.CostEstimate(find, budget, sliced.path if sliced else None).check(expression.tree)
    except cost.TooCostly:
        raise StepError(
            "expression_failed",
            f"{expression.source!r} could take longer with the values it reads now than the "
            f"{cost.MAX_NANOSECONDS // 1_000_000} ms that one evaluation may. Let it read less of them, "
            "spread the work over a map, or use a tool step.",
        ) from None
    return sliced


def evaluate(expression: Expression, scope: Mapping[str, Json], budget: CostBudget | None = None) -> Json:
    """The value of the expression; raises StepError("expression_failed").

    `budget` is what it may cost; None stands for as much as a single one may.
    """
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
    data = _only_what_is_read(expression, scope)
    sliced = _check_cost(expression, data, budget or CostBudget())
    begin_evaluation()
    return _in_slices(expression, data, sliced) if sliced else _run(expression, data)


def _in_slices(expression: Expression, data: dict[str, Json], sliced: Slices) -> Json:
    """The value of an expression that goes through a long list, which it is given slice by slice."""
    *above, last = sliced.path
    holder = data
    for key in above:
        holder[key] = dict(holder[key])  # what is copied was the run's own
        holder = holder[key]
    whole = holder[last]
    results = []
    for start in range(0, len(whole), cost.MAX_SLICE):
        holder[last] = whole[start : start + cost.MAX_SLICE]
        results.append(_run(expression, data))
    return sum(results) if sliced.counts else [item for part in results for item in part]


def _run(expression: Expression, data: Mapping[str, Json]) -> Json:
    large: dict[bytes, int] = {}
    failed, value = _value(expression, data)
    if failed:
        # CEL reads no integer beyond 64 bits, not even one that the expression only passes on.
        stand_ins = _with_stand_ins(data, large)
        failed, value = _value(expression, stand_ins) if large else (failed, value)
    if failed:
        # CEL quotes the whole of a pattern that it does not understand.
        hint = _OF_LARGE if large else ""
        raise StepError("expression_failed", f"{expression.source!r} failed: {str(value)[:300]}{hint}")
    return _plain(value, expression.source, large)


def _value(expression: Expression, data: Mapping[str, Json]) -> tuple[bool, Json]:
    """(whether it failed, CEL's value or what went wrong); raises StepError where it has no plain form."""
    try:
        result = expression.program.eval(data=data)
        return result.type() == cel.Type.ERROR, result.plain_value()
    except (RuntimeError, TypeError, ValueError) as error:
        # The iteration budget, or a value such as optional.of(1).
        raise StepError("expression_failed", f"{expression.source!r} failed: {_first_line(error)}") from None


def _with_stand_ins(value: Json, large: dict[bytes, int]) -> Json:
    """The value with the digits of each integer that CEL cannot read in its place, as bytes, which JSON has
    not; `large` tells which integers they stand for."""
    match value:
        case int() if not -(2**63) <= value < 2**63:
            stand_in = str(value).encode()
            large[stand_in] = value
            return stand_in
        case dict():
            return {key: _with_stand_ins(item, large) for key, item in value.items()}
        case list():
            return [_with_stand_ins(item, large) for item in value]
    return value


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()[0]
    return "it comes to no plain value; end with orValue()." if "Python type" in text else text
