"""Answers that are read, judged and sent back: pure, no model asked."""

import json
from typing import Any

import pytest

from schema.language.steps import AgentStep, Reflect
from schema.language.tools import TOOLS
from schema.rules import answers
from schema.rules.answers import NotReadable
from schema.rules.planning import ANSWER, EXAMPLE, PLANNED_TOOLS, guide
from schema.rules.validate import validate

TOTAL = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}


def step(**fields: Any) -> AgentStep:
    return AgentStep.model_validate({"kind": "agent", "agent": "a", "prompt": "p", **fields})


def test_text_is_taken_as_it_is() -> None:
    assert answers.read(step(), "```json\n1\n```") == "```json\n1\n```"


@pytest.mark.parametrize("fields", [{"output_schema": TOTAL}, {"emits": "definition"}])
@pytest.mark.parametrize(
    "answer",
    ['{"total": 1}', ' \n{"total": 1}\n', '```json\n{"total": 1}\n```', '\n```\n{"total":1}\n```\n\n'],
)
def test_json_is_read_bare_or_in_one_fence(fields: dict[str, Any], answer: str) -> None:
    assert answers.read(step(**fields), answer) == {"total": 1}


WRAPPED = (
    '\ufeff{"total": 1}',
    '```json\r\n{"total": 1}\r\n```',
    '```json\n{"total": 1}```',
    '```\n{"total": 1}',
    '~~~JSON\n{"total": 1}\n~~~',
    '````json5\n{"total": 1}\n````',
    '`{"total": 1}`',
    '```json {"total": 1} ```',
    'Here: {"total": 1}. Fine?',
    'As in [1], it is {"total": 1}.',
    '<think>{"total": 3}?</think>\n{"total": 1}',
    'hm {"total": 3}\n</think>\n```json\n{"total": 1}\n```',
    '```python\nprint([2])\n```\n```json\n{"total": 1}\n```',
    'No: {"sum": 2}. Rather: {"total": 1}',
)


@pytest.mark.parametrize("answer", WRAPPED)
def test_json_is_read_in_whatever_a_model_wraps_it(answer: str) -> None:
    assert answers.read(step(output_schema=TOTAL), answer) == {"total": 1}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<think>hm",
        '{"total": 1} {"total": 2}',
        '<think>{"total": 1}',
        "[1] and [2]",
        "<think>" * 50_000,
        "<think></think>" * 50_000,
        "```json\n" * 50_000,
        "{" * 100_000,
        "```" + " " * 300_000 + "x",
    ],
)
def test_what_holds_no_answer_is_not_read(answer: str) -> None:
    with pytest.raises(NotReadable):
        answers.read(step(output_schema=TOTAL), answer)


def test_a_plan_is_read_out_of_prose_too() -> None:
    plan = json.dumps(EXAMPLE)
    for answer in (f"The plan:\n{plan}\nDone.", f"~~~\n{plan}~~~", f"<think>hm</think>{plan}"):
        assert answers.read(step(emits="definition"), answer) == EXAMPLE


def test_what_is_nearly_json_is_mended_where_the_step_says_so() -> None:
    mends = step(output_schema=TOTAL, reflect={"repair": True})
    for answer in ("{'total': 1,}", '{"total": 1', "Sure: {total: 1}", '```json\n{"total": 1,\n```'):
        assert answers.mended(mends, answer) == {"total": 1}
    for answer in ("no", '{"total": NaN}', "{" * 21 + "'" * 50, "{" + "'" * 2_000, "<think>{'total': 1}"):
        with pytest.raises(NotReadable):
            answers.mended(mends, answer)
    with pytest.raises(NotReadable):
        answers.mended(step(output_schema=TOTAL), "{'total': 1,}")


@pytest.mark.parametrize("fields", [{"output_schema": TOTAL}, {"emits": "definition"}])
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "total: 1",
        '{"total": NaN}',
        '{"total": 1e999}',
        "[" * 100_000,
        "```json\n{}\n```\n```json\n{}\n```",
    ],
)
def test_what_is_no_json_cannot_be_read(fields: dict[str, Any], answer: str) -> None:
    with pytest.raises(NotReadable):
        answers.read(step(**fields), answer)


def test_a_plan_with_a_key_twice_cannot_be_read() -> None:
    with pytest.raises(NotReadable, match="twice"):
        answers.read(step(emits="definition"), '{"name": "a", "name": "b"}')


@pytest.mark.parametrize(
    ("fields", "further"),
    [
        ({}, 0),
        ({"output_schema": TOTAL}, 2),
        ({"emits": "definition"}, 2),
        ({"reflect": {}}, 2),
        ({"output_schema": TOTAL, "reflect": {"max": 0}}, 0),
        ({"reflect": {"max": 5}}, 5),
    ],
)
def test_further_answers_are_asked_for_where_the_output_must_fit_something(
    fields: dict[str, Any], further: int
) -> None:
    assert answers.rules_of(step(**fields)) == Reflect(max=further)


def test_all_that_breaks_the_schema_is_told() -> None:
    schema = {"required": ["a"], "properties": {"b": {"type": "string"}, "c": {"minimum": 3}}}
    assert answers.faults(step(output_schema=schema), {"b": 1, "c": 2}, {}) == [
        '/: "a" is a required property',
        '/b: 1 is not of type "string"',
        "/c: 2 is less than the minimum of 3",
    ]


def test_expectations_are_only_asked_of_an_output_that_fits() -> None:
    asked = step(
        output_schema=TOTAL,
        reflect={
            "expect": [
                {"that": "output.total > input.least", "message": "More."},
                {"that": "output.total % 2 == 0", "message": "Even."},
            ]
        },
    )
    scope = {"input": {"least": 5}}
    assert answers.faults(asked, {"total": "6"}, scope) == ['/total: "6" is not of type "integer"']
    assert answers.faults(asked, {"total": 3}, scope) == ["More.", "Even."]
    assert answers.faults(asked, {"total": 7}, scope) == ["Even."]
    assert answers.faults(asked, {"total": 8}, scope) == []


def test_an_expectation_that_cannot_be_evaluated_is_not_met() -> None:
    def faults(that: str) -> list[str]:
        asked = step(reflect={"expect": [{"that": that, "message": "Give a total."}]})
        return answers.faults(asked, {"a": "x"}, {})

    [missing] = faults("output.total > 1")
    assert missing.startswith("Give a total. (")
    assert faults("output.a") == ["Give a total. (it came to x)"]


def test_every_problem_of_a_plan_is_told() -> None:
    plan = {"name": "p", "steps": {"a": {"kind": "transform", "value": "${steps.b.output}"}, "B": {}}}
    found = answers.faults(step(emits="definition"), plan, {})
    assert len(found) >= 2
    assert all(fault.startswith("/steps/") for fault in found)
    assert answers.faults(step(emits="definition"), EXAMPLE, {}) == []


def test_feedback_names_the_faults_and_has_an_end() -> None:
    text = answers.feedback([f"fault {number}" for number in range(25)], json_wanted=True)
    assert text.startswith("Your answer cannot be used as it is:\n- fault 0\n- fault 1\n")
    assert "- fault 19\n- and 5 more\n\n" in text
    assert text.endswith("with the whole corrected JSON and nothing else.")


def test_the_guide_shows_a_plan_that_is_valid_and_the_tools_of_plans() -> None:
    validate(EXAMPLE, planned=True)
    assert [name for name in TOOLS if f"  {name} {{" in guide()] == list(PLANNED_TOOLS)
    assert set(EXAMPLE) <= set(ANSWER["properties"])
