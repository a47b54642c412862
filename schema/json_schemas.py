"""JSON Schema 2020-12: checked at upload, applied at run. No network, and patterns take linear time."""

import json
from functools import lru_cache
from itertools import islice

import jsonschema_rs

from schema.expressions import Json
from schema.steps import JsonSchema
from schema.templates import escape

_MAX_ERRORS = 20


@lru_cache(maxsize=1024)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    # The default regular expressions backtrack: a hostile pattern could hold a worker for ever.
    return jsonschema_rs.Draft202012Validator(
        json.loads(schema), offline=True, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions()
    )


def schema_fault(schema: JsonSchema) -> str | None:
    """What is wrong with the schema itself, or None."""
    try:
        _validator(json.dumps(schema))
    except (jsonschema_rs.ValidationError, ValueError) as error:
        return str(error).split("\n", 1)[0][:300]
    return None


def violations(schema: JsonSchema, value: Json) -> list[tuple[str, str]]:
    """(JSON pointer into the value, what is wrong there), at most 20; empty when the value fits."""
    errors = _validator(json.dumps(schema)).iter_errors(value)
    return [
        ("".join(f"/{escape(str(part))}" for part in error.instance_path), error.message[:300])
        for error in islice(errors, _MAX_ERRORS)
    ]


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
