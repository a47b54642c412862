"""What strangers send at every door, drawn by hypothesis: near to what is meant, and often wrong."""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

TYPES: Final = ("application/json", "application/json", "text/plain", "application/x-www-form-urlencoded", "")
STATUSES: Final = (200, 200, 200, 200, 200, 200, 400, 401, 404, 429, 500, 503)


@dataclass(frozen=True)
class Case:
    door: str
    data: bytes
    """What the stranger sends there."""
    definition: str = "echo"
    status: int = 200
    content_type: str = "application/json"


def _mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is usual eight times of ten: a case with a fault everywhere comes no further than the first."""
    return st.sampled_from([usual] * 8 + [other] * 2).flatmap(lambda chosen: chosen)


def _quoted(text: str) -> str:
    """A JSON string in which escapes stand as they are."""
    return '"' + re.sub(r'["\x00-\x1f]|\\\\(?!u)', " ", text) + '"'


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"


def _nested(levels: int, inner: str) -> str:
    return "[" * levels + inner + "]" * levels


def _values(numbers: st.SearchStrategy[str], keys: list[str], depths: list[int]) -> st.SearchStrategy[str]:
    """JSON, written out."""
    return st.recursive(
        st.one_of(st.sampled_from(["null", "true", "false", "{}", "[]"]), numbers, _TEXTS.map(_quoted)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
            st.lists(st.tuples(st.sampled_from(keys), inner), max_size=4).map(_object),
            st.builds(_nested, st.sampled_from(depths), inner),
        ),
        max_leaves=6,
    )


_TEXTS: Final = st.one_of(
    st.text(st.characters(), max_size=20),
    st.sampled_from(
        [
            "\\ud83d",
            "\\ude00",
            "\\ud83d\\ude00",
            "\\u0000",
            "😀",
            "\\u2028",
            "\\u202e",
            "```json",
            "<think>",
            "${x}",
        ]
    ),
)
_NUMBERS: Final = st.one_of(
    st.integers(-(10**30) + 1, 10**30 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "0.0", "1.0", "1e-999", "18446744073709551616"]),
)
_NO_NUMBERS: Final = st.sampled_from(["NaN", "-Infinity", "1e999", "01", "9" * 31, "9" * 5_000, "-"])
_VALID: Final = _values(_NUMBERS, ["a", "b", "c", "task", "text"], [1, 3, 30])
_WILD: Final = _values(
    _NUMBERS | _NO_NUMBERS, ["a", "a", "\\u0000", "\\ud83d"], [39, 41, 99, 101, 254, 256, 1_200, 20_000]
)
_JSON: Final = _mostly(_VALID, _WILD)


def _written(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_BYTES: Final = _mostly(
    _JSON.map(_written),
    st.one_of(
        st.tuples(_JSON, st.integers(1, 30)).map(lambda one: _written(one[0])[: -one[1]]),
        _JSON.map(lambda text: b"\xef\xbb\xbf" + _written(text)),
        st.binary(max_size=40),
    ),
)
_OBJECTS: Final = _mostly(_BYTES.map(lambda data: b'{"a": %s}' % data), _BYTES)


def _hole(usual: Any) -> st.SearchStrategy[str]:
    """Mostly what stands there usually."""
    return _mostly(st.just(json.dumps(usual)), _JSON)


_ANSWER: Final = _TEXTS | _JSON
_USAGE: Final = st.builds(
    lambda into, out: f'{{"prompt_tokens": {into}, "completion_tokens": {out}}}', _hole(10), _hole(5)
)
_CALL: Final = st.builds(
    lambda id, name, arguments: (
        f'[{{"id": {id}, "type": "function", '
        f'"function": {{"name": {name}, "arguments": {json.dumps(arguments)}}}}}]'
    ),
    _hole("call-1"),
    _hole("text_diff"),
    _JSON,
)
_FACTS: Final = st.tuples(
    _hole("resp-1"), _hole("m"), _hole("stop"), _mostly(_USAGE, _hole(None)), st.booleans()
)


def _whole(facts: tuple[str, str, str, str, bool], answer: str, calls: str) -> bytes:
    id, model, finish, usage, asks = facts
    told = f'"tool_calls": {calls}' if asks else f'"content": {json.dumps(answer)}'
    choice = f'{{"index": 0, "message": {{"role": "assistant", {told}}}, "finish_reason": {finish}}}'
    return _written(f'{{"id": {id}, "model": {model}, "choices": [{choice}], "usage": {usage}}}')


def _events(facts: tuple[str, str, str, str, bool], answer: str, calls: str, cuts: list[int]) -> bytes:
    """The same in events, the text cut anywhere, also between the halves of a character."""
    id, model, finish, usage, asks = facts
    written = answer.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(written), *(2 * (cut % (len(written) // 2 + 1)) for cut in cuts)})
    parts = [written[a:b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(places)]
    deltas = (
        [f'{{"tool_calls": {calls}}}'] if asks else [f'{{"content": {json.dumps(one)}}}' for one in parts]
    )
    head = f'"id": {id}, "model": {model}, '
    choices = [f'{head}"choices": [{{"index": 0, "delta": {delta}}}]' for delta in deltas]
    choices.append(f'{head}"choices": [{{"index": 0, "delta": {{}}, "finish_reason": {finish}}}]')
    choices.append(f'{head}"choices": [], "usage": {usage}')
    return _written("".join(f"data: {{{one}}}\n\n" for one in choices) + "data: [DONE]\n\n")


_CUTS: Final = st.lists(st.integers(0, 200), max_size=4)
_KINDS: Final = st.sampled_from(["agent-text", "agent-json", "agent-tools"])
_STATUS: Final = st.sampled_from(STATUSES)


def _case(door: str, data: st.SearchStrategy[bytes], **more: Any) -> st.SearchStrategy[Case]:
    return st.builds(Case, st.just(door), data, **more)


DOORS: Final = {
    "input": _case("input", _OBJECTS),
    "body": _case(
        "body",
        _OBJECTS.map(lambda data: b'{"definition": "echo", "input": %s}' % data) | _BYTES,
        content_type=st.sampled_from(TYPES),
    ),
    "temporal": _case("temporal", _OBJECTS),
    "webhook": _case("webhook", _OBJECTS, content_type=st.sampled_from(TYPES)),
    "websocket": _case(
        "websocket", _mostly(_OBJECTS.map(lambda data: b'{"type": "start", "input": %s}' % data), _BYTES)
    ),
    "whole": _case(
        "provider",
        _mostly(st.builds(_whole, _FACTS, _ANSWER, _CALL), _BYTES),
        definition=_KINDS,
        status=_STATUS,
    ),
    "stream": _case(
        "provider",
        _mostly(st.builds(_events, _FACTS, _ANSWER, _CALL, _CUTS), _BYTES),
        definition=_KINDS,
        content_type=st.just("text/event-stream"),
    ),
    "page": _case(
        "page", _BYTES, definition=st.just("page"), status=_STATUS, content_type=st.sampled_from(TYPES)
    ),
    "activity": _case("activity", _BYTES, definition=st.just("activity")),
    "parse": _case("parse", _BYTES, definition=st.just("parse")),
}


def draw(number: int, starts_with: int) -> list[Case]:
    """So many cases, of every door equally many."""
    found: list[Case] = []
    for at, strategy in enumerate(DOORS.values()):
        found += _drawn(strategy, -(-(number - at) // len(DOORS)), starts_with)
    return found


def _drawn(strategy: st.SearchStrategy[Case], number: int, starts_with: int) -> list[Case]:
    found: list[Case] = []

    @seed(starts_with)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    # Of a door with few examples hypothesis stops early.
    return [found[at % len(found)] for at in range(number)]
