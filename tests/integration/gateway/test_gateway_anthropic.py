"""Anthropic's wire, which litellm translates."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from gateway.client import Gateway
from gateway.prices import Price
from gateway.request import Completion, Message, ModelRequest, ModelToolCall, ToolSpec, Usage
from schema.errors import ProviderError
from tests.support.providers import Provider, answering, event_reply, json_reply, only_simulated

KEY = "sk-ant-0123456789abcdef"
SONNET = "anthropic/claude-3.5-sonnet"
TASK = (Message("system", "Be brief."), Message("user", "Greet me."))
# A class of litellm's own makes pydantic warn while it is built.
pytestmark = pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class")


def _start(**usage: int) -> dict[str, Any]:
    counted = {"input_tokens": 11, "output_tokens": 1} | usage
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
        "stop_reason": None,
        "usage": counted,
    }
    return {"type": "message_start", "message": message}


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _text(*texts: str) -> list[dict[str, Any]]:
    return _block(0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def _end(reason: str = "end_turn", **usage: int) -> list[dict[str, Any]]:
    counted = {"output_tokens": 5} | usage
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": counted},
        {"type": "message_stop"},
    ]


HELLO = [_start(), {"type": "ping"}, *_text("Hello ", "there"), *_end()]


async def _ask(reply: bytes, **more: Any) -> tuple[list[str], Completion, Provider]:
    async with answering(reply) as provider:
        settings = only_simulated(
            "http://127.0.0.1:9", anthropic_api_key=KEY, anthropic_base_url=provider.url
        )
        gateway = Gateway(settings)
        try:
            said = [
                piece
                async for piece in gateway.stream(ModelRequest(**{"model": SONNET, "messages": TASK} | more))
            ]
        finally:
            await gateway.close()
    *texts, completion = said
    assert isinstance(completion, Completion)
    return [text for text in texts if isinstance(text, str)], completion, provider


async def test_anthropics_stream_is_translated() -> None:
    texts, completion, provider = await _ask(event_reply(HELLO), max_output_tokens=50, call_id="call-1")
    assert texts == ["Hello ", "there"]
    assert (completion.model, completion.provider) == ("anthropic/claude-sonnet-4-6", "anthropic")
    assert (completion.response_id, completion.finish_reason) == ("msg_1", "stop")
    assert completion.usage == Usage(11, 5)
    assert completion.cost_usd == Decimal("0.000108")
    assert not completion.simulated
    assert completion.first_token_ms is not None
    [(path, headers, body)] = provider.asked
    assert (path, headers["x-api-key"], headers["x-client-request-id"]) == ("/v1/messages", KEY, "call-1")
    assert "authorization" not in headers
    assert body == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 50,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Greet me."}]}],
    }


async def test_cached_input_is_part_of_the_input() -> None:
    events = [_start(cache_read_input_tokens=100, cache_creation_input_tokens=20), *_text("Hi"), *_end()]
    _, completion, _ = await _ask(event_reply(events))
    assert completion.usage == Usage(131, 5, 100)


async def test_an_answer_in_one_piece_is_translated() -> None:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 11, "output_tokens": 5, "cache_read_input_tokens": 4},
    }
    tools = (ToolSpec("look", "Looks.", {"type": "object"}),)
    texts, completion, provider = await _ask(json_reply(body), stream=False, tools=tools)
    assert texts == ["Hi"]
    assert (completion.finish_reason, completion.usage) == ("tool_calls", Usage(15, 5, 4))
    assert completion.tool_calls == (ModelToolCall("t1", "look", '{"a": 1}'),)
    assert (completion.response_id, completion.model) == ("msg_1", "anthropic/claude-sonnet-4-6")
    assert "stream" not in provider.asked[0][2]


async def test_tool_calls_are_translated_there_and_back() -> None:
    def _use(index: int, id: str, *parts: str) -> list[dict[str, Any]]:
        deltas = ({"type": "input_json_delta", "partial_json": part} for part in parts)
        return _block(index, {"type": "tool_use", "id": id, "name": "look", "input": {}}, *deltas)

    events = [
        _start(),
        *_text("Let me see."),
        *_use(1, "t1", '{"at', '": "a"}'),
        *_use(2, "t2"),
        *_end("tool_use"),
    ]
    messages = [
        *TASK,
        Message("assistant", "", (ModelToolCall("t0", "look", '{"at": "z"}'),)),
        Message("tool", "seen", tool_call_id="t0"),
    ]
    parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
    tools = (ToolSpec("look", "Looks.", parameters),)
    _, completion, provider = await _ask(event_reply(events), messages=messages, tools=tools)
    assert completion.finish_reason == "tool_calls"
    assert completion.tool_calls == (
        ModelToolCall("t1", "look", '{"at": "a"}'),
        ModelToolCall("t2", "look", "{}"),
    )
    body = provider.asked[0][2]
    assert [tool["name"] for tool in body["tools"]] == ["look"]
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t0", "name": "look", "input": {"at": "z"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t0", "content": "seen"}]},
    ]
    # What the request was made of is as it was.
    assert tools[0].parameters == {"type": "object", "properties": {"at": {"type": "string"}}}


async def test_an_older_model_answers_a_schema_by_a_tool() -> None:
    answer = {"type": "tool_use", "id": "t1", "name": "json_tool_call", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ('{"a"', ": 1}")]
    events = [_start(), *_block(0, answer, *deltas), *_end("tool_use")]
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    model = "anthropic/claude-3-haiku-20240307"
    price = Price(Decimal(1), Decimal(1))
    texts, completion, provider = await _ask(
        event_reply(events), response_schema=schema, model=model, price=price
    )
    assert json.loads("".join(texts)) == {"a": 1}
    assert (completion.finish_reason, completion.tool_calls) == ("stop", ())
    assert provider.asked[0][2]["tool_choice"] == {"name": "json_tool_call", "type": "tool"}


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (HELLO[:4], "without a finish reason"),
        (HELLO[:-2], "without a finish reason"),
        ([_start(), {"type": "content_block_delta"}], "cannot be read"),
        (
            [_start(), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
            "Overloaded",
        ),
    ],
)
async def test_a_stream_of_anthropic_that_breaks_off_is_cut(events: Sequence[object], said: str) -> None:
    with pytest.raises(ProviderError, match=said) as caught:
        await _ask(event_reply(events))
    assert (caught.value.code, caught.value.billed) == ("provider_stream_cut", True)
    assert caught.value.response_id == "msg_1"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ],
)
async def test_anthropics_reasons_are_told_apart(reason: str, finish: str) -> None:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": reason,
        "usage": {"input_tokens": 11, "output_tokens": 5},
    }
    streamed = event_reply([_start(), *_text("Hi"), *_end(reason)])
    for reply, stream in ((streamed, True), (json_reply(body), False)):
        texts, completion, _ = await _ask(reply, stream=stream)
        assert (texts, completion.finish_reason, completion.usage) == (["Hi"], finish, Usage(11, 5))


async def test_a_turn_that_anthropic_only_pauses_is_no_answer() -> None:
    with pytest.raises(ProviderError, match="pause_turn") as caught:
        await _ask(event_reply([_start(), *_text("Hi"), *_end("pause_turn")]))
    assert (caught.value.code, caught.value.tokens) == ("provider_stream_cut", (11, 5, 0))


async def test_what_anthropics_words_do_not_count_is_estimated() -> None:
    events = [_start(), *_text("Hi"), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}]
    _, completion, _ = await _ask(event_reply(events))
    assert completion.usage == Usage(11, 1, assumed=True)


@pytest.mark.parametrize(
    ("status", "kind", "code", "retry_after"),
    [
        ("429 Too Many Requests", "rate_limit_error", "provider_rate_limited", 3.0),
        ("529 Overloaded", "overloaded_error", "provider_unavailable", 3.0),
        ("401 Unauthorized", "authentication_error", "provider_auth", None),
    ],
)
async def test_a_refusal_of_anthropic_has_its_code(
    status: str, kind: str, code: str, retry_after: float | None
) -> None:
    error = {"type": "error", "error": {"type": kind, "message": f"no: {KEY}"}}
    with pytest.raises(ProviderError) as caught:
        await _ask(json_reply(error, status, retry_after="3"))
    assert (caught.value.code, caught.value.retry_after_seconds) == (code, retry_after)
    assert not caught.value.billed
    assert "0123456789" not in caught.value.message


async def test_what_cannot_be_said_to_anthropic_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProviderError) as caught:
        await _ask(event_reply(HELLO), messages=[Message("system", "Nobody speaks.")])
    assert (caught.value.code, caught.value.billed) == ("provider_bad_request", False)
