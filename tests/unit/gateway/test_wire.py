"""Reading answers off the wire: events, text, tool calls, usage; and how long they may take."""

import asyncio
import json
import random
from typing import Any

import pytest

from gateway.failures import BrokenAnswer
from gateway.request import ModelToolCall, Timeouts, Usage
from gateway.sse import MAX_BYTES, EventReader, EventTooLong
from gateway.timeouts import CallDeadlines
from gateway.wire import ResponseReader

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
    assert _read([b"\xef\xbb", b"\xbfdata: a\n\n"]) == [b"a"]


@pytest.mark.parametrize("stream", [b"x" * 70_000, b"data: " + b"y" * 70_000 + b"\n"], ids=["line", "lines"])
def test_an_event_without_an_end_is_given_up(stream: bytes) -> None:
    packets = [stream] * (MAX_BYTES // len(stream) + 2)
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
    answer = ResponseReader()
    said = [
        answer.take(data)
        for data in (
            _event({"role": "assistant", "content": ""}),
            _event({"reasoning_content": "hm"}),
            _event({"content": "Hello "}),
            _event({"content": "there"}),
            _event(finish="stop"),
            _usage(11, 5, prompt_tokens_details={"cached_tokens": 4}),
            b"[DONE]",
        )
    ]
    # None is no sign of life: a beginning, a comment, an account.
    assert said == [None, "", "Hello ", "there", "", None, None]
    assert (answer.text, answer.model, answer.response_id) == ("Hello there", "m", "r1")
    assert (answer.finish_reason, answer.figures.usage(1, 1), answer.done) == ("stop", Usage(11, 5, 4), True)
    assert answer.complete
    answer.check()


@pytest.mark.parametrize(
    ("events", "finished", "complete"),
    [
        ([_event({"content": "a"})], False, False),
        ([_usage(1, 1)], False, False),
        ([_event(finish=""), _event(finish="null"), _usage(1, 1)], False, False),
        ([_event({"content": "a"}, finish="stop")], True, False),
        ([_event(finish="stop"), _usage(None, 3)], True, False),
        ([_event(finish="stop"), _usage(-1, True)], True, False),
        ([_usage(1, 1), _event(finish="stop")], True, True),
    ],
)
def test_an_answer_is_complete_with_its_finish_reason_and_its_usage(
    events: list[bytes], finished: bool, complete: bool
) -> None:
    answer = ResponseReader()
    for event in events:
        answer.take(event)
    assert (answer.finished, answer.complete) == (finished, complete)
    if not finished:
        with pytest.raises(BrokenAnswer, match="without a finish reason"):
            answer.check()


@pytest.mark.parametrize("end", [b"[DONE]", b"[DONE] ", b"  [DONE]\t"])
def test_blanks_around_the_end_are_no_part_of_it(end: bytes) -> None:
    answer = ResponseReader()
    assert answer.take(b"  ") is None
    assert not answer.done
    assert answer.take(end) is None
    assert answer.done


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([_event({"content": "a"}, finish="stop")], "stop"),
        ([_event(finish="stop")], "empty"),
        ([_event({"content": " \n"}, finish="end_turn")], "empty"),
        ([_event({"reasoning_content": "hm"}, finish="stop")], "empty"),
        ([_event(finish="length")], "length"),
        ([_event({"refusal": "I will not."}, finish="stop")], "refusal"),
        ([_event({"tool_calls": [{"id": "a", "function": {"name": "f"}}]}, finish="stop")], "tool_calls"),
        ([_event({"function_call": {"name": "f", "arguments": "{}"}}, finish="function_call")], "tool_calls"),
        ([_event({"content": "a"}, finish="content_filter")], "content_filter"),
        ([_event({"content": "a"}, finish="sudden")], "sudden"),
        ([_event({"content": "a"})], ""),
    ],
)
def test_an_answer_is_judged_by_how_it_ended(events: list[bytes], reason: str) -> None:
    answer = ResponseReader()
    for event in events:
        answer.take(event)
    assert answer.finish_reason == reason


def test_an_answer_that_breaks_off_says_so_after_its_usage() -> None:
    answer = ResponseReader()
    answer.take(_event({"content": "par"}))
    choice = {"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "upstream went away"}}
    answer.take(json.dumps({"choices": [choice]}).encode())
    answer.take(_usage(10, 5))
    assert answer.complete
    with pytest.raises(BrokenAnswer, match="upstream went away") as caught:
        answer.check()
    assert caught.value.status == 502


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}], "hello"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], ""),
        ([{"type": "thinking", "text": "hm"}, {"type": "output_text", "text": "hello"}], "hello"),
        ([{"type": "reference", "reference_ids": [1]}, "hello"], "hello"),
        ({"type": "text", "text": "hello"}, "hello"),
        ([{"type": "text", "text": {"value": "hello"}}], "hello"),
        ([], None),
        (None, None),
    ],
)
def test_content_is_text_or_a_list_of_parts(content: Any, said: str | None) -> None:
    answer = ResponseReader()
    assert answer.take(_event({"content": content})) == said
    whole = ResponseReader()
    message = {"role": "assistant", "content": content}
    assert whole.take_whole(json.dumps({"choices": [{"message": message}]}).encode()) == (said or "")


def test_content_that_is_neither_is_told_in_words() -> None:
    with pytest.raises(BrokenAnswer, match="found 5 as the content of its answer; expected text"):
        ResponseReader().take(_event({"content": 5}))


