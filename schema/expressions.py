"""CEL expressions: compiled and type-checked at upload, evaluated without clock, chance or I/O.

Everything that knows the CEL library stands here and in `cel_ast`, so that it can be replaced.
"""

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_optional

from schema import cel_ast
from schema.cel_ast import Reference
from schema.errors import StepError

ROOTS: Final = frozenset({"input", "steps", "run"})
MAX_CHARS: Final = 2_000
MAX_COPIES: Final = 1_000
"""How often one value may be repeated by `+` and by lists, nested macros multiplying."""
MAX_WORK_BYTES: Final = 256 * 1024 * 1024
"""What one evaluation may take in the worst case; CEL itself stops at 10,000 iterations."""
MAX_BUILT_CHARS: Final = 4 * 1024 * 1024
"""Text that replace(), join() and their like may build in one evaluation."""

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
    """CEL's name for the type of the result: BOOL, STRING, DYN …"""
    copies: int
    loop_reads: frozenset[tuple[str, ...]] | None
    program: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.source,)


def storable(text: str) -> bool:
    """Whether Postgres and UTF-8 can hold the text."""
    return "\0" not in text and (text.isascii() or _SURROGATE.search(text) is None)


def _entries(value: Mapping[str, Json]) -> list[dict[str, Json]]:
    return [{"key": key, "value": value[key]} for key in sorted(value)]


class _Built(threading.local):
    """How much text the functions of the running evaluation may still build."""

    left = 0


_built = _Built()


def _spend(chars: int) -> None:
    _built.left -= chars
    if _built.left < 0:
        raise ValueError(f"the text that it builds exceeds {MAX_BUILT_CHARS:,} characters")


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old) if count < 0 else min(text.count(old), count)
    _spend(len(text) + found * len(new))
    return text.replace(old, new, count)


def _join(items: list[str], separator: str = "") -> str:
    if not all(isinstance(item, str) for item in items):
        raise ValueError("join() takes a list of texts; convert the others with string()")
    _spend(sum(map(len, items)) + len(items) * len(separator))
    return separator.join(items)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    _spend(len(text))
    if count in (0, 1):
        return [text] if count else []
    parts = text.split(separator, count - 1 if count > 0 else -1) if separator else list(text)
    if not separator and 0 < count < len(parts):
        parts[count - 1 :] = ["".join(parts[count - 1 :])]
    return parts


def _substring(text: str, start: int, end: int | None = None) -> str:
    last = len(text) if end is None else end
    if not 0 <= start <= last <= len(text):
        raise ValueError(f"substring({start}, {last}) of a text of {len(text)} characters")
    return text[start:last]


def _text_functions() -> list[Any]:
    """CEL's strings extension. Its own replace() and join() have no bound: a line of text could come to
    gigabytes, and nothing can interrupt it."""
    text, whole, texts = cel.Type.STRING, cel.Type.INT, cel.Type.List(cel.Type.STRING)

    def method(name: str, result: Any, takes: list[Any], code: Callable[..., Any]) -> Any:
        overload = f"{name}_{len(takes)}"
        return cel.Overload(overload, result, takes, True, code)

    table: list[tuple[str, Any, list[list[Any]], Callable[..., Any]]] = [
        ("charAt", text, [[text, whole]], lambda t, at: _substring(t, at, min(at + 1, len(t)))),
        ("indexOf", whole, [[text, text]], str.find),
        ("lastIndexOf", whole, [[text, text]], str.rfind),
        ("lowerAscii", text, [[text]], lambda t: t.translate(_LOWER)),
        ("upperAscii", text, [[text]], lambda t: t.translate(_UPPER)),
        ("trim", text, [[text]], str.strip),
        ("reverse", text, [[text]], lambda t: t[::-1]),
        ("replace", text, [[text, text, text], [text, text, text, whole]], _replace),
        ("split", texts, [[text, text], [text, text, whole]], _split),
        ("join", text, [[texts], [texts, text]], _join),
        ("substring", text, [[text, whole], [text, whole, whole]], _substring),
    ]
    return [
        cel.FunctionDecl(name, [method(name, result, takes, code) for takes in shapes])
        for name, result, shapes, code in table
    ]


_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


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
        extensions=[ext_math.ExtMath(), ext_optional.ExtOptional()],
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
            *_text_functions(),
        ],
    )


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
            "expression_type", f"{where}{message}", "names that begin with input, steps or run",
            "Check the spelling; a step's result is steps.<id>.output.",
        )  # fmt: skip
    if "Syntax error" in message or "recursion" in message:
        return (
            "expression_syntax", f"{where}{message}", "a CEL expression, nested at most 32 deep",
            f"Correct the expression {source[:80]!r}.",
        )  # fmt: skip
    return (
        "expression_type", f"{where}{message}", "operands whose types fit together",
        "Convert with string(), int() or double(), or compare like with like.",
    )  # fmt: skip


