"""The one door to LLMs: a request in, text and then its account out. Retries are not made here."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import httpx

from gateway import door
from gateway.destinations import Destination, answered_model, destination_of
from gateway.estimate import WorstCase, most_input_tokens
from gateway.failures import as_provider_error, cut_stream
from gateway.prices import Price, listed_price, price_in_map
from gateway.structure import wire_messages, wire_response_format
from gateway.wire import Piece, read_events, read_translated
from schema.errors import ProviderError
from schema.settings import Settings

CONNECT_SECONDS: Final = 10.0
SIMULATOR_FINGERPRINT: Final = "facilitair-simulator"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A call to make."""

    model: str
    """Platform id, such as "openai/gpt-4" or "ollama/llama3.2"."""
    messages: Sequence[Message]
    response_schema: Mapping[str, object] | None = None
    """JSON Schema of the answer. Whether the answer keeps to it is for the caller to check."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    timeout_seconds: float = 120.0
    """For the whole answer. Connecting may take a twelfth of it, at most 10 s; silence (before the first
    token, or between two) a half."""
    call_key: str = ""
    """"<collaboration>/<path>/<iteration>", told to the simulator only: it counts calls by it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a call came to."""

    text: str
    model: str
    """The model that answered, as a platform id."""
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    finish_reason: str
    simulated: bool
    provider: str
    response_id: str
    first_token_ms: int | None


@dataclass(slots=True)
class _Account:
    """What is known of a running answer."""

    text: list[str]
    begun: bool = False
    model: str = ""
    response_id: str = ""
    finish_reason: str = ""
    usage: tuple[int, int] | None = None
    simulated: bool = False
    first_token_ms: int | None = None


class Gateway:
    """Calls models. One per process and event loop; it keeps the connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: dict[tuple[str | None, str], Any] = {}

    def destination(self, model: str) -> Destination:
        """Who would answer for a model; nothing is called."""
        return destination_of(self._settings, model)

    def price(self, model: str) -> Price:
        """What the model that would answer costs; a missing price is an error, not zero."""
        destination = self.destination(model)
        price = listed_price(destination.model) or price_in_map(door.litellm().model_cost, destination.model)
        if price is None:
            message = f"found no price for {destination.model}; add it to gateway/prices.py before calling it"
            raise ProviderError("price_missing", message, retryable=False)
        return price

    def worst_case(self, request: ModelRequest) -> WorstCase:
        """What the call can cost at most; its max_output_tokens must be set. Raises price_missing."""
        assert request.max_output_tokens is not None
        destination = self.destination(request.model)
        into = most_input_tokens(request.messages, request.response_schema, destination)
        out = request.max_output_tokens
        return WorstCase(self.price(request.model).cost_usd(into, out), into + out)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Completion, None]:
        """Text as it comes, then exactly one Completion. Leaving early? Close it (contextlib.aclosing)."""
        destination = self.destination(request.model)
        # In a thread: the first use imports litellm, and the loop must not stand still for seconds.
        litellm = await asyncio.to_thread(door.litellm) if not door.is_loaded() else door.litellm()
        price = self.price(request.model)
        account = _Account(text=[])
        started = time.monotonic()
        source: Any = None
        try:
            async with asyncio.timeout(request.timeout_seconds / 2):
                wrapper = await litellm.acompletion(**self._arguments(request, destination))
            # Behind the wrapper is the provider's own response. The wrapper copies every chunk, invents a
            # missing usage and finish, and prices the call once more, for twice the time.
            source = wrapper.completion_stream if destination.speaks_openai else wrapper
            opened = read_events(source.response) if destination.speaks_openai else read_translated(source)
            async with (
                aclosing(opened) as pieces,
                aclosing(_follow(pieces, account, started, request.timeout_seconds)) as texts,
            ):
                async for text in texts:
                    yield text
        except Exception as error:
            # Without the cause: its text and its request carry keys, and Temporal stores the whole chain.
            raise as_provider_error(
                error, destination, streaming=account.begun, secrets=self._secrets()
            ) from None
        finally:
            await _close(source)
        yield _completion(account, destination, price)

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    def _arguments(self, request: ModelRequest, destination: Destination) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "messages": wire_messages(request.messages, request.response_schema, destination.structure),
            "stream": True,
            "stream_options": {"include_usage": True},
            "api_key": destination.api_key,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": _timeout(request.timeout_seconds),
        }
        if destination.base_url is not None:
            arguments["api_base"] = destination.base_url
        if destination.speaks_openai:
            arguments["model"] = f"openai/{destination.wire_model}"
            arguments["client"] = self._client(destination)
        else:
            arguments["model"] = f"{destination.provider}/{destination.wire_model}"
        if request.response_schema is not None:
            arguments["response_format"] = wire_response_format(
                request.response_schema, destination.structure
            )
        if request.max_output_tokens is not None:
            arguments["max_tokens"] = request.max_output_tokens
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if destination.simulated and request.call_key:
            arguments["extra_headers"] = {"x-facilitair-call": request.call_key}
        return arguments

    def _client(self, destination: Destination) -> Any:
        place = (destination.base_url, destination.api_key)
        if place not in self._clients:
            self._clients[place] = door.openai_client(
                destination.base_url, destination.api_key, door.http_client()
            )
        return self._clients[place]

    def _secrets(self) -> tuple[str, ...]:
        known = self._settings
        keys = (
            known.openai_api_key,
            known.anthropic_api_key,
            known.openrouter_api_key,
            known.deepseek_api_key,
        )
        return tuple(key for key in keys if key)


def warm_up() -> None:
    """Import litellm now; call it from a thread when a worker starts."""
    door.litellm()


async def _follow(
    pieces: AsyncGenerator[Piece, None], account: _Account, started: float, timeout_seconds: float
) -> AsyncGenerator[str, None]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds - (time.monotonic() - started)
    while True:
        # Around each piece rather than all of them: a timeout must not fire into the consumer's own work.
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + timeout_seconds / 2)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        account.begun = True
        account.response_id = piece.response_id or account.response_id
        account.model = piece.model or account.model
        account.finish_reason = piece.finish_reason or account.finish_reason
        account.simulated |= piece.fingerprint == SIMULATOR_FINGERPRINT
        if piece.input_tokens is not None and piece.output_tokens is not None:
            account.usage = (piece.input_tokens, piece.output_tokens)
        if piece.text:
            if account.first_token_ms is None:
                account.first_token_ms = round((time.monotonic() - started) * 1000)
            account.text.append(piece.text)
            yield piece.text


def _completion(account: _Account, destination: Destination, price: Price) -> Completion:
    if not account.finish_reason:
        raise cut_stream(destination, "a finish reason")
    if account.usage is None:
        raise cut_stream(destination, "its usage")
    input_tokens, output_tokens = account.usage
    return Completion(
        text="".join(account.text),
        model=answered_model(destination, account.model),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=price.cost_usd(input_tokens, output_tokens),
        finish_reason=account.finish_reason,
        simulated=destination.simulated or account.simulated,
        provider=destination.provider,
        response_id=account.response_id,
        first_token_ms=account.first_token_ms,
    )


async def _close(source: Any) -> None:
    """Let go of the connection; a stream left half-read would keep it."""
    close = getattr(source, "close", None) or getattr(source, "aclose", None)
    if close is not None:
        with suppress(Exception):
            await close()


def _timeout(total_seconds: float) -> httpx.Timeout:
    connect = min(CONNECT_SECONDS, total_seconds / 12)
    return httpx.Timeout(total_seconds / 2, connect=max(0.5, connect))
