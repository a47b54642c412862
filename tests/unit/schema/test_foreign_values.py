"""Values that others wrote: one bound for who writes and who reads."""

import json
import logging
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import exc

from activities.guard import describe, translate
from db.isolation import Isolation, befalls_all
from schema.errors import InvalidDefinition, StepError
from schema.language import document
from schema.values.foreign import MAX_DEPTH, UnusableValue, clean_value, readable
from schema.values.foreign_json import NotJson, read_json
from schema.values.sizes import check_size


def nested(levels: int, inside: Any = 1) -> Any:
    for _ in range(levels):
        inside = [inside]
    return inside


UNUSABLE = {
    "NaN": float("nan"),
    "Infinity": {"a": float("inf")},
    "31 digits": [10**30],
    "31 digits below": -(10**30),
    "101 levels": nested(101),
    "a thousand levels": nested(100_000),
    "bytes": {"a": b"x"},
    "a set": {1},
}
USABLE = {
    "30 digits": 10**30 - 1,
    "100 levels": nested(100),
    "true": True,
    "null": None,
    "1e308": 1e308,
    "nothing": {},
    "text": "x",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_json_or_a_reader_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(UnusableValue, match=r"found .+"):
        clean_value(UNUSABLE[name])


@pytest.mark.parametrize("name", USABLE)
def test_what_everybody_can_hold_stays_as_it_is(name: str) -> None:
    assert clean_value(USABLE[name]) == USABLE[name]


def test_texts_and_keys_are_cleaned() -> None:
    assert clean_value({"a\0": ["\ud83d", "\ud83d\ude00"]}) == {"a": ["�", "😀"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**32), 10**32) | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_every_door_has_the_same_bounds(value: Any) -> None:
    """A value that passes one door passes the others, and is then what Postgres and UTF-8 can hold."""
    written = json.dumps(value)
    assert _reads(read_json, written) == _reads(clean_value, value)
    if _reads(clean_value, value):
        cleaned = clean_value(value)
        json.dumps(cleaned, ensure_ascii=False, allow_nan=False).encode()
        assert clean_value(cleaned) == cleaned


def _reads(door: Any, value: Any) -> bool:
    try:
        door(value)
    except (NotJson, UnusableValue):
        return False
    return True


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_a_level_counts_alike_at_every_door(levels: int) -> None:
    text, usable = json.dumps(nested(levels)), levels == MAX_DEPTH
    assert _reads(read_json, text) == _reads(clean_value, nested(levels)) == usable
    inners: tuple[Any, ...] = (1, [], {})
    for inner in inners:
        value = nested(levels - isinstance(inner, (list, dict)), inner)
        assert _fits(value) == usable
    try:
        document.load(text.encode(), max_depth=MAX_DEPTH)
        assert usable
    except InvalidDefinition:
        assert not usable


def _fits(value: Any) -> bool:
    try:
        check_size(value)
    except StepError:
        return False
    return True


def test_what_an_older_release_stored_deeper_can_be_read() -> None:
    assert readable(nested(100)) == nested(100)
    assert readable({"a": nested(300)}) == {"a": nested(99, "…")}


@pytest.mark.parametrize(
    ("error", "code", "retried"),
    [
        (psycopg.errors.UntranslatableCharacter("secret"), "output_invalid", False),
        (exc.DataError("SELECT secret", {}, psycopg.DataError("x")), "output_invalid", False),
        (psycopg.errors.StatementTooComplex("secret"), "output_invalid", False),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "secret"), "output_invalid", False),
        (RecursionError("secret"), "output_invalid", False),
        (psycopg.OperationalError("secret"), "database_unavailable", True),
        (OSError("secret"), "io_error", True),
        (KeyError("secret"), "internal_error", False),
        (RuntimeError("secret"), "internal_error", True),
        (StepError("tool_failed", "bad \0 char \ud83d"), "tool_failed", False),
    ],
)
def test_no_driver_speaks_in_an_error(error: Exception, code: str, retried: bool) -> None:
    told = translate(error)
    assert (getattr(told, "type", ""), getattr(told, "non_retryable", None)) == (code, not retried)
    _, message = describe(error)
    message.encode()
    assert "secret" not in message and "SELECT" not in message and "\0" not in message


def test_what_is_refused_names_the_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        _, message = describe(psycopg.errors.UntranslatableCharacter("secret"))
    assert f"under {caplog.records[0].__dict__['bug']}." in message


@given(st.sets(st.integers(0, 99)), st.integers(0, 100))
def test_a_batch_is_written_but_for_what_is_refused(bad: set[int], count: int) -> None:
    isolation, written = Isolation(range(count)), list[int]()
    for part in isolation:
        if bad & set(part):
            isolation.refuse(ValueError())
        else:
            written += part
    assert written == [one for one in range(count) if one not in bad]
    assert [one for one, _ in isolation.refused] == [one for one in range(count) if one in bad]
    assert isolation.left == []


def test_what_befalls_all_leaves_the_rest_for_the_next_time() -> None:
    isolation, written = Isolation(range(8)), list[int]()

    def write() -> None:
        for part in isolation:
            if 6 in part:
                isolation.refuse(ValueError() if len(part) > 2 else psycopg.OperationalError())
            else:
                written.extend(part)

    with pytest.raises(psycopg.OperationalError):
        write()
    assert (written, isolation.left) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert befalls_all(psycopg.OperationalError()) and befalls_all(OSError()) and not befalls_all(KeyError())
