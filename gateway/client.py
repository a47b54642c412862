"""The one door to LLMs: a request in, text and then its account out. Retries are not made here."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway import litellm_door, usage_lookup
from gateway.destinations import Destination, Destinations, answered_model
from gateway.estimate import WorstCase, guessed_tokens, most_input_tokens
from gateway.failures import ConnectionLost, as_provider_error
from gateway.prices import Price, general_price, price_missing
from gateway.request import Completion, ModelRequest, Usage
from gateway.sse import EventReader
from gateway.timeouts import CallDeadlines, TimedOut
from gateway.translate import OutgoingRequest, outgoing
from gateway.wire import ResponseReader
from schema.errors import ProviderError
from schema.language.catalogue import TenantProvider
from schema.settings import Settings

if TYPE_CHECKING:
    from gateway.http import Exchange, Http

NO_PROVIDERS: Final[Mapping[str, TenantProvider]] = MappingProxyType({})
GRACE_SECONDS: Final = 1.0
"""Longest time for which a complete answer may keep its stream open. Some servers never end it."""
USAGE_GRACE_SECONDS: Final = 5.0
"""Longest wait for the usage of an answer that has ended. Many servers never send it."""
USAGE_TIMEOUT_SECONDS: Final = 3.0
"""Longest wait for a provider that is asked afterwards."""

_log = logging.getLogger(__name__)


class Gateway:
    """Calls models. One per process and event loop; it keeps the connections."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError where FACILITAIR_PROVIDER_LIMITS cannot be read."""
        self.destinations = Destinations(settings)
        self._http: Http | None = None
        keys = (
            settings.openai_api_key,
            settings.anthropic_api_key,
            settings.openrouter_api_key,
            settings.deepseek_api_key,
        )
        self._secrets = tuple(key for key in keys if key)
        self._warned: set[tuple[str, str]] = set()

    def destination(
        self, model: str, providers: Mapping[str, TenantProvider] = NO_PROVIDERS, tenant: str = "default"
    ) -> Destination:
        """Return the destination that would answer for a model, without a call. `providers` are the tenant's
        own."""
        return self.destinations.find(model, providers, tenant)

    def price(
        self, model: str, providers: Mapping[str, TenantProvider] = NO_PROVIDERS, tenant: str = "default"
    ) -> Price:
        """Return the list price of the model that would answer; a missing price is an error, not zero."""
        asked = self.destination(model, providers, tenant).model
        if priced := general_price(asked):
            return priced.price
        raise price_missing(asked)

    def worst_case(self, request: ModelRequest) -> WorstCase:
        """Return the most that the call can cost; its max_output_tokens must be set. Raises price_missing."""
        assert request.max_output_tokens is not None
        destination = self.destination(request.model, request.providers, request.tenant)
        price = request.price or self.price(request.model, request.providers, request.tenant)
        into = most_input_tokens(request.messages, request.response_schema, destination, request.tools)
        out = request.max_output_tokens
        return WorstCase(price.cost_usd(into, out), into + out)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Completion, None]:
        """Text as it comes, then exactly one Completion. Leaving early? Close it (contextlib.aclosing)."""
        destination = self.destination(request.model, request.providers, request.tenant)
        if not litellm_door.is_loaded():
            # In a thread: the first use imports litellm, and the loop must not stand still for seconds.
            await asyncio.to_thread(warm_up)
        price = request.price or self.price(request.model, request.providers, request.tenant)
        patience = CallDeadlines(request.timeouts, streamed=request.stream)
        answer = ResponseReader()
        exchange: Exchange | None = None
        first_token_ms: int | None = None
        complete = False
        try:
            wanted = outgoing(request, destination)
            answer.translate = wanted.event
            exchange = await self._open(wanted, patience)
            answer.simulated |= exchange.simulated
            if exchange.is_json or not (request.stream or exchange.is_events):
                if text := answer.take_whole(await exchange.whole(), wanted.whole):
                    patience.leave()
                    yield text
            else:
                events = EventReader()
                while not answer.done:
                    packet = await _packet(exchange, answer)
                    for event in events.feed(packet) if packet else events.end():
                        said = answer.take(event)
                        if said is None:
                            continue
                        patience.heard()
                        if said:
                            if first_token_ms is None:
                                first_token_ms = patience.elapsed_ms()
                            patience.leave()
                            yield said
                            patience.resume()
                    if not packet:
                        break
                    if answer.finished:
                        patience.close_within(GRACE_SECONDS if answer.complete else USAGE_GRACE_SECONDS)
                if rest := answer.end():
                    yield rest
            answer.check()
            complete = True
        except Exception as error:
            # Without the cause: its text and its request carry keys, and Temporal stores the whole chain.
            raise as_provider_error(
                error,
                destination,
                secrets=self._secrets,
                response_id=answer.response_id,
                tokens=_tokens(answer),
            ) from None
        finally:
            if exchange is not None:
                exchange.end(complete=complete)
        usage = await self._usage(answer, request, destination)
        yield _completion(answer, destination, price, usage, first_token_ms)

    async def _usage(self, answer: ResponseReader, request: ModelRequest, destination: Destination) -> Usage:
        """Return the usage from the provider or an estimate; estimates are logged once per model."""
        into = most_input_tokens(request.messages, request.response_schema, destination, request.tools)
        usage = answer.figures.usage(guessed_tokens(into), guessed_tokens(answer.said_bytes()))
        if usage.assumed and destination.can_be_asked:
            with suppress(ProviderError, TimeoutError):
                async with asyncio.timeout(USAGE_TIMEOUT_SECONDS):
                    usage = await self.billed(destination, request.call_id, answer.response_id) or usage
        if usage.assumed:
            self._warn("Provider reports no usage, an estimate is booked", destination)
        elif usage.contradictory:
            self._warn("Provider counts contradict each other, the larger ones are booked", destination)
        return usage

    def _warn(self, sentence: str, destination: Destination) -> None:
        if (sentence, destination.model) not in self._warned:
            self._warned.add((sentence, destination.model))
            fields = {"provider": destination.provider, "model": destination.model}
            _log.warning(sentence, extra=fields)

    async def billed(self, destination: Destination, call_id: str, response_id: str) -> Usage | None:
        """Ask the provider what a call took; None if it cannot tell, or not yet."""
        return await usage_lookup.ask(self._connections(), destination, call_id, response_id)

    async def close(self) -> None:
        """Close all connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def _open(self, wanted: OutgoingRequest, patience: CallDeadlines) -> "Exchange":
        if patience.over():
            raise TimedOut("total", patience.total_seconds, sent=False)
        return await self._connections().open(wanted.url, wanted.headers, wanted.body, patience)

    def _connections(self) -> "Http":
        if self._http is None:
            from gateway.http import Http

            self._http = Http(self.destinations.reach)
        return self._http


def warm_up() -> None:
    """Import what calls need now; call it from a thread when a worker starts."""
    import gateway.http  # noqa: F401

    litellm_door.litellm()
    litellm_door.provider_config("openai", "gpt-4o-mini")


async def _packet(exchange: "Exchange", answer: ResponseReader) -> bytes:
    """Return the next packet; b"" at the end, even if an answer that has ended stays open."""
    try:
        return await exchange.packet()
    except (TimedOut, ConnectionLost):
        if answer.finished:
            return b""
        raise


def _tokens(answer: ResponseReader) -> tuple[int, int, int] | None:
    """Return the tokens of a failed answer, if its provider reports them at the end."""
    if not answer.complete:
        return None
    usage = answer.figures.usage(0, 0)
    return usage.input_tokens, usage.output_tokens, usage.cached_input_tokens


def _completion(
    answer: ResponseReader, destination: Destination, price: Price, usage: Usage, first_token_ms: int | None
) -> Completion:
    return Completion(
        text=answer.text,
        model=answered_model(destination, answer.model),
        usage=usage,
        cost_usd=price.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens),
        finish_reason=answer.finish_reason,
        simulated=destination.simulated or answer.simulated,
        provider=destination.provider,
        response_id=answer.response_id,
        first_token_ms=first_token_ms,
        tool_calls=answer.tool_calls(),
    )
