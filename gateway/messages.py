"""Messages on the wire; and how a provider is asked for JSON: by schema where it takes one, else by words."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from gateway.destinations import Structure
from gateway.request import Message
from schema.values.foreign_json import NotJson, read_json

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


def wire_messages(
    messages: Sequence[Message], schema: Mapping[str, object] | None, structure: Structure
) -> list[dict[str, Any]]:
    """The messages as OpenAI takes them, with the schema spelled out where the wire has no place for it."""
    wire = [_wire_message(message) for message in with_own_ids(messages)]
    if schema is None or structure == "schema":
        return wire
    text = json.dumps(schema, ensure_ascii=False, sort_keys=True)
    wanted = f"Answer with one JSON object and nothing else. It must be valid under this JSON Schema:\n{text}"
    if wire and wire[0]["role"] == "system":
        wire[0]["content"] += f"\n\n{wanted}"
        return wire
    return [{"role": "system", "content": wanted}, *wire]


def with_own_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages with an id for each tool call that no other call of them has, and for each result the id
    of its call. Models repeat ids from round to round or give none, and strict providers refuse that."""
    taken: set[str] = set()
    asked: dict[str, list[str]] = {}
    """id → the ids that stand for it, of calls whose result has not come."""
    found: list[Message] = []
    for message in messages:
        if message.role == "tool":
            waiting = asked.get(message.tool_call_id)
            message = replace(message, tool_call_id=waiting.pop(0)) if waiting else message
        elif message.tool_calls:
            asked = {}
            calls = tuple(replace(call, id=_own_id(call.id, taken)) for call in message.tool_calls)
            for call, own in zip(message.tool_calls, calls, strict=True):
                asked.setdefault(call.id, []).append(own.id)
            message = replace(message, tool_calls=calls)
        found.append(message)
    return found


def _own_id(id: str, taken: set[str]) -> str:
    """Nine letters and digits where the call's own id will not do: what the strictest provider takes."""
    if not id or id in taken:
        id = next(name for n in itertools.count(len(taken)) if (name := f"call{n:05}") not in taken)
    taken.add(id)
    return id


def wire_response_format(schema: Mapping[str, object], structure: Structure) -> dict[str, object]:
    """The response_format of the request."""
    if structure == "object":
        return {"type": "json_object"}
    # Not strict: strict refuses optional properties and most bounds, which our definitions may use.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": False}}


def _wire_message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        # Some servers refuse an empty text beside calls.
        wire["content"] = message.content or None
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": _name(call.name), "arguments": _readable(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _name(name: str) -> str:
    """A name that a model made up, as providers take one."""
    return _NO_NAME.sub("_", name)[:64] or "unknown"


def _readable(arguments: str) -> str:
    """Return a model's arguments for the next request; broken JSON is wrapped, since many servers
    parse it."""
    try:
        if isinstance(read_json(arguments), dict):
            return arguments
    except NotJson:
        pass
    return json.dumps({"unreadable": arguments}, ensure_ascii=False)
