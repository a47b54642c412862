"""JSON Schema 2020-12: checked at upload, applied at run. No network, and patterns take linear time."""

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote

import jsonschema_rs

from schema.cel.expressions import Json
from schema.language.steps import JsonSchema
from schema.language.templates import escape
from schema.values import json_schema_cost
from schema.values.sizes import MAX_VALUES

_MAX_ERRORS = 20
_MAX_DETAILED = 3_000
"""Checks of a validation that tells every fault: the library makes each a text of its own, which takes it a
thousand times as long as the check."""
_CHARS_OF_A_DETAIL = 4_000
_SHARED = ("$defs", "definitions")
"""Places of the parts of a schema that references lead to."""


# A schema is expanded as often as it is referred to, so a short one could hold a worker for ever.
_MAX_EXPANDED = 20_000
_MAX_PATTERNS = 200
_OF_NAMES = frozenset((*_SHARED, "properties", "patternProperties", "dependentSchemas"))
_IN_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_SINGLE = frozenset(
    ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
)
"""Words of a schema behind which there are further ones: by name, in a list, or one."""
_VALUES_NOT_SCHEMAS = frozenset({"const", "enum", "default", "examples"})


@lru_cache(maxsize=1024)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    # The default regular expressions backtrack: a hostile pattern could hold a worker for ever.
    options = jsonschema_rs.RegexOptions(size_limit=64 * 1024, dfa_size_limit=1024 * 1024)
    return jsonschema_rs.Draft202012Validator(
        json.loads(schema), offline=True, validate_formats=True, pattern_options=options
    )


@lru_cache(maxsize=1024)
def _weights(schema: str) -> json_schema_cost.CostWeights:
    whole = json.loads(schema)
    return json_schema_cost.weights(whole, lambda reference: resolve(whole, reference))


def size(schema: JsonSchema) -> int:
    """Count the JSON values in the schema."""
    number = 0
    stack: list[Json] = [schema]
    while stack:
        item = stack.pop()
        number += 1
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return number


def schema_fault(schema: JsonSchema) -> str | None:
    """Return what is wrong with the schema itself; None if it is valid."""
    try:
        _check_cost(schema)
        text = json.dumps(schema)
        _validator(text)
        if (checks := max(_weights(text).by_depth)) > json_schema_cost.MAX_CHECKS:
            raise ValueError(f"keywords that come to {checks:,.0f} checks of one value")
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return str(error).split("\n", 1)[0][:300]
    return None


def _check_cost(schema: JsonSchema) -> None:
    """Raise ValueError for references that lead outside or in a circle, or that multiply without measure."""
    patterns = 0
    stack: list[Json] = [schema]
    references: dict[str, Json] = {}
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            patterns += isinstance(item.get("pattern"), str)
            inner = item.get("patternProperties")
            patterns += len(inner) if isinstance(inner, dict) else 0
            if any(isinstance(item.get(word), str) for word in ("$dynamicRef", "$recursiveRef")):
                raise ValueError("a dynamic reference; write $ref with a pointer such as #/$defs/name")
            if isinstance(reference := item.get("$ref"), str):
                references[reference] = resolve(schema, reference)
            stack.extend(part for key, part in item.items() if key not in _VALUES_NOT_SCHEMAS)
    if patterns > _MAX_PATTERNS:
        raise ValueError(f"{patterns:,} patterns; at most {_MAX_PATTERNS}")
    costs: dict[str, int] = {}
    if (cost := _expanded(schema, references, costs)) > _MAX_EXPANDED and references:
        raise ValueError(f"references that come to {cost:,} parts when expanded; at most {_MAX_EXPANDED:,}")


def resolve(schema: JsonSchema, reference: str) -> Json:
    target: Json = schema
    if reference != "#" and not reference.startswith("#/"):
        raise ValueError(f"the reference {reference[:80]!r}; only pointers into this schema are followed")
    for part in reference.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            raise ValueError(f"the reference {reference[:80]!r}, which leads nowhere")
    return target


def default_faults(schema: JsonSchema) -> list[tuple[str, str]]:
    """(JSON pointer into the schema, what is wrong) of each `default` that its own schema refuses."""
    found = [(pointer, part) for pointer, part in _subschemas(schema) if "default" in part]
    if not found:
        return []
    # Words for objects say nothing of a list, so they may stand here for the references that lead into them.
    shared = {word: schema[word] for word in (*_SHARED, "properties") if word in schema}
    try:
        wrong = violations(
            {**shared, "prefixItems": [part for _, part in found]}, [part["default"] for _, part in found]
        )
    except (jsonschema_rs.ReferencingError, ValueError):
        return []  # a reference that leads elsewhere
    return [(f"{found[int(at.split('/')[1])][0]}/default", message) for at, message in wrong if at]


