"""The simulator over the wire: OpenAI's own client reads it, and its books say what left."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from infra.simulator.skills import SKILL_TABLE
from tests.unit.infra.test_simulator_shapes import strictly

MODEL = "openai/gpt-4o"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say why limits help — ünd wö."}],
}
STREAM: dict[str, Any] = ASK | {"stream": True, "stream_options": {"include_usage": True}}
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Call look_up with word: tree."}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "strict": True,
            "parameters": {
                "additionalProperties": False,
                "type": "object",
                "properties": {"word": {"type": "string"}},
                "required": ["word"],
            },
        },
    }
]


@pytest.fixture
async def sdk(simulator_url: str, control: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{simulator_url}/v1", api_key="none", max_retries=0) as client:
        yield client
    await control.delete("/_simulator/limits")


async def _rule(control: httpx.AsyncClient, **rule: object) -> None:
    (await control.post("/_simulator/faults", json=rule)).raise_for_status()


async def _booked(control: httpx.AsyncClient, number: int = -1) -> dict[str, Any]:
    """The call, once it has ended."""
    while True:
        recent = (await control.get("/_simulator/calls")).json()["recent"]
        if recent and recent[number]["outcome"] is not None:
            return dict(recent[number])
        await asyncio.sleep(0.01)


async def _ask(control: httpx.AsyncClient, stream: bool, **headers: str) -> httpx.Response:
    return await control.post("/v1/chat/completions", json=STREAM if stream else ASK, headers=headers)


def _events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def _text(response: httpx.Response) -> str:
    choices = [choice for event in _events(response) for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_openais_client_reads_both_ways_of_answering(
    sdk: openai.AsyncOpenAI, control: httpx.AsyncClient
) -> None:
    whole = await sdk.chat.completions.create(model=MODEL, messages=ASK["messages"])
    streamed, usage = "", None
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=ASK["messages"], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        streamed += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert streamed == whole.choices[0].message.content != ""
    assert usage == whole.usage
    booked = await _booked(control)
    assert usage is not None
    assert (booked["input_tokens"], booked["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert [booked["outcome"], booked["stream"], booked["finish_reason"]] == ["finished", True, "stop"]


async def test_a_tool_is_called_and_its_result_used(sdk: openai.AsyncOpenAI) -> None:
    asked = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS)
    message = asked.choices[0].message
    assert asked.choices[0].finish_reason == "tool_calls"
    assert message.content is None and message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function" and json.loads(call.function.arguments) == {"word": "tree"}

    async with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    (again,) = final.choices[0].message.tool_calls or []
    assert again.function.arguments == call.function.arguments

    answered = await sdk.chat.completions.create(
        model=MODEL,
        tools=TOOLS,
        messages=[
            *MESSAGES,
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": "look_up", "arguments": call.function.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "a tall plant"},
        ],
    )
    assert (answered.choices[0].message.content or "").startswith("According to look_up: a tall plant")


async def test_openais_client_knows_its_errors(sdk: openai.AsyncOpenAI, control: httpx.AsyncClient) -> None:
    errors = {
        "rate_limit": openai.RateLimitError,
        "server_error": openai.InternalServerError,
        "overloaded": openai.InternalServerError,
        "refuse": openai.BadRequestError,
    }
    for kind, error in errors.items():
        await _rule(control, kind=kind)
        with pytest.raises(error):
            await sdk.chat.completions.create(model=MODEL, messages=ASK["messages"])
        booked = await _booked(control)
        assert [booked[name] for name in ("fault", "outcome", "input_tokens", "output_tokens")] == [
            kind,
            "refused",
            0,
            0,
        ]
    await _rule(control, kind="overloaded", status=529, retry_after_seconds=3)
    response = await _ask(control, True)
    assert (response.status_code, response.headers["retry-after"]) == (529, "3")
    with pytest.raises(openai.BadRequestError, match="model is missing"):
        await sdk.chat.completions.create(model="", messages=ASK["messages"])


async def test_all_models_are_listed(sdk: openai.AsyncOpenAI, control: httpx.AsyncClient) -> None:
    document = (await control.get("/v1/models")).json()
    assert set(document) == {"object", "data"} and document["object"] == "list"
    assert [strictly(openai.types.Model, row).id for row in document["data"]] == list(SKILL_TABLE)
    assert [model.id async for model in sdk.models.list()] == list(SKILL_TABLE)


@pytest.mark.parametrize("variant", ["split", "crlf", "joined", "comments"])
async def test_a_valid_stream_is_valid_however_it_is_written(
    sdk: openai.AsyncOpenAI, control: httpx.AsyncClient, variant: str
) -> None:
    plain = _text(await _ask(control, True))
    await _rule(control, kind="malformed_sse", variant=variant)
    response = await _ask(control, True)
    assert _text(response) == plain
    assert {"crlf": "\r\n\r\n", "comments": ": keep-alive\n"}.get(variant, "") in response.text
    await _rule(control, kind="malformed_sse", variant=variant)
    stream = await sdk.chat.completions.create(model=MODEL, messages=ASK["messages"], stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == plain
    assert (await _booked(control))["outcome"] == "finished"


async def test_a_broken_event_and_an_error_in_mid_stream(
    sdk: openai.AsyncOpenAI, control: httpx.AsyncClient
) -> None:
    await _rule(control, kind="malformed_sse", after_tokens=8)
    with pytest.raises(json.JSONDecodeError):
        _events(await _ask(control, True))
    assert (await _booked(control))["outcome"] == "finished"
    await _rule(control, kind="malformed_sse", variant="error", after_tokens=8)
    stream = await sdk.chat.completions.create(model=MODEL, messages=ASK["messages"], stream=True)
    with pytest.raises(openai.APIError, match="in mid-stream"):
        [chunk async for chunk in stream]
    booked = await _booked(control)
    assert (booked["outcome"], booked["output_tokens"]) == ("broken", 8)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_dropped_answer_is_billed_as_far_as_it_was_made(
    control: httpx.AsyncClient, stream: bool
) -> None:
    await _rule(control, kind="drop_mid_stream", after_tokens=8)
    with pytest.raises(httpx.RemoteProtocolError):
        await _ask(control, stream)
    booked = await _booked(control)
    assert (booked["outcome"], booked["output_tokens"]) == ("broken", 8)
    assert booked["input_tokens"] > 0


async def test_a_body_can_be_cut_or_be_no_json(control: httpx.AsyncClient) -> None:
    await _rule(control, kind="broken_body")
    with pytest.raises(httpx.RemoteProtocolError):
        await _ask(control, False)
    await _rule(control, kind="broken_body", variant="not_json")
    response = await _ask(control, False)
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()
    assert (await _booked(control))["outcome"] == "broken"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stall_goes_on_and_a_late_head_comes(control: httpx.AsyncClient, stream: bool) -> None:
    for kind in ("stall", "slow_first_byte"):
        await _rule(control, kind=kind, delay_seconds=0.3)
        heads: list[float] = []
        began = asyncio.get_running_loop().time()
        request = control.build_request("POST", "/v1/chat/completions", json=STREAM if stream else ASK)
        response = await control.send(request, stream=True)
        heads.append(asyncio.get_running_loop().time() - began)
        await response.aread()
        assert asyncio.get_running_loop().time() - began >= 0.3
        if stream:
            assert (heads[0] < 0.3) == (kind == "stall")
        booked = await _booked(control)
        assert (booked["outcome"], booked["fault"]) == ("finished", kind)


async def _hang_up(control: httpx.AsyncClient, stream: bool, seconds: float) -> dict[str, Any]:
    with pytest.raises((httpx.ReadTimeout, TimeoutError)):
        async with asyncio.timeout(seconds):
            await _ask(control, stream)
    return await _booked(control)


@pytest.mark.parametrize("stream", [True, False])
async def test_who_hangs_up_pays_for_what_left(control: httpx.AsyncClient, stream: bool) -> None:
    # Nothing began: nothing to pay.
    await _rule(control, kind="slow_first_byte", delay_seconds=60)
    booked = await _hang_up(control, stream, 0.2)
    assert [booked[n] for n in ("outcome", "input_tokens", "output_tokens")] == ["abandoned", 0, 0]
    # The answer began, without a token: the input.
    await _rule(control, kind="timeout")
    booked = await _hang_up(control, stream, 0.2)
    assert (booked["outcome"], booked["output_tokens"]) == ("abandoned", 0)
    assert booked["input_tokens"] > 0
    await _rule(control, kind="timeout", after_tokens=8)
    booked = await _hang_up(control, stream, 0.2)
    assert (booked["outcome"], booked["output_tokens"]) == ("abandoned", 8)
    # What is made in one piece is made to its end.
    await _rule(control, kind="slow", delay_seconds=0.5)
    booked = await _hang_up(control, stream, 0.2)
    assert booked["outcome"] == ("abandoned" if stream else "finished")
    assert (booked["output_tokens"] > 0) != stream


async def test_usage_can_be_missing_and_a_filter_can_end_an_answer(control: httpx.AsyncClient) -> None:
    await _rule(control, kind="no_usage", times=2)
    assert "usage" not in (await _ask(control, False)).json()
    assert not any("usage" in event for event in _events(await _ask(control, True)))
    assert (await _booked(control))["output_tokens"] > 0
    await _rule(control, kind="refusal", after_tokens=3)
    choice = (await _ask(control, False)).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert (await _booked(control))["output_tokens"] == 3


async def test_a_generation_is_found_by_both_names(control: httpx.AsyncClient) -> None:
    async def found(name: str) -> httpx.Response:
        return await control.get("/v1/generation", params={"id": name})

    response = await _ask(control, False, **{"x-client-request-id": "mine"})
    usage, id = response.json()["usage"], response.json()["id"]
    data = (await found(id)).json()["data"]
    assert data == (await found("mine")).json()["data"]
    assert (data["id"], data["model"], data["total_cost"]) == (id, MODEL, None)
    assert (data["tokens_prompt"], data["native_tokens_prompt"]) == (usage["prompt_tokens"],) * 2
    assert (data["tokens_completion"], data["native_tokens_completion"]) == (usage["completion_tokens"],) * 2
    assert (data["finish_reason"], data["cancelled"]) == ("stop", False)

    # The last call with that name; not before it ended.
    await _rule(control, kind="timeout", after_tokens=4)
    request = control.build_request(
        "POST", "/v1/chat/completions", json=STREAM, headers={"x-client-request-id": "mine"}
    )
    open_call = await control.send(request, stream=True)
    assert (await found("mine")).status_code == 404
    await open_call.aclose()
    assert (await _booked(control))["outcome"] == "abandoned"
    data = (await found("mine")).json()["data"]
    assert (data["tokens_completion"], data["cancelled"], data["finish_reason"]) == (4, True, None)
    assert (await found("theirs")).status_code == 404


async def test_a_limit_is_enforced_and_counted(sdk: openai.AsyncOpenAI, control: httpx.AsyncClient) -> None:
    limit = {"model": MODEL, "requests_per_minute": 2, "tokens_per_minute": 10_000}
    (await control.post("/_simulator/limits", json=limit)).raise_for_status()
    first = await _ask(control, False)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "10000"
    second = await _ask(control, True)
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    third = await _ask(control, True)
    assert third.status_code == 429
    assert 55 <= int(third.headers["retry-after"]) <= 60
    assert 55_000 <= int(third.headers["retry-after-ms"]) <= 60_000
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    assert third.json()["error"]["type"] == "requests"
    with pytest.raises(openai.RateLimitError):
        await sdk.chat.completions.create(model=MODEL, messages=ASK["messages"])

    total = (await control.get("/_simulator/calls")).json()["total"]
    assert (total["finished"], total["refused"], total["rejected"]) == (2, 2, 2)
    (row,) = (await control.get("/_simulator/limits")).json()["limits"]
    # The estimate gave way to what was billed.
    assert (row["requests"], row["tokens"]) == (2, total["input_tokens"] + total["output_tokens"])
    arrivals = (await control.get("/_simulator/arrivals")).json()
    assert [[model, tokens] for _, model, tokens in arrivals] == [[MODEL, row["tokens"] / 2]] * 2
    assert (await control.get("/_simulator/arrivals", params={"since": arrivals[0][0]})).json() == arrivals[
        1:
    ]
    await control.delete("/_simulator/limits")
    assert (await _ask(control, False)).status_code == 200


async def test_what_makes_no_sense_is_answered_with_what_is_wrong(control: httpx.AsyncClient) -> None:
    for path, sent, said in (
        ("/_simulator/faults", b'{"kind": "explode"}', "expected one of rate_limit"),
        ("/_simulator/faults", b"[", "Expecting"),
        ("/_simulator/limits", b'{"model": 3}', "model is 3"),
        ("/v1/chat/completions", b"[" * 100_000, "not JSON"),
        ("/v1/chat/completions", b'{"model": "m", "messages": []}', "messages must be"),
        ("/v1/chat/completions", b"\xff", "not JSON"),
    ):
        response = await control.post(path, content=sent)
        assert response.status_code == 400
        assert said in response.json()["error"]["message"]
    for path in (
        "/_simulator/calls?since=-1",
        "/_simulator/calls?limit=x",
        "/_simulator/arrivals?since=soon",
    ):
        assert (await control.get(path)).status_code == 400
    odd = {"model": MODEL, "messages": [{"role": "user", "content": "\ud800 \ud83d limits"}], "stream": True}
    response = await control.post("/v1/chat/completions", content=json.dumps(odd))
    assert response.status_code == 200 and _text(response)
    assert (await control.get("/_simulator/calls")).json()["total"]["calls"] == 1


async def test_random_faults_leave_books_that_add_up(control: httpx.AsyncClient) -> None:
    kinds = (
        "server_error",
        "drop_mid_stream",
        "end_early",
        "rate_limit",
        "stall",
        "malformed_sse",
        "broken_body",
    )
    rules = [{"kind": kind, "chance": 0.1, "times": None, "delay_seconds": 0.02} for kind in kinds]
    (await control.post("/_simulator/faults", json=rules)).raise_for_status()

    async def ask(number: int) -> None:
        try:
            async with asyncio.timeout(0.005 if number % 7 == 0 else None):
                await _ask(control, number % 2 == 0)
        except (httpx.TransportError, TimeoutError):
            pass

    for batch in range(5):
        await asyncio.gather(*(ask(batch * 60 + number) for number in range(60)))
    while (found := (await control.get("/_simulator/calls?since=0&limit=1000")).json())["total"]["open"]:
        await asyncio.sleep(0.01)
    total = found["total"]
    assert total["finished"] + total["refused"] + total["broken"] + total["abandoned"] == total["calls"] > 200
    for name in ("input_tokens", "output_tokens"):
        assert sum(call[name] for call in found["recent"]) == total[name] == found["by_model"][MODEL][name]
    assert {call["fault"] for call in found["recent"]} == {"", *kinds}
