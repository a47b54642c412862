"""How a provider is asked for JSON: by schema where it takes one, by words where it does not."""

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.destinations import Structure


class TextMessage(Protocol):
    """A message of a prompt, as far as it is text."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


def wire_messages(
    messages: Sequence[TextMessage], schema: Mapping[str, object] | None, structure: Structure
) -> list[dict[str, str]]:
    """The messages as providers take them, with the schema spelled out where the wire has no place for it."""
    wire = [{"role": message.role, "content": message.content} for message in messages]
    if schema is None or structure == "schema":
        return wire
    text = json.dumps(schema, ensure_ascii=False, sort_keys=True)
    wanted = f"Answer with one JSON object and nothing else. It must be valid under this JSON Schema:\n{text}"
    if wire and wire[0]["role"] == "system":
        wire[0]["content"] += f"\n\n{wanted}"
        return wire
    return [{"role": "system", "content": wanted}, *wire]


def wire_response_format(schema: Mapping[str, object], structure: Structure) -> dict[str, object]:
    """The response_format of the request."""
    if structure == "object":
        return {"type": "json_object"}
    # Not strict: strict refuses optional properties and most bounds, which our definitions may use.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": False}}
