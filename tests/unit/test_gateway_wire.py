"""Reading answers off the wire: events, text, tool calls, usage; and how long they may take."""

import asyncio
import json
import random
from typing import Any

import pytest

from gateway.failures import BrokenAnswer
from gateway.patience import Patience
from gateway.request import Timeouts, ToolCall, Usage
from gateway.sse import MOST_BYTES, EventReader, EventTooLong
from gateway.wire import Answer

STREAM = (
    b": hello\n\ndata: one\n\nevent: x\ndata:two\nid: 7\n\n"
    b"data: three\ndata: and more\n\n\n\ndata: [DONE]\n\n"
)
EVENTS = [b"one", b"two", b"three\nand more", b"[DONE]"]


def _read(packets: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [event for packet in packets for event in reader.feed(packet)] + reader.end()


@pytest.mark.parametrize("stream", [STREAM, STREAM.replace(b"\n", b"\r\n")], ids=["lf", "crlf"])
def test_events_are_the_same_however_they_are_cut_into_packets(stream: bytes) -> None:
    assert _read([stream]) == EVENTS
    assert _read([stream[i : i + 1] for i in range(len(stream))]) == EVENTS
    draw = random.Random(7)
    for _ in range(50):
        cuts = sorted(draw.sample(range(len(stream)), 5))
        assert _read([stream[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]) == EVENTS


def test_the_last_event_may_lack_its_empty_line() -> None:
    assert _read([b"data: a\n\ndata: b\n"]) == [b"a", b"b"]
    assert _read([b"data: a\n\ndata: b"]) == [b"a", b"b"]
    assert _read([b"data: a\n\n: bye"]) == [b"a"]
    assert _read([]) == []


@pytest.mark.parametrize("stream", [b"x" * 70_000, b"data: " + b"y" * 70_000 + b"\n"], ids=["line", "lines"])
def test_an_event_without_an_end_is_given_up(stream: bytes) -> None:
    packets = [stream] * (MOST_BYTES // len(stream) + 2)
    with pytest.raises(EventTooLong):
        _read(packets)


def _event(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": more.pop("finish", None)}
    return json.dumps({"id": "r1", "model": "m", "choices": [choice]} | more).encode()


def _usage(into: Any, out: Any, **more: Any) -> bytes:
    return json.dumps(
        {"choices": [], "usage": {"prompt_tokens": into, "completion_tokens": out, **more}}
    ).encode()


def test_an_answer_is_put_together() -> None:
    answer = Answer()
    said = [
        answer.take(data)
        for data in (
            _event({"role": "assistant", "content": ""}), _event({"reasoning_content": "hm"}),
            _event({"content": "Hello "}), _event({"content": "there"}), _event(finish="stop"),
            _usage(11, 5, prompt_tokens_details={"cached_tokens": 4}), b"[DONE]",
        )
    ]  # fmt: skip
    # None is no sign of life: a beginning, a comment, an account.
    assert said == [None, "", "Hello ", "there", "", None, None]
    assert (answer.text, answer.model, answer.response_id) == ("Hello there", "m", "r1")
    assert (answer.finish_reason, answer.usage, answer.done) == ("stop", Usage(11, 5, 4), True)
    assert answer.missing() == ""


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([_event({"content": "a"})], "a finish reason"),
        ([_event({"content": "a"}, finish="stop")], "its usage"),
        ([_event(finish="stop"), _usage(None, 3)], "its usage"),
        ([_event(finish="stop"), _usage(-1, True)], "its usage"),
        ([_usage(1, 1)], "a finish reason"),
    ],
)
def test_an_answer_without_its_end_is_not_complete(events: list[bytes], missing: str) -> None:
    answer = Answer()
    for event in events:
        answer.take(event)
    assert answer.missing() == missing


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"prompt_cache_hit_tokens": 3}, 3),
        ({"prompt_tokens_details": None}, 0),
        ({"prompt_tokens_details": {"cached_tokens": 99}}, 10),
        ({"prompt_tokens_details": {"cached_tokens": "3"}}, 0),
    ],
)
def test_cached_tokens_are_part_of_the_input(details: dict[str, Any], cached: int) -> None:
    answer = Answer()
    answer.take(_usage(10, 1, **details))
    assert answer.usage == Usage(10, 1, cached)


