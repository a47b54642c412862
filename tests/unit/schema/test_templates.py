from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.cel.expressions import ExpressionInvalid
from schema.language.templates import Part, as_text, count, escape, expressions, render, split

SCOPE = {"input": {"n": 3, "text": "hi", "list": [1, "a"], "none": None}, "steps": {}, "run": {}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("${a}", [("a",)]),
        ("x ${ a } y", ["x ", ("a",), " y"]),
        ("${a}${b}", [("a",), ("b",)]),
        ("$${a}", ["${a}"]),
        ("$$${a}", ["$${a}"]),
        ("a $ b $5", ["a $ b $5"]),
        ("${ {'a': {'b': 1}} }", [("{'a': {'b': 1}}",)]),
        ("${'}'}", [("'}'",)]),
        ('${"\\"}"}!', [('"\\"}"',), "!"]),
        ("${'$'}${a}", [("'$'",), ("a",)]),
    ],
)
def test_split(text: str, parts: list[Part]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize("text", ["${", "${a", "${'}", "${{}", 'a ${"}'])
def test_unclosed(text: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        split(text)
    assert caught.value.code == "expression_syntax"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${input.n}", 3),
        ("n = ${input.n}", "n = 3"),
        ("${input.list}", [1, "a"]),
        ("list: ${input.list}", 'list: [\n  1,\n  "a"\n]'),
        ("${input.none}.", "null."),
        ("${input.text}", "hi"),
        ({"a": ["${input.n}", {"b": "x${input.text}"}], "c": 1}, {"a": [3, {"b": "xhi"}], "c": 1}),
        ("$${input.n}", "${input.n}"),
    ],
)
def test_render(value: Any, result: Any) -> None:
    assert render(value, SCOPE) == result


def test_expressions_are_found_in_order_with_their_places() -> None:
    value = {"a/b": ["${1}", {"~": "x${2}${3}"}], "c": "${4}", "d": "$${5}"}
    assert list(expressions(value, "/p")) == [
        ("/p/a~1b/0", "1"),
        ("/p/a~1b/1/~0", "2"),
        ("/p/a~1b/1/~0", "3"),
        ("/p/c", "4"),
    ]


def test_counting_passes_over_what_is_unclosed() -> None:
    assert count({"a": "${", "b": ["${12}${3}"]}, 10) == (2, 3)
    assert count("${1}" * 11, 10) == (11, 44)


_LITERAL = st.text(st.sampled_from("ab{}'\" \\é"), min_size=1)
_EXPRESSION = st.sampled_from(["a", "1", "'}'", "{'a': 1}", '"\\""'])


@given(st.lists(_LITERAL | st.tuples(_EXPRESSION), max_size=6))
def test_split_gives_back_what_was_put_together(parts: list[Part]) -> None:
    joined: list[Part] = []
    for part in parts:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    text = "".join(part if isinstance(part, str) else f"${{{part[0]}}}" for part in joined)
    assert split(text) == joined


@given(st.text(st.sampled_from("ab${}'\"\\"), max_size=12))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        parts = split(text)
    except ExpressionInvalid:
        return
    if "${" not in text:
        assert "".join(str(part) for part in parts) == text


@pytest.mark.parametrize(("key", "pointer"), [("a", "a"), ("a/b", "a~1b"), ("~", "~0"), ("~1", "~01")])
def test_escape(key: str, pointer: str) -> None:
    assert escape(key) == pointer


def test_text_of_a_value() -> None:
    assert [as_text(value) for value in ("é", 1.5, True, None, {"é": 1})] == [
        "é",
        "1.5",
        "true",
        "null",
        '{\n  "é": 1\n}',
    ]
