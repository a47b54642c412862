"""Structured answers are valid under the schema that was asked for, whatever it is."""

import json
import random
from collections.abc import Mapping

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.simulator.answers import answer_text
from infra.simulator.conform import Hint, conforming, nothing

CASES: dict[str, Mapping[str, object]] = {
    "nested": {
        "type": "object",
        "additionalProperties": False,
        "required": ["files", "meta"],
        "properties": {
            "meta": {
                "type": "object",
                "required": ["tags"],
                "properties": {
                    "tags": {
                        "type": "array",
                        "items": {"type": "string", "maxLength": 4},
                        "minItems": 2,
                        "uniqueItems": True,
                    }
                },
            },
            "files": {
                "type": "array",
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "required": ["path"],
                    "properties": {"path": {"type": "string", "minLength": 30}},
                },
            },
        },
    },
    "numbers": {
        "type": "object",
        "properties": {
            "quality": {"type": "integer", "minimum": 1, "maximum": 10},
            "score": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "step": {"type": "number", "multipleOf": 0.5, "minimum": 2, "maximum": 3},
            "low": {"type": "integer", "maximum": -5},
        },
    },
    "recursive": {
        "$defs": {
            "node": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
            }
        },
        "$ref": "#/$defs/node",
    },
    "alternatives": {
        "type": "object",
        "required": ["a", "b", "c"],
        "properties": {
            "a": {"anyOf": [{"type": "null"}, {"type": "string", "enum": ["x", "y"]}]},
            "b": {"allOf": [{"type": "object", "required": ["p"]}, {"properties": {"p": {"const": 7}}}]},
            "c": {"type": ["integer", "null"]},
        },
    },
    "formats": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "id": {"type": "string", "format": "uuid"},
            "slug": {"type": "string", "pattern": "^[a-z]+-[0-9]+$"},
        },
    },
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"const": "x"}],
        "items": False,
        "minItems": 2,
    },
    "free map": {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
    "required only": {"type": "object", "required": ["found_issues"]},
    "unique enum": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
    "enum of values": {"enum": [None, 3, {"a": 1}]},
    "empty list": {"type": "object", "properties": {"issues": {"type": "array", "maxItems": 0, "items": {}}}},
    "issues as text": {
        "type": "object",
        "properties": {"issues": {"type": "array", "items": {"type": "string"}}},
    },
    "issues wanted": {
        "type": "object",
        "properties": {
            "issues": {
                "type": "array",
                "minItems": 4,
                "items": {
                    "type": "object",
                    "required": ["severity", "line"],
                    "properties": {
                        "severity": {"enum": ["blocker", "nit"]},
                        "line": {"type": "integer", "minimum": 1},
                    },
                },
            }
        },
    },
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_valid(name: str, seed: int) -> None:
    schema = dict(CASES[name])
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    messages = [{"role": "user", "content": "Review main.py:3:1: E501 line too long and TBD plans"}]
    text = answer_text(seed, "openai/gpt-4o-mini", messages, form)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(json.loads(text))
    assert text == answer_text(seed, "openai/gpt-4o-mini", messages, form)


def _number(kind: str, low: int, more: int) -> dict[str, object]:
    return {"type": kind, "minimum": low, "maximum": low + more}


def _list_of(items: object, low: int, more: int) -> dict[str, object]:
    return {"type": "array", "items": items, "minItems": low, "maxItems": low + more}


def _schemas() -> st.SearchStrategy[dict[str, object]]:
    low, more = st.integers(-20, 20), st.integers(0, 9)
    words = st.lists(st.sampled_from(["low", "high", 1, None, False]), min_size=1)
    leaves = st.one_of(
        st.builds(_number, st.sampled_from(["integer", "number"]), low, more),
        st.builds(
            lambda least, most: {"type": "string", "minLength": least, "maxLength": least + most},
            st.integers(0, 60),
            st.integers(0, 40),
        ),
        st.builds(lambda values: {"enum": values}, words),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
    )
    names = st.sampled_from(["issues", "quality", "severity", "found_issues", "summary", "code", "line", "x"])

    def nest(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
        lists = st.builds(_list_of, inner, st.integers(0, 3), st.integers(0, 3))
        objects = st.dictionaries(names, inner, max_size=5).map(
            lambda parts: {"type": "object", "properties": parts, "required": list(parts)}
        )
        return st.one_of(lists, objects)

    return st.recursive(leaves, nest, max_leaves=8)


@settings(max_examples=300, deadline=None)
@given(schema=_schemas(), seed=st.integers(0, 1000))
def test_any_schema_of_the_common_words_is_met(schema: dict[str, object], seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    text = answer_text(seed, "ollama/llama3.2", [{"role": "user", "content": "assess eval(x) == None"}], form)
    jsonschema_rs.validator_for(schema).validate(json.loads(text))


def test_a_hint_that_does_not_fit_is_left_aside() -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer", "maximum": 5}}}
    for hinted, low, high in (("many", -5, 5), (3, 3, 3), (99, 5, 5)):
        values: dict[str, object] = {"count": hinted}
        value = conforming(schema, random.Random(1), _hint_from(values))
        assert isinstance(value, dict)
        assert low <= value["count"] <= high


def _hint_from(values: Mapping[str, object]) -> Hint:
    return lambda name, _schema: values.get(name, nothing)


def test_an_allowed_word_of_the_prompt_is_preferred() -> None:
    schema = {
        "type": "object",
        "properties": {"language": {"type": "string", "enum": ["go", "rust", "python"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    messages = [{"role": "user", "content": "Classify: a parser in rust"}]
    assert json.loads(answer_text(0, "m/m", messages, form)) == {"language": "rust"}


def test_json_without_a_schema_is_an_object() -> None:
    text = answer_text(0, "m/m", [{"role": "user", "content": "hello"}], {"type": "json_object"})
    assert set(json.loads(text)) == {"answer"}