def _call(index: int | None, id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return call if index is None else call | {"index": index}


@pytest.mark.parametrize(
    "deltas",
    [
        [
            _call(0, "a", "f", ""),
            _call(0, None, None, '{"x"'),
            _call(1, "b", "g", "{}"),
            _call(0, None, None, ":1}"),
        ],
        # Whole calls, all of them as number 0.
        [_call(0, "a", "f", '{"x":1}'), _call(0, "b", "g", "{}")],
        [_call(None, "a", "f", '{"x"'), _call(None, None, None, ":1}"), _call(None, "b", "g", "{}")],
        [_call(0, "a", "f", None), _call(0, "a", "f", '{"x":1}'), _call(1, "b", "g", {})],
    ],
)
def test_tool_calls_are_put_together(deltas: list[dict[str, Any]]) -> None:
    answer = Answer()
    for delta in deltas:
        assert answer.take(_event({"tool_calls": [delta]})) == ""
    whole = Answer()
    whole.take(_event({"tool_calls": deltas[:1]}, finish="tool_calls"))
    found = answer.tool_calls()
    assert [call.name for call in found] == ["f", "g"]
    assert [json.loads(call.arguments or "{}") for call in found] == [{"x": 1}, {}]
    assert [call.id for call in found] == ["a", "b"]


def test_a_tool_call_without_a_name_of_its_own_gets_one() -> None:
    answer = Answer()
    answer.take(_event({"tool_calls": [_call(0, None, "f", "{}")]}))
    assert answer.tool_calls() == (ToolCall("call_0", "f", "{}"),)


@pytest.mark.parametrize(
    "data",
    [
        b'{"id": "r', b"1", b"null", b"[]", b"\xff", b'{"choices": 5}', b'{"choices": [5]}', b'{"usage": 7}',
        b'{"choices": [{"delta": "x"}]}', b'{"choices": [{"delta": {"content": ["x"]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [1]}}]}', b'{"choices": {"a": 1}}',
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_read_breaks_the_answer(data: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        Answer().take(data)
    with pytest.raises(BrokenAnswer):
        Answer().take_whole(data.replace(b"delta", b"message"))


def test_an_error_within_an_answer_breaks_it() -> None:
    with pytest.raises(BrokenAnswer, match="Overloaded") as caught:
        Answer().take(b'{"error": {"message": "Overloaded", "code": 502}}')
    assert caught.value.status == 502


def test_an_answer_in_one_piece_is_read() -> None:
    answer = Answer()
    message = {"role": "assistant", "content": "Hi", "tool_calls": [_call(None, "a", "f", "{}")]}
    body = {
        "id": "r1", "model": "m", "system_fingerprint": "facilitair-simulator",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }  # fmt: skip
    assert answer.take_whole(json.dumps(body).encode()) == "Hi"
    assert (answer.finish_reason, answer.usage, answer.simulated) == ("tool_calls", Usage(3, 1), True)
    assert answer.tool_calls() == (ToolCall("a", "f", "{}"),)


async def test_only_silence_of_the_provider_counts() -> None:
    patience = Patience(Timeouts(total=0.4, connect=1, first_token=0.2, stall=0.05), streamed=True)
    cut: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    patience.note_sent()
    patience.watch(cut.set_result)
    patience.heard()
    patience.leave()
    await asyncio.sleep(0.5)
    assert not cut.done()
    patience.resume()
    began = asyncio.get_running_loop().time()
    error = await cut
    assert asyncio.get_running_loop().time() - began < 0.3
    assert str(error) == "stall after 0.05 s"


@pytest.mark.parametrize(
    ("timeouts", "heard", "said"),
    [
        (Timeouts(total=5, first_token=0.02, stall=3), False, "first_token after 0.02 s"),
        (Timeouts(total=5, first_token=3, stall=0.02), True, "stall after 0.02 s"),
        (Timeouts(total=0.1, stall=5), True, "total after 0.1 s"),
        (Timeouts(total=0.04), False, "first_token after 0.02 s"),
    ],
)
async def test_each_silence_has_its_own_end(timeouts: Timeouts, heard: bool, said: str) -> None:
    patience = Patience(timeouts, streamed=True)
    patience.note_sent()
    cut: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    patience.watch(cut.set_result)
    if heard:
        patience.heard()
    if heard and timeouts.total < 1:
        while not cut.done():
            patience.heard()
            await asyncio.sleep(0.001)
    assert str(await asyncio.wait_for(cut, 1)) == said
    assert patience.sent
