"""A value that fits a JSON Schema: not a likely one, the plainest."""

from collections.abc import Mapping
from typing import Any, Final

from schema.cel.expressions import Json
from schema.language.json_schemas import resolve, violations
from schema.language.steps import JsonSchema

_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T09:00:00Z",
    "time": "09:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_BOUNDS: Final = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_NUMERIC: Final = (*_BOUNDS, "multipleOf")
_MAX_PARTS: Final = 1_000
"""Bound on the parts of one value and the characters of one text: a larger sample is given up, and may not
fit."""


def sample(schema: JsonSchema) -> Json:
    """A value for the schema. It may not fit where patterns or conditions decide: check it."""
    return _Sampler(schema).value(schema)


class _Sampler:
    def __init__(self, root: JsonSchema) -> None:
        self._root = root
        self._parts = 0

    def value(self, schema: Any) -> Json:
        self._parts += 1
        if not isinstance(schema, dict):
            return None  # true: anything
        schema = self._whole(schema)
        if "const" in schema:
            return schema["const"]
        for word in ("enum", "examples"):
            if isinstance(schema.get(word), list) and schema[word]:
                return schema[word][0]
        if "default" in schema:
            return schema["default"]
        return self._of_type(_type(schema), schema)

    def _whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with what it refers to, and the first of its alternatives, laid over it."""
        whole = {key: part for key, part in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        parts: list[Any] = []
        if isinstance(schema.get("$ref"), str):
            parts.append(resolve(self._root, schema["$ref"]))
        parts += schema.get("allOf", [])
        parts += [schema[word][0] for word in ("anyOf", "oneOf") if schema.get(word)]
        for part in parts:
            if isinstance(part, dict):
                whole = _merged(whole, self._whole(part))
        return whole

    def _of_type(self, kind: str, schema: dict[str, Any]) -> Json:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                text = _FORMATS.get(str(schema.get("format")), "text")
                least = min(int(schema.get("minLength", 0)), _MAX_PARTS)
                return text.ljust(least, "x")[: int(schema.get("maxLength", _MAX_PARTS))]
            case "integer" | "number":
                return _number(schema, kind)
            case "boolean":
                return False
        return None

    def _object(self, schema: dict[str, Any]) -> Json:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = list(properties) if self._parts < _MAX_PARTS else []
        return {name: self.value(properties.get(name, True)) for name in dict.fromkeys([*names, *required])}

    def _array(self, schema: dict[str, Any]) -> Json:
        first = [self.value(part) for part in schema.get("prefixItems", [])]
        wanted = min(max(int(schema.get("minItems", 1)), 1), int(schema.get("maxItems", _MAX_PARTS)))
        rest = schema.get("items", True)
        while rest is not False and len(first) < wanted and self._parts < _MAX_PARTS:
            first.append(self.value(rest))
        return first


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    if "properties" in one and "properties" in other:
        both["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        both["required"] = [*one["required"], *other["required"]]
    return both


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return str(next((one for one in kind if one != "null"), "null"))
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "null"


def _number(schema: Mapping[str, Any], kind: str) -> Json:
    """The first number that fits of 0, 1 and those around the bounds."""
    rule = {"type": kind} | {word: schema[word] for word in _NUMERIC if word in schema}
    bounds = [rule[word] for word in _BOUNDS if word in rule]
    step = rule.get("multipleOf", 1)
    near = [number for bound in bounds for number in (bound, bound + 1, bound - 1)]
    near += [number for bound in bounds for number in (bound // step * step, (bound // step + 1) * step)]
    tries = [0, 1, *near, sum(bounds) / 2]
    return next((number for number in tries if not violations(rule, number)), 0)