@pytest.mark.parametrize(
    ("pieces", "said", "text"),
    [
        (["hi \ud83d", "\ude00 there"], ["hi ", "😀 there"], "hi 😀 there"),
        (["hi \ud83d", " there"], ["hi ", "� there"], "hi � there"),
        (["\ud83d", "\ud83d", "\ude00"], ["", "�", "😀"], "�😀"),
        (["\ude00", "x\0y"], ["�", "xy"], "�xy"),
        (["hi", "\ud83d"], ["hi", ""], "hi�"),
    ],
)
def test_the_halves_of_a_character_join_while_it_streams(
    pieces: list[str], said: list[str], text: str
) -> None:
    answer = ResponseReader()
    assert [answer.take(_event({"content": piece})) for piece in pieces] == said
    rest = answer.end()
    assert "".join(said) + rest == answer.text == text
    whole = ResponseReader()
    body = {"choices": [{"message": {"content": "".join(pieces)}, "finish_reason": "stop"}]}
    assert whole.take_whole(json.dumps(body).encode()) == whole.text == text


def test_names_that_a_provider_gives_are_cleaned_and_bounded() -> None:
    answer = ResponseReader()
    event = {"id": "r\0\ud83d" + "x" * 5_000, "model": "m\ude00", "choices": []}
    answer.take(json.dumps(event).encode())
    assert (answer.response_id[:3], len(answer.response_id), answer.model) == ("r�x", 200, "m�")
    call = {"id": 7, "function": {"name": "f\0", "arguments": '{"a": "\ud83d"}'}}
    answer.take(_event({"tool_calls": [call]}))
    assert answer.tool_calls() == (ModelToolCall("7", "f", '{"a": "�"}'),)


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
        # The name again with every piece.
        [_call(0, "a", "f", '{"x"'), _call(0, None, "f", ":1}"), _call(1, "b", "g", "{}")],
    ],
)
def test_tool_calls_are_put_together(deltas: list[dict[str, Any]]) -> None:
    answer = ResponseReader()
    for delta in deltas:
        assert answer.take(_event({"tool_calls": [delta]})) == ""
    whole = ResponseReader()
    whole.take(_event({"tool_calls": deltas[:1]}, finish="tool_calls"))
    found = answer.tool_calls()
    assert [call.name for call in found] == ["f", "g"]
    assert [json.loads(call.arguments or "{}") for call in found] == [{"x": 1}, {}]
    assert [call.id for call in found] == ["a", "b"]


@pytest.mark.parametrize("index", [None, 0])
def test_calls_without_ids_begin_with_a_name(index: int | None) -> None:
    answer = ResponseReader()
    for arguments in ('{"x"', ":1}", '{"x":2}'):
        name = None if arguments == ":1}" else "f"
        answer.take(_event({"tool_calls": [_call(index, None, name, arguments)]}))
    assert answer.tool_calls() == (
        ModelToolCall("call_0", "f", '{"x":1}'),
        ModelToolCall("call_1", "f", '{"x":2}'),
    )
    whole = ResponseReader()
    calls = [_call(None, None, "f", '{"x"'), _call(None, None, "f", '{"x":2}')]
    message = {"content": None, "tool_calls": calls}
    whole.take_whole(json.dumps({"choices": [{"message": message}]}).encode())
    assert [call.arguments for call in whole.tool_calls()] == ['{"x"', '{"x":2}']


def test_a_tool_call_without_a_name_of_its_own_gets_one() -> None:
    answer = ResponseReader()
    answer.take(_event({"tool_calls": [_call(0, None, "f", "{}")]}))
    assert answer.tool_calls() == (ModelToolCall("call_0", "f", "{}"),)


@pytest.mark.parametrize(
    "data",
    [
        b'{"id": "r',
        b"1",
        b"null",
        b"[]",
        b"\xff",
        b'{"choices": 5}',
        b'{"choices": [5]}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [{"delta": {"content": [true]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [1]}}]}',
        b'{"choices": {"a": 1}}',
    ],
)
def test_an_event_that_cannot_be_read_breaks_the_answer(data: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        ResponseReader().take(data)
    with pytest.raises(BrokenAnswer):
        ResponseReader().take_whole(data.replace(b"delta", b"message"))


@pytest.mark.parametrize("behind", [b'"[DONE]"', b"bye", b'{"error": "gone"}', b"[1]"])
def test_what_comes_behind_a_complete_answer_does_not_break_it(behind: bytes) -> None:
    answer = ResponseReader()
    for event in (_event({"content": "a"}), _event(finish="stop"), _usage(1, 1)):
        answer.take(event)
    assert answer.take(behind) is None
    assert answer.done
    answer.check()


def test_an_error_within_an_answer_breaks_it() -> None:
    with pytest.raises(BrokenAnswer, match="Overloaded") as caught:
        ResponseReader().take(b'{"error": {"message": "Overloaded", "code": 502}}')
    assert caught.value.status == 502
    with pytest.raises(BrokenAnswer, match="too busy"):
        ResponseReader().take_whole(b'{"object": "error", "message": "too busy", "type": "server_error"}')


def test_an_answer_in_one_piece_is_read() -> None:
    answer = ResponseReader()
    message = {"role": "assistant", "content": "Hi", "tool_calls": [_call(None, "a", "f", "{}")]}
    body = {
        "id": "r1",
        "model": "m",
        "system_fingerprint": "facilitair-simulator",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    assert answer.take_whole(json.dumps(body).encode()) == "Hi"
    found = (answer.finish_reason, answer.figures.usage(9, 9), answer.simulated)
    assert found == ("tool_calls", Usage(3, 1), True)
    assert answer.tool_calls() == (ModelToolCall("a", "f", "{}"),)


async def test_only_silence_of_the_provider_counts() -> None:
    patience = CallDeadlines(Timeouts(total=0.4, connect=1, first_token=0.2, stall=0.05), streamed=True)
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
    patience = CallDeadlines(timeouts, streamed=True)
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
