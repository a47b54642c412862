"""Describe a run's task in words."""

from typing import Final

from schema.cel.expressions import Json
from schema.language.steps import JsonSchema
from schema.language.templates import as_text

MAX_TASK_CHARS: Final = 10_000


def task_of(input: Json, schema: JsonSchema) -> str:
    """Return what a run is about, in words: the text `task`, else the first text that its input's schema
    requires, else the longest text, else the input as JSON. Texts of an enum are no words of anybody's."""
    if not isinstance(input, dict):
        return as_text(input)[:MAX_TASK_CHARS]
    declared = schema.get("properties") or {}
    texts = {
        key: value
        for key, value in input.items()
        if isinstance(value, str) and value and not _is_chosen(declared.get(key))
    }
    # Stored schemas have their properties in alphabetical order, and what they require in the author's.
    for key in ("task", *(schema.get("required") or ())):
        if key in texts:
            return texts[key][:MAX_TASK_CHARS]
    return max(texts.values(), key=len, default=as_text(input))[:MAX_TASK_CHARS]


def _is_chosen(schema: JsonSchema | bool | None) -> bool:
    return isinstance(schema, dict) and bool({"enum", "const"} & schema.keys())