def compile_expression(source: str) -> Expression:
    """The checked form of `source`; raises ExpressionInvalid."""
    if len(source) > MAX_CHARS:
        raise ExpressionInvalid(
            "expression_too_long", f"{len(source):,} characters", f"at most {MAX_CHARS:,}",
            "Move a part of it into a transform step.",
        )  # fmt: skip
    compiled = _compile(source)
    if isinstance(compiled, Expression):
        return compiled
    raise ExpressionInvalid(*compiled)


@lru_cache(maxsize=4096)
def _compile(source: str) -> Expression | tuple[str, str, str, str]:
    """The expression, or what ExpressionInvalid is made of: refusing twice costs no more than once."""
    try:
        program = _environment().compile(source)
        serialised = program.serialize()
    except (RuntimeError, ValueError, TypeError) as error:
        return _compile_error(error, source)
    facts = cel_ast.read(serialised, ROOTS)
    if facts.dynamic_roots:
        return (
            "expression_dynamic_step", "steps without a constant step id", "steps.<id>, named in the text",
            "Name the step: the graph must be known before the run.",
        )  # fmt: skip
    if facts.unordered_ranges:
        return (
            "expression_map_iteration", "a macro over something that may be a map", "a list",
            "Wrap it: list(x) for a list, entries(x) for a map's sorted {key, value} pairs.",
        )  # fmt: skip
    if facts.copies > MAX_COPIES:
        return (
            "expression_too_large", f"nested macros that repeat one value {facts.copies:,} times",
            f"at most {MAX_COPIES:,}", "Spread the work over several transform steps.",
        )  # fmt: skip
    return Expression(
        source, facts.references, facts.is_path, program.return_type().name(),
        facts.copies, facts.loop_reads, program,
    )  # fmt: skip


def _plain(value: Json, source: str) -> Json:
    """CEL's value as JSON; map keys are sorted because CEL's own order differs per process."""
    match value:
        case None | bool() | int():
            return value
        case str():
            if not storable(value):
                raise StepError("expression_failed", f"{source!r} came to text with a NUL character.")
            return value
        case dict():
            return {str(key): _plain(value[key], source) for key in sorted(value, key=str)}
        case list() | tuple():
            return [_plain(item, source) for item in value]
        case float() if math.isfinite(value):
            return value
        case float():
            raise StepError("expression_failed", f"{source!r} came to {value}, which JSON cannot hold.")
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g}s"
        case bytes() | bytearray():
            raise StepError("expression_failed", f"{source!r} came to bytes; convert it with string().")
    raise StepError("expression_failed", f"{source!r} came to {value}, which JSON cannot hold.")


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


def _check_work(expression: Expression, data: Mapping[str, Json]) -> None:
    """Refuse what could come to more than fits: nothing can interrupt CEL once it runs."""
    if expression.copies <= 1 and expression.loop_reads == frozenset():
        return
    total, longest = _size(data)
    repeated = total
    if expression.loop_reads is not None:
        repeated = sum(_size(value)[0] for path in expression.loop_reads if (value := lookup(path, data)[1]))
    worst = expression.copies * (total + repeated * min(longest, 10_000) + len(expression.source))
    if worst > MAX_WORK_BYTES:
        raise StepError(
            "expression_failed",
            f"{expression.source!r} could come to {worst:,} bytes with the values it reads now; at most "
            f"{MAX_WORK_BYTES:,}. Read less of them, or use a tool step.",
        )


def _size(value: Json) -> tuple[int, int]:
    """(about how many bytes, length of the longest list or map)."""
    size = longest = 0
    stack = [value]
    while stack:
        item = stack.pop()
        size += 16
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, Mapping):
            longest = max(longest, len(item))
            size += sum(map(len, item))
            stack.extend(item.values())
        elif isinstance(item, list):
            longest = max(longest, len(item))
            stack.extend(item)
    return size, longest


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
    data = _only_what_is_read(expression, scope)
    _check_work(expression, data)
    _built.left = MAX_BUILT_CHARS
    try:
        result = expression.program.eval(data=data)
        failed, value = result.type() == cel.Type.ERROR, result.plain_value()
    except (RuntimeError, TypeError, ValueError) as error:
        # The iteration budget, or a value that has no plain form such as optional.of(1).
        raise StepError("expression_failed", f"{expression.source!r} failed: {_first_line(error)}") from None
    if failed:
        raise StepError("expression_failed", f"{expression.source!r} failed: {value}")
    return _plain(value, expression.source)


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()[0]
    return "it comes to no plain value; end with orValue()." if "Python type" in text else text
