"""Bound what validating a value against a JSON Schema can cost, before it begins.

Nothing can interrupt the validator once it runs, and it holds the interpreter meanwhile. The bound is the
number of keywords that can apply at each depth of the schema, times the values that stand at that depth.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from schema.values.sizes import MAX_VALUES, levels

MAX_CHECKS: Final = 4_000_000
"""Keywords times values of one validation; each takes about 10 ns."""

_MULTIPLE_OF: Final = 200
_UNEVALUATED: Final = 4
"""The library checks what stands below such a keyword again to learn what is left."""
_CHARS_OF_A_CHECK: Final = 5
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_ONE: Final = ("not", "if", "then", "else")
_OF_EVERY_PART: Final = (
    "items",
    "contains",
    "additionalProperties",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
)
_ON_TEXT: Final = ("pattern", "format", "minLength", "maxLength")


@dataclass(frozen=True, slots=True)
class CostWeights:
    """Bounds on how much of a schema can apply to one value."""

    by_depth: tuple[float, ...]
    """Keywords, at the value itself, at its parts, at their parts …"""
    on_text: tuple[float, ...]
    """Of these, keywords that read a text from its first to its last character."""
    on_all: float
    """Keywords that read a value with all that is in it."""


def weights(schema: Any, resolve: Callable[[str], Any]) -> CostWeights:
    """Return the weights of a schema whose references have been checked not to lead in a circle."""
    return _CostWalk(resolve).of(schema)


class _CostWalk:
    def __init__(self, resolve: Callable[[str], Any]) -> None:
        self._resolve = resolve
        self._referred: dict[str, CostWeights] = {}

    def of(self, schema: Any) -> CostWeights:
        if not isinstance(schema, dict):
            return CostWeights((1,), (0,), 0)
        here = CostWeights(
            (1 + _own(schema),), (sum(word in schema for word in _ON_TEXT),), bool(schema.get("uniqueItems"))
        )
        found = _sum([here, *self._in_place(schema), _deeper(self._of_parts(schema))])
        if "unevaluatedItems" in schema or "unevaluatedProperties" in schema:
            return _sum([found] * _UNEVALUATED)
        return found

    def _in_place(self, schema: dict[str, Any]) -> Iterable[CostWeights]:
        for word in _IN_PLACE:
            yield from map(self.of, _items(schema.get(word)))
        yield from (self.of(schema[word]) for word in _IN_PLACE_ONE if word in schema)
        yield from map(self.of, _values(schema.get("dependentSchemas")))
        if isinstance(reference := schema.get("$ref"), str):
            if reference not in self._referred:
                self._referred[reference] = self.of(self._resolve(reference))
            yield self._referred[reference]

    def _of_parts(self, schema: dict[str, Any]) -> CostWeights:
        patterns = _values(schema.get("patternProperties"))
        named = [*_values(schema.get("properties")), *_items(schema.get("prefixItems"))]
        return _sum(
            [
                # Of these one at most applies to a part, of the others all may.
                _largest([self.of(part) for part in named]),
                *(self.of(schema[word]) for word in _OF_EVERY_PART if word in schema),
                *map(self.of, patterns),
                CostWeights((len(patterns),), (len(patterns),), 0),
            ]
        )


def _own(schema: dict[str, Any]) -> int:
    """Count the checks that the schema's own keywords make on one value."""
    number = len(schema) + _MULTIPLE_OF * ("multipleOf" in schema)
    number += len(_items(schema.get("required"))) + len(_values(schema.get("properties")))
    number += sum(len(_items(names)) + 1 for names in _values(schema.get("dependentRequired")))
    return number + _size(schema.get("enum")) + _size(schema.get("const"))


def _size(value: Any) -> int:
    """Count the JSON values in one, plus one for every so many characters."""
    number = 0
    stack = [value]
    while stack:
        item = stack.pop()
        number += 1
        if isinstance(item, str):
            number += len(item) // 100
        stack.extend(_items(item) or _values(item))
    return number


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _sum(found: list[CostWeights]) -> CostWeights:
    return _joined(found, sum)


def _largest(found: list[CostWeights]) -> CostWeights:
    return _joined(found, lambda numbers: max(numbers, default=0))


def _joined(found: list[CostWeights], join: Callable[[Iterable[float]], float]) -> CostWeights:
    levels = range(max((len(one.by_depth) for one in found), default=0))

    def at(numbers: tuple[float, ...], level: int) -> float:
        return numbers[level] if level < len(numbers) else 0

    return CostWeights(
        tuple(join([at(one.by_depth, level) for one in found]) for level in levels),
        tuple(join([at(one.on_text, level) for one in found]) for level in levels),
        sum(one.on_all for one in found),
    )


def _deeper(parts: CostWeights) -> CostWeights:
    if not parts.by_depth:
        return parts
    return CostWeights((0, *parts.by_depth), (0, *parts.on_text), parts.on_all)


@dataclass(frozen=True, slots=True)
class Cost:
    checks: float
    """Most checks of a validation; beyond MAX_CHECKS it must not begin."""
    values: int
    """JSON values in the value, as far as the schema looks."""
    chars: int

    @property
    def is_too_much(self) -> bool:
        return self.checks > MAX_CHECKS or self.values > MAX_VALUES


def cost(known: CostWeights, value: Any) -> Cost:
    """Return what validating a value can cost; counting stops when it is too much."""
    checks, total, all_chars = 0.0, 0, 0
    for depth, (level, chars) in enumerate(levels(value)):
        if depth >= len(known.by_depth) and not known.on_all:
            break
        total += len(level)
        all_chars += chars
        if depth < len(known.by_depth):
            checks += len(level) * known.by_depth[depth]
            checks += chars * known.on_text[depth] / _CHARS_OF_A_CHECK
        if total > MAX_VALUES or checks > MAX_CHECKS:
            break
    return Cost(checks + known.on_all * total, total, all_chars)
