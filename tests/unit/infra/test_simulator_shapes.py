"""What the simulator writes is what the OpenAI API document says.

The document cannot be fetched here; the types of the `openai` package are generated from it. They let unknown
fields pass, so these tests look for them.
"""

import json
from collections.abc import Iterator
from typing import TypeVar

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError

from infra.simulator.faults import parse_rule
from infra.simulator.ledger import Ledger
from infra.simulator.reply import compose
from infra.simulator.wire import Reply, error_of

Shape = TypeVar("Shape", bound=BaseModel)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string"}, "most": {"type": "integer"}},
            },
        },
    }
]
USER = [{"role": "user", "content": 'Say "grün" 🌍 and look up the word: tree.'}]
CASES: dict[str, tuple[dict[str, object], object]] = {
    "text": ({}, None),
    "cut": ({"max_tokens": 3}, None),
    "tools": ({"tools": TOOLS}, None),
    "cut tools": ({"tools": TOOLS, "max_completion_tokens": 2}, None),
    "JSON": ({"response_format": {"type": "json_object"}}, None),
    "filtered": ({}, {"kind": "refusal", "after_tokens": 2}),
    "without usage": ({}, {"kind": "no_usage"}),
    "scripted tools": (
        {},
        {
            "kind": "tool_call",
            "text": "Let me see.",
            "tool_calls": [
                {"name": "a", "arguments": {"x": [1, {"y": "z"}]}},
                {"name": "b", "arguments": "{broken"},
            ],
        },
    ),
    "empty": ({}, {"kind": "answer"}),
}


def strictly(shape: type[Shape], document: object) -> Shape:
    """The document as that shape, with every field known."""
    found = TypeAdapter(shape).validate_json(json.dumps(document), strict=True)
    unknown = list(_unknown(found))
    assert unknown == []
    return found


def _unknown(value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name))
    if isinstance(value, list):
        for each in value:
            yield from _unknown(each)


def _reply(name: str, *, stream: bool) -> Reply:
    more, rule = CASES[name]
    call = Ledger().begin("openai/gpt-4o")
    call.stream = stream
    body = {"messages": USER, "model": call.model, "stream_options": {"include_usage": True}, **more}
    return compose(0, body, call, 7, parse_rule(rule) if rule else None)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_in_one_piece(name: str) -> None:
    reply = _reply(name, stream=False)
    answer = strictly(ChatCompletion, json.loads(reply.whole()))
    assert answer.choices[0].finish_reason == reply.finish_reason
    assert (answer.usage is None) == (name == "without usage")
    if answer.usage is not None:
        assert answer.usage.completion_tokens == len(reply.tokens)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_stream_says_the_same(name: str, size: int) -> None:
    reply = _reply(name, stream=True)
    events = [reply.opening()]
    for first in range(0, len(reply.tokens), 5):
        events += reply.events(first, min(first + 5, len(reply.tokens)), size)
    events += reply.closing()
    assert all(event.startswith("data: ") and event.endswith("}\n\n") for event in events)
    chunks = [strictly(ChatCompletionChunk, json.loads(event[6:])) for event in events]

    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        (reply.call.id, reply.created, "openai/gpt-4o")
    }
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + [reply.finish_reason]
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(usages) == (0 if name == "without usage" else 1)
    if usages:
        assert chunks[-1].choices == []

    whole = ChatCompletion.model_validate_json(reply.whole()).choices[0].message
    assert "".join(delta.content or "" for delta in deltas) == (whole.content or "")
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for part in delta.tool_calls or []:
            assert part.function is not None
            if part.function.name is not None:
                # The name comes first, with id and type; only arguments follow.
                assert part.index not in calls and part.id and part.type == "function"
                calls[part.index] = [part.id, part.function.name]
            else:
                assert part.id is None and part.type is None
            calls[part.index].append(part.function.arguments or "")
    told = [
        [i, call.id, call.function.name, call.function.arguments]
        for i, call in enumerate(whole.tool_calls or [])
        if call.type == "function"
    ]
    assert [[i, p[0], p[1], "".join(p[2:])] for i, p in calls.items()] == told
    assert bool(told) == ("tools" in name)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
def test_an_error(status: int) -> None:
    strictly(ErrorObject, error_of(status, "some_code", "What was wrong."))


def test_the_judge_of_shapes_sees_what_is_wrong() -> None:
    answer = json.loads(_reply("text", stream=False).whole())
    with pytest.raises(AssertionError):
        strictly(ChatCompletion, answer | {"surprise": 1})
    answer["choices"][0]["message"]["surprise"] = 1
    with pytest.raises(AssertionError):
        strictly(ChatCompletion, answer)
    del answer["choices"][0]["finish_reason"]
    with pytest.raises(ValidationError):
        strictly(ChatCompletion, answer)
