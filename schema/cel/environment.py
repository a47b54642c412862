"""The environment of an expression: variables, extensions, and our own functions with their bounds."""

import math
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_optional

from schema.cel.cost import MAX_BUILT_CHARS

ROOTS: Final = frozenset({"input", "steps", "run", "item", "index", "iter", "output"})
VALUE_ROOTS: Final = frozenset({"item", "output"})
"""Roots that may be any value; the others are maps, and `index` is a number."""


@lru_cache(maxsize=1)
def environment() -> Any:
    """CEL's environment, made once per process."""
    kind = cel.Type
    entry = kind.Map(kind.STRING, kind.DYN)
    return cel.NewEnv(
        variables={
            "input": kind.Map(kind.STRING, kind.DYN),
            "steps": kind.Map(kind.STRING, kind.DYN),
            "run": kind.Map(kind.STRING, kind.STRING),
            "item": kind.DYN,
            "index": kind.INT,
            "iter": kind.Map(kind.STRING, kind.DYN),
            "output": kind.DYN,
        },
        extensions=[ext_math.ExtMath(), ext_optional.ExtOptional(), _mixed_arithmetic()],
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


def _mixed_arithmetic() -> Any:
    """`+ - * /` of an integer and a double, which give a double. CEL itself refuses them, so that 1 or 1.0
    in somebody's JSON would decide whether an expression fails.

    An extension adds to an operator what `functions` cannot. The result is declared as dynamic: so it may be
    compared with either kind of number.
    """
    kind = cel.Type
    table: list[tuple[str, str, Callable[[float, float], float]]] = [
        ("_+_", "add", lambda a, b: a + b),
        ("_-_", "subtract", lambda a, b: a - b),
        ("_*_", "multiply", lambda a, b: a * b),
        ("_/_", "divide", _divide),
    ]
    return cel.CelExtension(
        "mixed_arithmetic",
        [
            cel.FunctionDecl(
                operator,
                [
                    cel.Overload(f"{name}_int_double", kind.DYN, [kind.INT, kind.DOUBLE], False, code),
                    cel.Overload(f"{name}_double_int", kind.DYN, [kind.DOUBLE, kind.INT], False, code),
                ],
            )
            for operator, name, code in table
        ],
    )


def _divide(one: float, other: float) -> float:
    """Divide doubles as CEL does: by zero gives an infinity, or NaN."""
    if other:
        return one / other
    return math.copysign(math.inf, one) * math.copysign(1.0, other) if one else math.nan


def begin_evaluation() -> None:
    """Let the evaluation that follows in this thread build text up to the bound."""
    _built.left = MAX_BUILT_CHARS


class _TextBudget(threading.local):
    """Text that the functions of the running evaluation may still build."""

    left = 0


_built = _TextBudget()


def _spend(chars: int) -> None:
    _built.left -= chars
    if _built.left < 0:
        raise ValueError(f"the text that it builds exceeds {MAX_BUILT_CHARS:,} characters")


def _entries(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value[key]} for key in sorted(value)]


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


_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
