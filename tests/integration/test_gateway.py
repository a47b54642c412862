"""The gateway against the simulator, over the real wire."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal

import httpx
import pytest

from gateway.client import Completion, Gateway, Message, ModelRequest
from gateway.prices import PRICES
from schema.errors import ProviderError
from tests.integration.providers import only_simulated

TASK = (
    Message("system", "You are a programmer. Write complete, tested, readable code and nothing beside it."),
    Message("user", "Build a rate limiter for the REST API"),
)


@pytest.fixture
async def gateway(simulator_url: str) -> AsyncIterator[Gateway]:
    opened = Gateway(only_simulated(simulator_url))
    yield opened
    await opened.close()


def _request(model: str = "openai/gpt-4", **more: object) -> ModelRequest:
    return ModelRequest(model=model, messages=TASK, **more)  # type: ignore[arg-type]


async def _collect(gateway: Gateway, request: ModelRequest) -> tuple[list[str], Completion]:
    pieces: list[str] = []
    ends: list[Completion] = []
    async for piece in gateway.stream(request):
        if isinstance(piece, str):
            assert not ends, "text after the completion"
            pieces.append(piece)
        else:
            ends.append(piece)
    assert len(ends) == 1
    return pieces, ends[0]


async def _tally(control: httpx.AsyncClient, key: str) -> dict[str, int]:
    """The simulator's account of a key, once all its calls have ended."""
    while True:
        sums: dict[str, int] = (await control.get("/_simulator/calls", params={"key": key})).json()["by_key"][
            key
        ]
        if sums["open"] == 0:
            return sums
        await asyncio.sleep(0.01)


async def test_an_answer_comes_in_pieces_with_its_account(
    gateway: Gateway, control: httpx.AsyncClient
) -> None:
    pieces, completion = await _collect(gateway, _request(call_key="c1/code/0"))

    assert len(pieces) > 5
    assert "".join(pieces) == completion.text
    assert completion.model == "openai/gpt-4"
    assert completion.provider == "simulator"
    assert completion.simulated
    assert completion.finish_reason == "stop"
    assert completion.response_id.startswith("chatcmpl-")
    assert completion.first_token_ms is not None
    tally = await _tally(control, "c1/code/0")
    assert (tally["calls"], tally["finished"]) == (1, 1)
    assert (tally["input_tokens"], tally["output_tokens"]) == (
        completion.input_tokens,
        completion.output_tokens,
    )
    price = PRICES["openai/gpt-4"]
    assert completion.cost_usd == price.cost_usd(completion.input_tokens, completion.output_tokens)
    assert completion.cost_usd > Decimal("0.001")


async def test_the_same_request_gets_the_same_text(gateway: Gateway) -> None:
    _, first = await _collect(gateway, _request())
    _, second = await _collect(gateway, _request())
    assert first.text == second.text
    assert first.response_id != second.response_id


async def test_a_limit_on_the_answer_is_kept(gateway: Gateway) -> None:
    _, completion = await _collect(gateway, _request(max_output_tokens=10))
    assert (completion.output_tokens, completion.finish_reason) == (10, "length")


@pytest.mark.parametrize(
    ("rule", "code", "retryable", "retry_after"),
    [
        ({"kind": "rate_limit", "retry_after_seconds": 7}, "provider_rate_limited", True, 7.0),
        ({"kind": "server_error"}, "provider_unavailable", True, None),
        ({"kind": "timeout"}, "provider_timeout", True, None),
        ({"kind": "timeout", "after_tokens": 20}, "provider_timeout", True, None),
        ({"kind": "drop_mid_stream"}, "provider_stream_cut", True, None),
        ({"kind": "drop_mid_stream", "after_tokens": 0}, "provider_stream_cut", True, None),
        ({"kind": "end_early"}, "provider_stream_cut", True, None),
        ({"kind": "refuse", "status": 401, "error_code": "invalid_api_key"}, "provider_auth", False, None),
        ({"kind": "refuse", "status": 404, "error_code": "model_not_found"}, "model_unknown", False, None),
        ({"kind": "refuse", "status": 400}, "provider_bad_request", False, None),
        (
            {"kind": "refuse", "status": 400, "error_code": "context_length_exceeded"},
            "provider_context_too_long",
            False,
            None,
        ),
        (
            {"kind": "refuse", "status": 400, "error_code": "content_policy_violation"},
            "provider_content_policy",
            False,
            None,
        ),
        ({"kind": "refuse", "status": 429, "error_code": "insufficient_quota"}, "provider_auth", False, None),
        ({"kind": "refuse", "status": 503}, "provider_unavailable", True, None),
    ],
)
async def test_a_fault_has_its_code(
    gateway: Gateway,
    control: httpx.AsyncClient,
    rule: dict[str, object],
    code: str,
    retryable: bool,
    retry_after: float | None,
) -> None:
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()

    with pytest.raises(ProviderError) as caught:
        await _collect(gateway, _request(call_key="c2/code/0", timeout_seconds=2.0))

    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.retry_after_seconds == retry_after
    assert caught.value.__cause__ is None
    # One call: neither litellm nor the SDK tries again, and the next one succeeds.
    assert (await _tally(control, "c2/code/0"))["calls"] == 1
    await _collect(gateway, _request(call_key="c2/code/0"))


