"""The JSON Schema of the language as editors and validators of others read it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from schema.language.catalogue import ROLES, ROUTABLE_MODELS
from schema.language.definition import Definition
from schema.language.skills import SKILLS
from schema.language.steps import JsonSchema
from schema.language.tools import TOOLS

ID: Final = "urn:facilitair:v1:schema"
_SUGGESTED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("Agent", "role"): ROLES,
    ("AgentStep", "role"): ROLES,
    ("ShortForm", "agent"): ROLES,
    ("Agent", "model"): ROUTABLE_MODELS,
    ("Agent", "fallback"): ROUTABLE_MODELS,
    ("Route", "among"): ROUTABLE_MODELS,
    ("Verify", "by"): ("reviewer", *ROUTABLE_MODELS),
    ("Verify", "then"): ROUTABLE_MODELS,
    ("Budget", "degrade_to"): ROUTABLE_MODELS,
    ("Agent", "skills"): tuple(SKILLS),
    ("Agent", "tools"): tuple(TOOLS),
    ("ToolStep", "tool"): tuple(TOOLS),
    ("Compensate", "tool"): tuple(TOOLS),
}
"""(part, field) → what an editor proposes. A tenant's catalogue may know others, so nothing is refused."""


def json_schema() -> JsonSchema:
    """Return the JSON Schema of the language; published as docs/facilitair-v1.schema.json."""
    schema = Definition.model_json_schema(by_alias=True)
    parts = schema.pop("$defs")
    parts["Definition"] = schema
    parts |= _short_forms(schema)
    for part, field in _SUGGESTED:
        _suggest(_property(parts[part], field), _SUGGESTED[part, field])
    for union in _step_unions(list(parts.values())):
        _name_kinds(union)
    named = {"properties": {"steps": {"type": "array"}}, "required": ["steps"], "type": "object"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Facilitair definition (facilitair/v1)",
        "if": {"type": "array"},
        "then": {"$ref": "#/$defs/ShortForm"},
        "else": {
            "if": named,
            "then": {"$ref": "#/$defs/NamedShortForm"},
            "else": {"$ref": "#/$defs/Definition"},
        },
        "$defs": dict(sorted(parts.items())),
    }


def _short_forms(definition: JsonSchema) -> dict[str, JsonSchema]:
    item = {
        "type": "object",
        "properties": {
            "agent": {"type": "string", "description": "A role, or an agent that `agents` defines."},
            "stream_to": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The agents that go on with its work.",
            },
        },
        "required": ["agent"],
        "additionalProperties": False,
    }
    short = {
        "type": "array",
        "items": item,
        "minItems": 1,
        "description": "A list of agents and whom each streams to.",
    }
    rest = {key: part for key, part in definition["properties"].items() if key not in ("steps", "stream")}
    named = {
        "type": "object",
        "properties": {**rest, "steps": {"$ref": "#/$defs/ShortForm"}},
        "required": ["name", "steps"],
        "additionalProperties": False,
    }
    return {"ShortForm": short, "NamedShortForm": named}


def _property(part: JsonSchema, field: str) -> JsonSchema:
    found: JsonSchema = part.get("items", part)["properties"][field]
    return found


def _suggest(field: JsonSchema, values: tuple[str, ...]) -> None:
    field.get("items", field)["examples"] = list(values)


def _step_unions(found: list[Any]) -> Iterator[JsonSchema]:
    """Yield every place in which a step stands: pydantic marks it with OpenAPI's `discriminator`."""
    for one in found:
        if isinstance(one, dict):
            if "discriminator" in one:
                yield one
            yield from _step_unions(list(one.values()))
        elif isinstance(one, list):
            yield from _step_unions(one)


def _name_kinds(union: JsonSchema) -> None:
    """Say in JSON Schema's own words what `discriminator` says, which strict validators do not know."""
    kinds = list(union.pop("discriminator")["mapping"])
    union |= {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": kinds, "description": "What the step does."}},
    }