def _subschemas(schema: Json, pointer: str = "") -> Iterator[tuple[str, JsonSchema]]:
    """(JSON pointer, schema) of a schema and all in it."""
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for word, part in schema.items():
        if word in _OF_NAMES and isinstance(part, dict):
            for name, one in part.items():
                yield from _subschemas(one, f"{pointer}/{word}/{escape(name)}")
        elif word in _IN_LISTS and isinstance(part, list):
            for at, one in enumerate(part):
                yield from _subschemas(one, f"{pointer}/{word}/{at}")
        elif word in _SINGLE:
            yield from _subschemas(part, f"{pointer}/{word}")


def _expanded(item: Json, references: dict[str, Json], costs: dict[str, int]) -> int:
    if isinstance(item, list):
        return sum(_expanded(part, references, costs) for part in item)
    if not isinstance(item, dict):
        return 1
    total = 1
    for key, part in item.items():
        if key == "$ref" and isinstance(part, str):
            if part not in costs:
                costs[part] = 0
                costs[part] = _expanded(references[part], references, costs)
            if costs[part] == 0:
                raise ValueError(f"the reference {part[:80]!r}, which leads back to itself")
            total += costs[part]
        elif key not in _VALUES_NOT_SCHEMAS:
            total += _expanded(part, references, costs)
    return total


def violations(schema: JsonSchema, value: Json) -> list[tuple[str, str]]:
    """(JSON pointer into the value, what is wrong there), at most 20; empty when the value fits.

    A value that would take too long to validate does not fit. Of a large one only the first fault is told.
    """
    text = json.dumps(schema)
    weights = _weights(text)
    cost = json_schema_cost.cost(weights, value)
    if cost.is_too_much:
        return [("", _too_much(cost))]
    validator = _validator(text)
    if validator.is_valid(value):
        return []
    if cost.checks * (1 + (cost.chars + 10 * cost.values) / _CHARS_OF_A_DETAIL) > _MAX_DETAILED:
        return _first_fault(schema, value)
    return [
        ("".join(f"/{escape(str(part))}" for part in error.instance_path), error.message[:300])
        for error in islice(validator.iter_errors(value), _MAX_ERRORS)
    ]


def _too_much(cost: json_schema_cost.Cost) -> str:
    if cost.values > MAX_VALUES:
        return f"it has more than {MAX_VALUES:,} values"
    return (
        f"it takes more than {json_schema_cost.MAX_CHECKS:,} checks, keywords of the schema times values; "
        "make it smaller or the schema simpler"
    )


def _first_fault(schema: JsonSchema, value: Json) -> list[tuple[str, str]]:
    """Find the part of a large value that does not fit, and tell what is wrong with it."""
    below = schema
    while isinstance(reference := below.get("$ref"), str):
        below = resolve(schema, reference)
    properties, items = below.get("properties"), below.get("items")
    at: str | int | None = None
    part: Json = None
    if isinstance(value, dict) and isinstance(properties, dict):
        unfit = (
            name for name in properties if name in value and not _fits(schema, properties[name], value[name])
        )
        if (at := next(unfit, None)) is not None:
            part = properties[at]
    elif isinstance(value, list) and isinstance(items, dict) and "prefixItems" not in below:
        at, part = _first_unfit(schema, items, value), items
    if at is None or not isinstance(part, dict):
        return [("", "it does not fit the schema, and is too large for its faults to be told one by one")]
    found = violations(_part(schema, part), value[at])
    return [(f"/{escape(str(at))}{pointer}", message) for pointer, message in found]


def _part(schema: JsonSchema, part: JsonSchema) -> JsonSchema:
    """A part of a schema as one of its own, in which the references still lead where they led."""
    return {**part, **{word: schema[word] for word in _SHARED if word in schema}}


def _fits(schema: JsonSchema, part: Json, value: Json) -> bool:
    return not isinstance(part, dict) or _validator(json.dumps(_part(schema, part))).is_valid(value)


def _first_unfit(schema: JsonSchema, item: JsonSchema, values: list[Json]) -> int | None:
    """The first item that does not fit, found by halving the list."""
    items = {"items": item}
    low, high = 0, len(values)
    if _fits(schema, items, values):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(schema, items, values[low:middle]) else (low, middle)
    return low


def faults(schema: JsonSchema, value: Json, most: int = 5) -> str:
    """Return what is wrong with a value, in words; empty if it fits."""
    return "; ".join(f"{pointer or '/'}: {message}" for pointer, message in violations(schema, value)[:most])


def with_defaults(schema: JsonSchema, value: Json) -> Json:
    """An object with the defaults of its schema's own properties filled in."""
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties")
    given = properties.items() if isinstance(properties, dict) else ()
    missing = {
        name: rule["default"]
        for name, rule in given
        if isinstance(rule, dict) and "default" in rule and name not in value
    }
    return value | missing


def declared_fields(schema: JsonSchema) -> set[str] | None:
    """The properties of an object schema that lists all it has; None when other fields may be there too."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("additionalProperties") not in (None, False):
        return None
    if any(word in schema for word in ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")):
        return None
    return set(properties)
