"""The most that a call can cost, before it is made and without the provider's tokenizer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from gateway.destinations import Destination
from gateway.messages import wire_messages, wire_response_format
from gateway.request import Message, ToolSpec
from gateway.translate import wire_tools

# Roles and separators; and what providers put around a prompt, a schema or tools, as far as they tell
# (Anthropic turns a schema into a tool; the instructions of its tools are billed, 313 to 804 tokens).
PER_MESSAGE: Final = 8
PER_CALL: Final = 64
PER_SCHEMA: Final = 64
PER_TRANSLATED_SCHEMA: Final = 700
PER_TOOL: Final = 32
FOR_TOOLS: Final = 64
FOR_TRANSLATED_TOOLS: Final = 900
BYTES_PER_TOKEN: Final = 3
"""Bytes per token of most texts, rather too few than too many: the estimate must not fall short
of the bill."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that a call can cost."""

    usd: Decimal
    tokens: int
    """Input and output together."""


def most_input_tokens(
    messages: Sequence[Message],
    schema: Mapping[str, object] | None,
    destination: Destination,
    tools: Sequence[ToolSpec] = (),
) -> int:
    """A bound that no provider's count exceeds: one token for every byte, and some around each message.

    A token of a byte-level tokenizer stands for one byte at least, and texts come close: numbers, base64
    and scripts with few speakers take a token for every one or two bytes. English and code take one for
    three or four, so there this is about three times too much; it is given back when the call has ended.
    """
    wire = wire_messages(messages, schema, destination.structure)
    tokens = PER_CALL + sum(_message_tokens(message) for message in wire)
    if schema is not None:
        tokens += _bytes(json.dumps(wire_response_format(schema, destination.structure)))
        tokens += PER_SCHEMA if destination.speaks_openai else PER_TRANSLATED_SCHEMA
    if tools:
        tokens += sum(PER_TOOL + _bytes(json.dumps(tool)) for tool in wire_tools(tools))
        tokens += FOR_TOOLS if destination.speaks_openai else FOR_TRANSLATED_TOOLS
    return tokens


def guessed_tokens(bytes: int) -> int:
    """Return how many tokens so many bytes probably are; for calls whose provider does not count them."""
    return -(-bytes // BYTES_PER_TOKEN)


def _message_tokens(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls")
    return (
        PER_MESSAGE
        + _bytes(message["content"] or "")
        + (_bytes(json.dumps(calls)) if calls else 0)
        + _bytes(message.get("tool_call_id", ""))
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
