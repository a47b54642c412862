"""Differences of definitions: by step, agent and input field, and what breaks callers."""

from typing import Any

import pytest

from schema.language.diff import ChangedPart, FieldChange, InputBreak, changes, difference, unified


def test_differences_are_found_where_they_are() -> None:
    before = {"a": 1, "b": {"c/d": [1, 2]}, "gone": None, "same": True}
    after = {"a": True, "b": {"c/d": [1, 3, 4]}, "same": True, "new": "x"}
    assert list(changes(before, after)) == [
        FieldChange("replace", "/a", 1, True),
        FieldChange("replace", "/b/c~1d/1", 2, 3),
        FieldChange("add", "/b/c~1d/2", None, 4),
        FieldChange("remove", "/gone"),
        FieldChange("add", "/new", None, "x"),
    ]


def _with(**parts: Any) -> dict[str, Any]:
    return {"name": "d", "steps": {"a": {"kind": "transform", "value": 1}}} | parts


def test_steps_and_agents_are_compared_by_name() -> None:
    before = _with(
        agents={"x": {"role": "coder"}, "y": {"role": "tester"}},
        steps={"a": {"kind": "transform", "value": 1}, "b": {"kind": "transform", "value": 2}},
        description="old",
    )
    after = _with(
        agents={"y": {"role": "tester", "temperature": 1.0}},
        steps={"c": {"kind": "tool", "tool": "http"}, "a": {"kind": "transform", "value": {"v": 1}}},
    )
    found = difference(before, after)
    assert found.steps == [
        ChangedPart("a", "changed", "transform", [FieldChange("replace", "/steps/a/value", 1, {"v": 1})]),
        ChangedPart("b", "removed", "transform"),
        ChangedPart("c", "added", "tool"),
    ]
    assert found.agents == [
        ChangedPart("x", "removed", "agent"),
        ChangedPart("y", "changed", "agent", [FieldChange("add", "/agents/y/temperature", None, 1.0)]),
    ]
    assert found.rest == [FieldChange("remove", "/description", "old")]
    assert (found.input, found.breaking) == ([], [])


def test_steps_of_bodies_are_steps_of_their_own() -> None:
    inner = {"kind": "transform", "value": "${item}"}
    each = {"kind": "map", "over": "input.list", "max_items": 9, "body": {"steps": {"inner": inner}}}
    wider = each | {"max_items": 10, "body": {"steps": {"inner": inner | {"value": "${index}"}}}}
    found = difference(_with(steps={"each": each}), _with(steps={"each": wider}))
    assert found.steps == [
        ChangedPart("each", "changed", "map", [FieldChange("replace", "/steps/each/max_items", 9, 10)]),
        ChangedPart(
            "inner",
            "changed",
            "transform",
            [FieldChange("replace", "/steps/each/body/steps/inner/value", "${item}", "${index}")],
        ),
    ]


def test_a_step_that_moved_into_a_body_is_no_new_one() -> None:
    step = {"kind": "transform", "value": 1}
    loop = {"kind": "loop", "max_iterations": 2, "body": {"steps": {"a": step}}}
    found = difference(_with(steps={"a": step}), _with(steps={"again": loop}))
    path = "/steps/again/body/steps/a"
    assert found.steps == [
        ChangedPart("a", "changed", "transform", [FieldChange("move", path, "/steps/a", path)]),
        ChangedPart("again", "added", "loop"),
    ]


def test_the_same_is_no_difference_whatever_the_order() -> None:
    one = _with(description="x", agents={"y": {"role": "coder", "temperature": 1.0}})
    two = dict(reversed(one.items())) | {"$schema": "elsewhere.json"}
    assert difference(one, two).empty
    assert unified(one, one, "a", "b") == ""


@pytest.mark.parametrize(
    ("before", "after", "breaking"),
    [
        ({"required": ["a"]}, {"required": ["a", "b"]}, ["/input/required: the field 'b' must be given"]),
        ({}, {"required": ["b"], "properties": {"b": {"default": 1}}}, []),
        ({"required": ["a"]}, {}, []),
        (
            {"properties": {"a": {"type": ["string", "null"]}}},
            {"properties": {"a": {"type": "string"}}},
            ["/input/properties/a/type: null is no longer accepted"],
        ),
        ({"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"type": "number"}}}, []),
        (
            {"properties": {"a": {"type": "number"}}},
            {"properties": {"a": {"type": "integer"}}},
            ["/input/properties/a/type: number is no longer accepted"],
        ),
        ({"properties": {"a": {"type": "string"}}}, {"properties": {"a": {}}}, []),
        (
            {"properties": {"a": {"enum": ["x", "y"]}}},
            {"properties": {"a": {"enum": ["y", "z"]}}},
            ['/input/properties/a/enum: "x" is no longer accepted'],
        ),
        (
            {"properties": {"a": {"type": "string"}}},
            {"properties": {"a": {"type": "string", "enum": ["x"]}}},
            ["/input/properties/a/enum: other values are no longer accepted"],
        ),
        (
            {"properties": {"a": {"items": {"required": []}}}},
            {"properties": {"a": {"items": {"required": ["k"], "properties": {"k": {"default": 1}}}}}},
            ["/input/properties/a/items/required: the field 'k' must be given"],
        ),
        (
            {"properties": {"a": {}}},
            {"properties": {"b": {}}, "additionalProperties": False},
            ["/input/properties/a: the field 'a' is no longer accepted"],
        ),
        ({"properties": {"a": {}}}, {"properties": {}}, []),
        ({"properties": {"a": True}}, {"properties": {"a": False}}, []),
    ],
)
def test_inputs_that_no_longer_fit_are_told(before: Any, after: Any, breaking: list[str]) -> None:
    found = difference(_with(input={"type": "object"} | before), _with(input={"type": "object"} | after))
    assert [f"{one.path}: {one.reason}" for one in found.breaking] == breaking


def test_an_input_schema_that_was_left_out_takes_any_object() -> None:
    after = _with(input={"type": "object", "required": ["a"]})
    assert difference(_with(), after).breaking == [
        InputBreak("/input/required", "the field 'a' must be given")
    ]
    assert difference(_with(), _with(input={"type": "object"})).input == []