async def test_bad_json_and_slowness_are_no_failures_of_the_provider(
    gateway: Gateway, control: httpx.AsyncClient
) -> None:
    await control.post(
        "/_simulator/faults", json=[{"kind": "bad_json"}, {"kind": "slow", "delay_seconds": 0.3}]
    )
    _, cut = await _collect(gateway, _request())
    _, slow = await _collect(gateway, _request())
    assert slow.text.startswith(cut.text)
    assert len(slow.text) > len(cut.text)
    assert slow.first_token_ms is not None
    assert slow.first_token_ms >= 300


async def test_leaving_early_ends_the_call_and_is_billed(
    gateway: Gateway, control: httpx.AsyncClient
) -> None:
    await control.post("/_simulator/faults", json=[{"kind": "timeout", "after_tokens": 16}])
    async with aclosing(gateway.stream(_request(call_key="c3/code/0"))) as stream:
        async for _ in stream:
            break
    tally = await _tally(control, "c3/code/0")
    assert tally["abandoned"] == 1
    assert tally["output_tokens"] == 16


async def test_nobody_at_the_address_is_unavailable() -> None:
    gateway = Gateway(only_simulated("http://127.0.0.1:9"))
    with pytest.raises(ProviderError) as caught:
        await _collect(gateway, _request())
    await gateway.close()
    assert (caught.value.code, caught.value.retryable) == ("provider_unavailable", True)


async def test_ollama_is_called_at_its_host_and_costs_nothing(simulator_url: str) -> None:
    gateway = Gateway(only_simulated(simulator_url, ollama_host=simulator_url))
    _, completion = await _collect(gateway, _request("ollama/llama3.2"))
    await gateway.close()
    assert completion.provider == "ollama"
    assert completion.model == "ollama/llama3.2"
    assert completion.cost_usd == Decimal(0)
    # It was the simulator after all, and says so.
    assert completion.simulated


async def test_a_missing_price_is_refused_before_the_call(
    gateway: Gateway, control: httpx.AsyncClient
) -> None:
    with pytest.raises(ProviderError) as caught:
        await _collect(gateway, _request("openai/never-heard-of"))
    assert caught.value.code == "price_missing"
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] == 0


async def test_many_at_once_are_all_counted(gateway: Gateway, control: httpx.AsyncClient) -> None:
    requests = [_request(call_key=f"c4/map/{number}") for number in range(60)]
    completions = await asyncio.gather(*(_collect(gateway, request) for request in requests))
    total = (await control.get("/_simulator/calls")).json()["total"]
    assert (total["calls"], total["finished"]) == (60, 60)
    assert total["output_tokens"] == sum(completion.output_tokens for _, completion in completions)


ANTHROPIC_EVENTS = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
            "content": [], "stop_reason": None, "usage": {"input_tokens": 11, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "there"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)  # fmt: skip


@asynccontextmanager
async def _anthropic(events: Sequence[Mapping[str, object]], status: str = "200 OK") -> AsyncIterator[str]:
    """A server that gives the same answer to everyone, in Anthropic's wire format."""
    kind = "text/event-stream" if status.startswith("200") else "application/json"
    frames = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    body = frames if status.startswith("200") else json.dumps(events[0])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        reply = (
            f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nretry-after: 3\r\nconnection: close\r\n\r\n{body}"
        )
        writer.write(reply.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _ask_anthropic(
    monkeypatch: pytest.MonkeyPatch, events: Sequence[Mapping[str, object]], status: str = "200 OK"
) -> Completion:
    async with _anthropic(events, status) as url:
        monkeypatch.setenv("ANTHROPIC_API_BASE", url)
        gateway = Gateway(only_simulated("http://127.0.0.1:9", anthropic_api_key="sk-ant-0123456789abcdef"))
        try:
            _, completion = await _collect(gateway, _request("anthropic/claude-3.5-sonnet"))
        finally:
            await gateway.close()
    return completion


# A class of litellm's own makes pydantic warn while it is built.
LITELLM_WARNS = pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class")


@LITELLM_WARNS
async def test_anthropics_wire_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    completion = await _ask_anthropic(monkeypatch, ANTHROPIC_EVENTS)
    assert completion.text == "Hello there"
    assert completion.model == "anthropic/claude-sonnet-4-6"
    assert completion.provider == "anthropic"
    assert not completion.simulated
    assert (completion.input_tokens, completion.output_tokens) == (11, 5)
    assert completion.finish_reason == "stop"
    assert completion.cost_usd == Decimal("0.000108")


@LITELLM_WARNS
async def test_an_answer_of_anthropic_that_stops_short_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError) as caught:
        await _ask_anthropic(monkeypatch, ANTHROPIC_EVENTS[:4])
    assert caught.value.code == "provider_stream_cut"


@pytest.mark.parametrize(
    ("status", "kind", "code", "retry_after"),
    [
        ("429 Too Many Requests", "rate_limit_error", "provider_rate_limited", 3.0),
        ("529 Overloaded", "overloaded_error", "provider_unavailable", 3.0),
        ("401 Unauthorized", "authentication_error", "provider_auth", None),
    ],
)
async def test_a_refusal_of_anthropic_has_its_code(
    monkeypatch: pytest.MonkeyPatch, status: str, kind: str, code: str, retry_after: float | None
) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "no: sk-ant-0123456789abcdef"}}
    with pytest.raises(ProviderError) as caught:
        await _ask_anthropic(monkeypatch, [error], status)
    assert (caught.value.code, caught.value.retry_after_seconds) == (code, retry_after)
    assert "0123456789" not in caught.value.message
