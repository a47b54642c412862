"""Requests to the gateway, and their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from gateway.prices import Price
from schema.language.catalogue import TenantProvider


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """A model asks for a tool to be called."""

    id: str
    name: str
    arguments: str
    """JSON as the model wrote it, which may be broken."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ModelToolCall, ...] = ()
    """Calls in an assistant's message."""
    tool_call_id: str = ""
    """The call that a tool's message answers."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call."""

    name: str
    """Letters, digits, _ and -: providers take no dots."""
    description: str
    parameters: Mapping[str, Any]
    """A JSON Schema."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. None is half of the total."""

    total: float = 120.0
    connect: float = 10.0
    first_token: float | None = None
    stall: float | None = None
    """Longest silence within the answer."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A call to make."""

    model: str
    """Platform id, such as "openai/gpt-4" or "ollama/llama3.2"."""
    messages: Sequence[Message]
    response_schema: Mapping[str, object] | None = None
    """JSON Schema of the answer. Whether the answer keeps to it is for the caller to check."""
    tools: Sequence[ToolSpec] = ()
    may_call: bool = True
    """Whether tools may be called now, or only stand there since earlier messages speak of them."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    timeouts: Timeouts = Timeouts()
    stream: bool = True
    call_id: str = ""
    """Our own name for the call: the provider is told as X-Client-Request-Id, and some can be asked by it."""
    call_key: str = ""
    """"<collaboration>/<path>/<iteration>", told to the simulator only: it counts calls by it."""
    price: Price | None = None
    """Price that the caller has looked up. None: the gateway looks it up."""
    tenant: str = "default"
    providers: Mapping[str, TenantProvider] = field(default_factory=dict)
    """The tenant's own."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a provider counted."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    """Part of input_tokens."""
    assumed: bool = False
    """The provider did not say it all: at least one figure is an estimate."""
    contradictory: bool = False
    """The provider's figures do not agree, and these are the larger ones."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a call."""

    text: str
    model: str
    """The model that answered, as a platform id."""
    usage: Usage
    cost_usd: Decimal
    finish_reason: str
    """One of gateway.finish_reasons, or a provider's own word that is not known."""
    simulated: bool
    provider: str
    response_id: str
    first_token_ms: int | None
    tool_calls: tuple[ModelToolCall, ...] = ()

    @property
    def input_tokens(self) -> int:
        return self.usage.input_tokens

    @property
    def output_tokens(self) -> int:
        return self.usage.output_tokens
