"""Numbers as their schema declares them.

JSON has one kind of number and CEL two: 1 is an integer to it and 1.0 is not. Which of them somebody wrote
must not decide the value of an expression, so what a schema calls `number` is read as 1.0 and what it calls
`integer` as 1. Without a schema a number stays as it was written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from schema.cel.expressions import Json
from schema.language.json_schemas import resolve
from schema.language.steps import JsonSchema
from schema.values.sizes import MAX_EXACT


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The places of declared numbers in a value."""

    kind: str = ""
    """number, integer, or "" for neither."""
    fields: Mapping[str, "_Numbers | None"] = field(default_factory=dict)
    others: "_Numbers | None" = None
    """In fields that have no schema of their own."""
    first: tuple["_Numbers | None", ...] = ()
    items: "_Numbers | None" = None


def as_declared(schema: JsonSchema, value: Json) -> Json:
    """The value with its numbers as the schema declares them."""
    numbers = _numbers(json.dumps(schema))
    return _read(numbers, value) if numbers else value


def _read(numbers: _Numbers | None, value: Json) -> Json:
    if numbers is None:
        return value
    match value:
        case bool() | None | str():
            return value
        case int() if numbers.kind == "number" and abs(value) <= MAX_EXACT:
            return float(value)
        case float() if numbers.kind == "integer" and value.is_integer() and abs(value) <= MAX_EXACT:
            return int(value)
        case dict():
            return {key: _read(numbers.fields.get(key, numbers.others), item) for key, item in value.items()}
        case list():
            first = numbers.first
            return [
                _read(first[at] if at < len(first) else numbers.items, item) for at, item in enumerate(value)
            ]
    return value


@lru_cache(maxsize=1024)
def _numbers(schema: str) -> _Numbers | None:
    whole = json.loads(schema)
    return _found(whole, [whole])


def _found(whole: JsonSchema, schemas: Iterable[Json]) -> _Numbers | None:
    """Return the places of numbers in a value that all or one of the schemas describe; None if there are
    none."""
    parts = [part for schema in schemas for part in _parts(whole, schema)]
    if not parts:
        return None

    def below(word: str) -> list[Json]:
        return [part[word] for part in parts if word in part]

    types = {one for given in below("type") for one in ([given] if isinstance(given, str) else given)}
    kind = "number" if "number" in types else "integer" if "integer" in types else ""
    properties, lists = below("properties"), below("prefixItems")
    fields = {
        name: _found(whole, [one[name] for one in properties if name in one])
        for name in dict.fromkeys(name for one in properties for name in one)
    }
    others = _found(
        whole,
        [
            *below("additionalProperties"),
            *(one for given in below("patternProperties") for one in given.values()),
        ],
    )
    first = tuple(
        _found(whole, [one[at] for one in lists if at < len(one)])
        for at in range(max(map(len, lists), default=0))
    )
    items = _found(whole, below("items"))
    if not (kind or others or items or any(fields.values()) or any(first)):
        return None
    return _Numbers(kind, fields, others, first, items)


def _parts(whole: JsonSchema, schema: Json) -> Iterator[JsonSchema]:
    """The schema, and those that it says of the same value: all of them, or one of several."""
    if not isinstance(schema, dict):
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str):
        yield from _parts(whole, resolve(whole, reference))
    for word in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(word, ()):
            yield from _parts(whole, one)
    for word in ("then", "else"):
        yield from _parts(whole, schema.get(word))
