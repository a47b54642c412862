"""A number is what its schema calls it, however it was written."""

from typing import Any

import pytest

from schema.language.json_numbers import as_declared
from schema.language.steps import AgentStep
from schema.rules.answers import read

NUMBER, INTEGER = {"type": "number"}, {"type": "integer"}


def exactly(value: Any) -> str:
    """1 and 1.0 are equal, and must be told apart here."""
    return repr(value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (NUMBER, 1, 1.0),
        (NUMBER, 1.5, 1.5),
        (NUMBER, True, True),
        (NUMBER, "1", "1"),
        (NUMBER, 2**53 + 1, 2**53 + 1),
        (INTEGER, 1.0, 1),
        (INTEGER, 1.5, 1.5),
        (INTEGER, 1e300, 1e300),
        ({}, [1, 1.0], [1, 1.0]),
        ({"type": ["number", "null"]}, 1, 1.0),
        ({"anyOf": [INTEGER, NUMBER]}, 1, 1.0),
        ({"anyOf": [{"type": "null"}, INTEGER]}, 1.0, 1),
        ({"$ref": "#/$defs/score", "$defs": {"score": NUMBER}}, 1, 1.0),
        ({"if": {"type": "string"}, "else": NUMBER}, 1, 1.0),
        ({"properties": {"a": NUMBER}}, {"a": 1, "b": 1}, {"a": 1.0, "b": 1}),
        (
            {"properties": {"a": {"type": "string"}}, "additionalProperties": NUMBER},
            {"a": 1, "b": 1},
            {"a": 1, "b": 1.0},
        ),
        ({"patternProperties": {"^x": NUMBER}}, {"x1": 1}, {"x1": 1.0}),
        ({"items": NUMBER}, [1, [1]], [1.0, [1]]),
        ({"prefixItems": [INTEGER], "items": NUMBER}, [1.0, 1], [1, 1.0]),
        (
            {"allOf": [{"properties": {"a": {"items": {"properties": {"b": NUMBER}}}}}]},
            {"a": [{"b": 1}]},
            {"a": [{"b": 1.0}]},
        ),
        (True, 1, 1),
    ],
)
def test_numbers_are_read_as_declared(schema: Any, value: Any, expected: Any) -> None:
    assert exactly(as_declared(schema, value)) == exactly(expected)


@pytest.mark.parametrize("answer", ['{"score": 1, "rank": 2}', '{"score": 1.0, "rank": 2.0}'])
def test_an_answer_is_the_same_however_its_numbers_are_written(answer: str) -> None:
    schema = {"type": "object", "properties": {"score": NUMBER, "rank": INTEGER}}
    step = AgentStep.model_validate({"kind": "agent", "agent": "a", "prompt": "p", "output_schema": schema})
    assert exactly(read(step, answer)) == exactly({"score": 1.0, "rank": 2})
