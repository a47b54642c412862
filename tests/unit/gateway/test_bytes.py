"""Whatever bytes a provider sends: they are read or refused in words, and what is kept of them can be."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.failures import BrokenAnswer
from gateway.finish_reasons import meaning_of
from gateway.sse import EventReader, EventTooLong
from gateway.wire import ResponseReader
from schema.values.foreign import clean_text

_NAMES = st.sampled_from(
    [
        "id",
        "model",
        "choices",
        "delta",
        "message",
        "content",
        "finish_reason",
        "error",
        "usage",
        "tool_calls",
        "function",
        "function_call",
        "name",
        "arguments",
        "index",
        "type",
        "text",
        "refusal",
        "reasoning",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "object",
        "timings",
    ]
)
_TEXTS = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from(
    ["\ud83d", "\ude00", "\0", "stop", "error", "text", "content_filter"]
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | _TEXTS, inner, max_size=4),
    max_leaves=8,
)
_CALLS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": _VALUES,
            "id": _VALUES,
            "function": st.fixed_dictionaries({}, optional={"name": _VALUES, "arguments": _VALUES}) | _VALUES,
        },
    )
    | _VALUES,
    max_size=3,
)
_DELTAS = st.fixed_dictionaries(
    {}, optional={"content": _TEXTS | _VALUES, "tool_calls": _CALLS | _VALUES, "refusal": _VALUES}
)
_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "delta": _DELTAS | _VALUES,
        "message": _DELTAS | _VALUES,
        "finish_reason": _TEXTS | _VALUES,
        "error": _VALUES,
    },
)
_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(_CHOICES, max_size=2) | _VALUES,
        "usage": _VALUES,
        "id": _VALUES,
        "model": _VALUES,
        "error": _VALUES,
    },
)
_LINES = st.builds(json.dumps, _EVENTS).map(str.encode) | st.binary(max_size=20) | st.just(b"[DONE] ")


@settings(max_examples=400, deadline=None)
@given(st.lists(_LINES, max_size=6), st.integers(1, 40), st.sampled_from([b"\n", b"\r\n"]))
def test_a_stream_of_anything_is_read_or_refused(lines: list[bytes], size: int, end: bytes) -> None:
    stream = b"".join(b"data: " + line + end + end for line in lines)
    reader, answer = EventReader(), ResponseReader()
    packets = [stream[start : start + size] for start in range(0, len(stream), size)]
    try:
        events = [event for packet in packets for event in reader.feed(packet)] + reader.end()
        said = "".join([answer.take(event) or "" for event in events])
        assert said + answer.end() == answer.text
    except (BrokenAnswer, EventTooLong):
        answer.end()
    _can_be_kept(answer)


@settings(max_examples=400, deadline=None)
@given(_LINES)
def test_a_whole_answer_of_anything_is_read_or_refused(body: bytes) -> None:
    answer = ResponseReader()
    try:
        assert answer.take_whole(body) == answer.text
    except BrokenAnswer:
        answer.end()
    _can_be_kept(answer)


def _can_be_kept(answer: ResponseReader) -> None:
    texts = [answer.text, answer.model, answer.response_id, answer.finish_reason]
    texts += [text for call in answer.tool_calls() for text in (call.id, call.name, call.arguments)]
    assert all(text == clean_text(text) for text in texts)
    assert meaning_of(answer.finish_reason) in ("good", "cut", "refused", "empty", "failed")
    assert answer.figures.usage(1, answer.said_bytes()).input_tokens > 0
