import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.errors import InvalidDefinition
from schema.language.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_YAML_BYTES, load


def code(data: bytes, *, is_yaml: bool = False) -> tuple[str, str]:
    with pytest.raises(InvalidDefinition) as caught:
        load(data, is_yaml=is_yaml)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    return problem.code, problem.found


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'[1, 2.5, true, null, "\\u00e9"]', [1, 2.5, True, None, "é"]),
        (b"9" * 30, int("9" * 30)),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    ],
)
def test_json_is_read(data: bytes, value: Any) -> None:
    assert value is None or load(data) == value
    load(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b" " * (MAX_BYTES + 1), ("document_too_large", f"{MAX_BYTES + 1:,} bytes")),
        (b"[" + b"0," * MAX_VALUES + b"0]", ("document_too_large", f"more than {MAX_VALUES:,} values")),
        (b"[" * 41 + b"]" * 41, ("document_too_deep", "more than 40 levels of nesting")),
        (b"[" * 100_000, ("document_too_deep", "more than 40 levels of nesting")),
        (b'{"a": {"b": 1, "b": 2}}', ("document_duplicate_key", "the key 'b' twice in one object")),
        (b"[NaN]", ("document_bad_number", "the number NaN")),
        (b"[-Infinity]", ("document_bad_number", "the number -Infinity")),
        (b"[1e999]", ("document_bad_number", "the number 1e999")),
        (b"9" * 31, ("document_bad_number", "the number " + "9" * 31)),
        (b'"\\u0000"', ("document_bad_text", "a NUL character or half a surrogate pair in a string")),
        (b'{"\\ud800": 1}', ("document_bad_text", "a NUL character or half a surrogate pair in a string")),
        (b"[\xff]", ("document_bad_text", "bytes that are not UTF-8 at offset 1")),
        (b"", ("document_not_json", "Expecting value at line 1, column 1")),
        (b'{"a": }', ("document_not_json", "Expecting value at line 1, column 7")),
        (b"{}\n{}", ("document_not_json", "Extra data at line 2, column 1")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_json_is_refused(data: bytes, expected: tuple[str, str]) -> None:
    assert code(data) == expected


def test_yaml_values_are_those_of_json() -> None:
    text = b"""
a: no
b: 1:30
c: 0777
d: 2020-01-01
e: ~
f:
g: true
h: 1.5
i: -3
j: 1e3
k: "5"
l: [x, {y: z}]
1: text keys
yes: text keys
<<: {m: 1}
n: |
  two
  lines
"""
    assert load(text, is_yaml=True) == {
        "a": "no",
        "b": "1:30",
        "c": "0777",
        "d": "2020-01-01",
        "e": None,
        "f": None,
        "g": True,
        "h": 1.5,
        "i": -3,
        "j": 1000.0,
        "k": "5",
        "l": ["x", {"y": "z"}],
        "1": "text keys",
        "yes": "text keys",
        "<<": {"m": 1},
        "n": "two\nlines\n",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1", ("document_not_json", "the YAML anchor or alias 'x'")),
        ("a: *x", ("document_not_json", "the YAML anchor or alias 'x'")),
        ("a: !!binary aGVsbG8=", ("document_not_json", "the YAML tag 'tag:yaml.org,2002:binary'")),
        ("a: !!int x", ("document_not_json", "the YAML tag 'tag:yaml.org,2002:int'")),
        ("!!map x", ("document_not_json", "the YAML tag 'tag:yaml.org,2002:map'")),
        ("? [a]\n: b", ("document_not_json", "a list or a map as a key at line 1")),
        ("--- a\n--- b", ("document_not_json", "but found another document at line 2, column 1")),
        ("a: 1\na: 2", ("document_duplicate_key", "the key 'a' twice in one object")),
        ("1: a\n'1': b", ("document_duplicate_key", "the key '1' twice in one object")),
        ("a: .inf", ("document_bad_number", "the number .inf")),
        ("a: " + "9" * 6_000, ("document_bad_number", "the number " + "9" * 40)),
        ('a: "\\0"', ("document_bad_text", "a NUL character or half a surrogate pair in a string")),
        ("[" * 50_000, ("document_too_deep", "more than 40 levels of nesting")),
        ("a" * (MAX_YAML_BYTES + 1), ("document_too_large", f"{MAX_YAML_BYTES + 1:,} bytes")),
        ("- a\n" * 16_000, ("document_too_large", "more than 10,000 values")),
    ],
)
def test_yaml_is_refused(text: str, expected: tuple[str, str]) -> None:
    assert code(text.encode(), is_yaml=True) == expected


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, is_yaml: bool) -> None:
    codes: list[str] = []
    try:
        load(data, is_yaml=is_yaml)
    except InvalidDefinition as error:
        codes = [problem.code for problem in error.problems]
    assert all(code.startswith("document_") for code in codes)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(_JSON)
@settings(max_examples=60)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert load(json.dumps(value).encode()) == value
