"""The most that a call can cost, before it is made and without the provider's tokenizer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gateway.destinations import Destination
from gateway.structure import TextMessage, wire_messages, wire_response_format

# Roles and separators; and what providers put around a prompt or a schema, as far as they tell (Anthropic
# turns a schema into a tool, whose own instructions are billed).
PER_MESSAGE: Final = 8
PER_CALL: Final = 64
PER_SCHEMA: Final = 64
PER_TRANSLATED_SCHEMA: Final = 700


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What a call can cost at most."""

    usd: Decimal
    tokens: int
    """Input and output together."""


def most_input_tokens(
    messages: Sequence[TextMessage], schema: Mapping[str, object] | None, destination: Destination
) -> int:
    """A bound that no provider's count exceeds: one token for every byte, and some around each message.

    A token of a byte-level tokenizer stands for one byte at least, and texts come close: numbers, base64
    and scripts with few speakers take a token for every one or two bytes. English and code take one for
    three or four, so there this is about three times too much; it is given back when the call has ended.
    """
    wire = wire_messages(messages, schema, destination.structure)
    tokens = PER_CALL + sum(PER_MESSAGE + _bytes(message["content"]) for message in wire)
    if schema is not None:
        tokens += _bytes(json.dumps(wire_response_format(schema, destination.structure)))
        tokens += PER_SCHEMA if destination.speaks_openai else PER_TRANSLATED_SCHEMA
    return tokens


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
