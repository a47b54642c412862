"""The gateway against the simulator, over the real wire."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest

from gateway.client import Gateway
from gateway.prices import PRICES, Price
from gateway.request import Completion, Message, ModelRequest, ModelToolCall, Timeouts, ToolSpec, Usage
from schema.errors import ProviderError
from schema.language.catalogue import TenantProvider
from tests.support.faults import FAULTS, TIMEOUTS
from tests.support.providers import answering, event_reply, json_reply, only_simulated, open_reply

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


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_ends_as_documented(
    gateway: Gateway, control: httpx.AsyncClient, fault: str, stream: bool
) -> None:
    rule, streamed, whole = FAULTS[fault]
    expected = streamed if stream else whole
    (await control.post("/_simulator/faults", json=[rule])).raise_for_status()
    asked = _request(call_key="c2/code/0", timeouts=TIMEOUTS, stream=stream)

    if expected is None:
        _, completion = await _collect(gateway, asked)
        assert completion.finish_reason == ("content_filter" if fault == "filtered" else "stop")
    else:
        with pytest.raises(ProviderError) as caught:
            await _collect(gateway, asked)
        error = caught.value
        assert (error.code, error.retryable, error.billed, error.retry_after_seconds) == (
            expected.code,
            expected.retryable,
            expected.billed,
            expected.retry_after_seconds,
        )
        assert expected.said in error.message
        assert error.__cause__ is None
    # One call: nothing below tries again. And the next one succeeds.
    assert (await _tally(control, "c2/code/0"))["calls"] == 1
    await control.delete("/_simulator/faults")
    await _collect(gateway, _request(call_key="c2/code/0", stream=stream))


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
    assert not caught.value.billed
    assert "no connection to 127.0.0.1:9" in caught.value.message


async def test_a_connection_that_does_not_come_about_is_not_billed() -> None:
    with ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # With its queue full the kernel lets newcomers wait.
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(deaf.getsockname())
        gateway = Gateway(only_simulated(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        with pytest.raises(ProviderError, match=r"no connection to simulator for .* within 0\.2 s") as caught:
            await _collect(gateway, _request(timeouts=Timeouts(connect=0.2)))
        await gateway.close()
    assert (caught.value.code, caught.value.billed) == ("provider_timeout", False)


async def test_without_time_nothing_is_called(gateway: Gateway, control: httpx.AsyncClient) -> None:
    with pytest.raises(ProviderError) as caught:
        await _collect(gateway, _request(timeouts=Timeouts(total=0.0)))
    assert (caught.value.code, caught.value.billed) == ("provider_timeout", False)
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] == 0


async def test_a_slow_reader_costs_the_provider_no_time(gateway: Gateway) -> None:
    pieces = 0
    async with aclosing(gateway.stream(_request(timeouts=Timeouts(total=2.0, stall=1.0)))) as stream:
        async for _ in stream:
            pieces += 1
            if pieces < 3:
                await asyncio.sleep(1.2)
    assert pieces > 3


async def test_an_answer_in_one_piece(gateway: Gateway, control: httpx.AsyncClient) -> None:
    pieces, whole = await _collect(gateway, _request(call_key="c5/code/0", stream=False))
    _, streamed = await _collect(gateway, _request())
    assert pieces == [whole.text] == [streamed.text]
    assert (whole.usage, whole.cost_usd, whole.finish_reason) == (
        streamed.usage,
        streamed.cost_usd,
        streamed.finish_reason,
    )
    assert whole.simulated and whole.first_token_ms is None
    assert (await _tally(control, "c5/code/0"))["finished"] == 1


TOOLS = (ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}}),)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_model_calls_tools_and_hears_of_their_results(
    gateway: Gateway, control: httpx.AsyncClient, stream: bool
) -> None:
    calls = [{"name": "look", "arguments": {"at": "a"}}, {"name": "look", "arguments": {"at": "b"}}]
    await control.post("/_simulator/faults", json=[{"kind": "tool_call", "tool_calls": calls}])
    asked = _request(tools=TOOLS, stream=stream)
    _, completion = await _collect(gateway, asked)
    assert completion.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        ("look", '{"at": "a"}'),
        ("look", '{"at": "b"}'),
    ]
    told = [
        *TASK,
        Message("assistant", completion.text, completion.tool_calls),
        *(Message("tool", "seen", tool_call_id=call.id) for call in completion.tool_calls),
    ]
    _, answer = await _collect(gateway, ModelRequest("openai/gpt-4", told, tools=TOOLS, stream=stream))
    assert answer.finish_reason == "stop"
    assert answer.tool_calls == ()
    assert answer.input_tokens > completion.input_tokens


async def test_a_model_calls_no_tools_where_it_may_not(gateway: Gateway) -> None:
    told = [Message("user", "Use look.")]
    may, may_not = [
        (await _collect(gateway, ModelRequest("openai/gpt-4", told, tools=TOOLS, may_call=may)))[1]
        for may in (True, False)
    ]
    assert (may.finish_reason, [call.name for call in may.tool_calls]) == ("tool_calls", ["look"])
    assert (may_not.finish_reason, may_not.tool_calls) == ("stop", ())


async def test_the_provider_tells_afterwards_what_a_call_came_to(
    gateway: Gateway, control: httpx.AsyncClient
) -> None:
    _, completion = await _collect(gateway, _request(call_id="call-1"))
    destination = gateway.destination("openai/gpt-4")
    assert await gateway.billed(destination, "", completion.response_id) == completion.usage
    assert await gateway.billed(destination, "call-1", "") == completion.usage
    assert await gateway.billed(destination, "call-2", "") is None
    assert await gateway.billed(destination, "", "") is None

    await control.post("/_simulator/faults", json=[{"kind": "drop_mid_stream", "after_tokens": 16}])
    with pytest.raises(ProviderError) as caught:
        await _collect(gateway, _request(call_id="call-3"))
    assert caught.value.billed and caught.value.response_id
    usage = await gateway.billed(destination, "call-3", caught.value.response_id)
    assert usage is not None and usage.output_tokens == 16


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


def _openai(text: str, **usage: Any) -> list[object]:
    counted = {"prompt_tokens": 11, "completion_tokens": 5} | usage
    return [
        {"id": "r1", "model": "m-2026-01-31", "choices": [{"delta": {"content": text}}]},
        {"id": "r1", "choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"id": "r1", "choices": [], "usage": counted},
        "[DONE]",
    ]


KEY = "sk-proj-0123456789abcdef"


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        (
            "openai/gpt-4o-mini",
            {"max_output_tokens": 50, "temperature": 0.5},
            {"max_tokens": 50, "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True}},
        ),
        # These take another name for the bound, and no temperature.
        (
            "openai/o3-mini",
            {"max_output_tokens": 50, "temperature": 0.5},
            {"max_completion_tokens": 50, "stream": True, "stream_options": {"include_usage": True}},
        ),
        ("openai/gpt-5-mini", {"max_output_tokens": 50, "stream": False}, {"max_completion_tokens": 50}),
        (
            "openai/gpt-4o-mini",
            {"response_schema": {"type": "object"}, "tools": TOOLS, "stream": False},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": False},
                },
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "look",
                            "description": "Looks.",
                            "parameters": dict(TOOLS[0].parameters),
                        },
                    }
                ],
            },
        ),
    ],
)
async def test_openai_is_asked_in_its_own_words(
    model: str, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    message = {"content": "Hi", "role": "assistant"}
    whole = {
        "id": "r1",
        "model": "m",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5},
    }
    reply = event_reply(_openai("Hi")) if asked.get("stream", True) else json_reply(whole)
    async with answering(reply) as provider:
        settings = only_simulated(
            "http://127.0.0.1:9", openai_api_key=KEY, openai_base_url=provider.url + "/v1"
        )
        gateway = Gateway(settings)
        _, completion = await _collect(gateway, _request(model, call_id="call-1", call_key="c/s/0", **asked))
        await gateway.close()
    [(path, headers, body)] = provider.asked
    assert path == "/v1/chat/completions"
    assert (headers["authorization"], headers["x-client-request-id"]) == (f"Bearer {KEY}", "call-1")
    assert "x-facilitair-call" not in headers
    # Reasoning models hear of no system.
    assert [message["content"] for message in body.pop("messages")] == [message.content for message in TASK]
    assert body == {"model": model.partition("/")[2]} | sent
    assert (completion.text, completion.provider, completion.simulated) == ("Hi", "openai", False)


async def test_cached_input_is_counted_and_priced() -> None:
    reply = event_reply(_openai("Hi", prompt_tokens_details={"cached_tokens": 8}))
    price = Price(Decimal(1_000), Decimal(0), Decimal(100))
    async with answering(reply) as provider:
        settings = only_simulated("http://127.0.0.1:9", openai_api_key=KEY, openai_base_url=provider.url)
        gateway = Gateway(settings)
        _, completion = await _collect(gateway, _request("openai/never-priced", price=price))
        await gateway.close()
    assert (completion.usage.cached_input_tokens, completion.input_tokens) == (8, 11)
    assert completion.cost_usd == Decimal("0.0038")
    assert completion.model == "openai/m"


async def test_connections_are_used_again() -> None:
    async with answering(event_reply(_openai("Hi"))) as provider:
        gateway = Gateway(only_simulated(provider.url))
        for _ in range(5):
            await _collect(gateway, _request())
        await gateway.close()
    assert (len(provider.asked), provider.connections) == (5, 1)


ACME_PRICE = Price(Decimal(1), Decimal(2))


def _acme(url: str, **more: Any) -> dict[str, Any]:
    own = TenantProvider("acme", "openai_compatible", f"{url}/v1", **more)
    return {"providers": {"acme": own}, "tenant": "team-1", "price": ACME_PRICE}


async def test_a_tenants_own_provider_is_called_with_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACILITAIR_KEY_TEAM_2D1__MAIN", "acme-secret")
    async with answering(event_reply(_openai("Hi"))) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        _, first = await _collect(gateway, _request("acme/m", **_acme(provider.url, key_ref="main")))
        await _collect(gateway, _request("acme/m", **_acme(provider.url)))
        await gateway.close()
    assert (first.model, first.provider, first.simulated) == ("acme/m", "acme", False)
    assert [headers.get("authorization") for _, headers, _ in provider.asked] == ["Bearer acme-secret", None]
    assert provider.asked[0][2]["model"] == "m"


async def test_an_allowed_name_does_not_lead_into_the_private_network() -> None:
    async with answering(event_reply(_openai("Hi"))) as provider:
        port = provider.host.rpartition(":")[2]
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts="localhost"))
        with pytest.raises(ProviderError, match="private address") as caught:
            await _collect(gateway, _request("acme/m", **_acme(f"http://localhost:{port}")))
        await gateway.close()
    assert (caught.value.code, caught.value.billed) == ("provider_unavailable", False)
    assert provider.asked == []


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (b"", "provider_unavailable", "it closed the connection"),
        (b"SSH-2.0-OpenSSH\n", "provider_unavailable", "the connection broke"),
        (json_reply({}, "302 Found", location="http://127.0.0.1:9/"), "provider_unavailable", "status 302"),
        (event_reply([]), "provider_stream_cut", "without a finish reason"),
        (event_reply(["<html>"]), "provider_stream_cut", "cannot be read"),
        (json_reply({"error": {"message": "No.", "code": 402}}), "provider_auth", "No."),
        (json_reply([]), "provider_stream_cut", "cannot be read"),
        (json_reply({"error": {"message": f"key {KEY} is bad"}}, "401 No"), "provider_auth", "[key]"),
    ],
)
async def test_a_server_that_is_no_provider_fails_in_words(reply: bytes, code: str, said: str) -> None:
    async with answering(reply) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        with pytest.raises(ProviderError) as caught:
            await _collect(gateway, _request("acme/m", **_acme(provider.url)))
        await gateway.close()
    assert caught.value.code == code
    assert said in caught.value.message
    assert "0123456789" not in caught.value.message
    assert caught.value.__cause__ is None


async def test_an_answer_in_one_piece_is_taken_where_a_stream_was_asked_for() -> None:
    message = {"content": "Hi", "role": "assistant"}
    whole = {
        "id": "r1",
        "model": "m",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5},
    }
    async with answering(json_reply(whole)) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        pieces, completion = await _collect(gateway, _request("acme/m", **_acme(provider.url)))
        await gateway.close()
    assert (pieces, completion.finish_reason) == (["Hi"], "stop")


async def _acme_says(*replies: bytes | Sequence[bytes | float], **more: Any) -> tuple[list[str], Completion]:
    async with answering(*replies) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        try:
            return await _collect(gateway, _request("acme/m", **_acme(provider.url), **more))
        finally:
            await gateway.close()


@pytest.mark.parametrize("silent", [True, False], ids=["silence", "comments"])
async def test_a_complete_answer_needs_no_end_of_its_stream(silent: bool) -> None:
    pieces: list[bytes | float] = [open_reply(_openai("Hi")[:-1])]
    pieces += [30.0] if silent else [0.3, b": still here\n\n"] * 100
    began = asyncio.get_running_loop().time()
    said, completion = await _acme_says(pieces, timeouts=Timeouts(total=30, stall=10))
    assert (said, completion.finish_reason, completion.usage) == (["Hi"], "stop", Usage(11, 5))
    assert asyncio.get_running_loop().time() - began < 2


async def test_usage_may_come_a_little_after_the_finish_reason() -> None:
    events = _openai("Hi")[:-1]
    last = event_reply(events[2:]).partition(b"\r\n\r\n")[2]
    said, completion = await _acme_says([open_reply(events[:2]), 1.5, last, 30.0])
    assert (said, completion.usage) == (["Hi"], Usage(11, 5))


async def test_an_answer_that_breaks_off_fails_with_what_it_took() -> None:
    choice = {"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "upstream went away"}}
    events = [_openai("par")[0], {"choices": [choice]}, *_openai("")[2:]]
    with pytest.raises(ProviderError, match="upstream went away") as caught:
        await _acme_says(event_reply(events))
    assert (caught.value.code, caught.value.retryable) == ("provider_stream_cut", True)
    assert caught.value.tokens == (11, 5, 0)


async def test_an_answer_that_is_not_counted_is_estimated_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [*_openai("Hi there")[:2], "[DONE]"]
    async with answering(event_reply(events)) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        for _ in range(3):
            _, completion = await _collect(gateway, _request("acme/m", **_acme(provider.url)))
        await gateway.close()
    assert completion.usage == Usage(67, 3, assumed=True)
    assert completion.cost_usd == ACME_PRICE.cost_usd(67, 3)
    [record] = [record for record in caplog.records if "an estimate is booked" in record.message]
    assert (record.levelname, vars(record)["model"]) == ("WARNING", "acme/m")


async def test_events_are_read_where_one_piece_was_asked_for() -> None:
    said, completion = await _acme_says(event_reply(_openai("Hi")), stream=False)
    assert (said, completion.finish_reason) == (["Hi"], "stop")


async def test_half_a_character_at_the_end_is_said_too() -> None:
    said, completion = await _acme_says(event_reply(_openai("Hi \ud83d")))
    assert (said, completion.text) == (["Hi ", "�"], "Hi �")


async def test_a_tool_call_that_ends_like_a_text_is_still_one() -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    events = [{"id": "r1", "choices": [{"delta": {"tool_calls": [call]}}]}, *_openai("")[1:]]
    async with answering(event_reply(events)) as provider:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=provider.host))
        _, completion = await _collect(gateway, _request("acme/m", tools=TOOLS, **_acme(provider.url)))
        await gateway.close()
    assert completion.finish_reason == "tool_calls"
    assert completion.tool_calls == (ModelToolCall("c1", "look", "{}"),)
