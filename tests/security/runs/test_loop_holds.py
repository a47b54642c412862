"""What foreign text may take of a process that also does other things: nothing can interrupt these calls."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from activities.agent import judge, live_source
from activities.tools import text
from activities.values import checked_output
from gateway.sse import EventReader
from router.data.task import analyze_task
from schema.cel.expressions import compile_expression, evaluate
from schema.errors import StepError
from schema.language.json_schemas import faults, schema_fault, violations
from schema.language.steps import AgentStep
from schema.language.templates import render
from schema.rules import answers
from schema.rules.catalogue import looks_like_key
from tests.support.processor_time import within

MIB = 1024 * 1024
LIMIT_SECONDS = 0.2
"""Of processor time: twice the 100 ms that a loop may be held, for machines that are slow or busy."""


def _tool_refuses(call: Callable[[], object]) -> str:
    with pytest.raises(StepError) as caught:
        call()
    assert caught.value.code == "tool_failed"
    return caught.value.message


@pytest.mark.parametrize("piece", ["```a\n", "```\n", "```", "``` \t", "`", "\n```a"])
def test_fences_are_read_in_one_pass(piece: str) -> None:
    hostile = piece * (MIB // len(piece))
    with within(LIMIT_SECONDS), suppress(StepError):  # more blocks than anybody writes
        text.code_blocks(hostile)
    with within(LIMIT_SECONDS):
        _tool_refuses(lambda: text.parse_json(hostile))


def test_fences_are_found_as_before() -> None:
    answer = "so:\n```Python 3\nx = 1\n```\nand\n```\n```\n```js\nnever closed"
    assert text.code_blocks(answer) == {
        "blocks": [{"language": "python", "code": "x = 1\n"}, {"language": "", "code": ""}],
        "code": "x = 1\n\n",
    }


def test_a_difference_of_lines_that_repeat_is_refused() -> None:
    before = "".join(f"line {number % 100}\n" for number in range(10_000))
    after = "".join(f"line {number * 7 % 100}\n" for number in range(10_000))
    with within(LIMIT_SECONDS):
        assert "comparisons" in _tool_refuses(lambda: text.diff(before, after))


def test_a_difference_of_many_lines_is_told() -> None:
    before = "".join(f"{number}\n" for number in range(8_000))
    found = text.diff(before, before.replace("5000\n", "x\n"))
    assert (found["added"], found["removed"]) == (1, 1)
    assert found["diff"].splitlines()[:4] == ["--- before", "+++ after", "@@ -4998,7 +4998,7 @@", " 4997"]


@pytest.mark.parametrize("piece", [".", "...'", "\n", "```\n", "\n\n", ".\n"])
@pytest.mark.parametrize("part", ["sentence", "paragraph", "code_block"])
def test_what_a_model_says_is_taken_apart_in_one_pass(part: str, piece: str) -> None:
    with within(LIMIT_SECONDS):
        live_source.finished(piece * (400_000 // len(piece)), part)


@pytest.mark.parametrize("begin", ["```\n", "```json\n", "```", ""])
@pytest.mark.parametrize("piece", ["\n", " ", "`", "\n```", "a", "\n \t"])
def test_answers_in_fences_are_read_in_one_pass(begin: str, piece: str) -> None:
    hostile = begin + piece * (MIB // len(piece)) + "x"
    step = AgentStep(kind="agent", agent="a", prompt="p", output_schema={"type": "object"})
    with within(LIMIT_SECONDS):
        assert judge.verdict(hostile) is None
    with within(LIMIT_SECONDS), pytest.raises(answers.NotReadable):
        answers.read(step, hostile)


def test_an_event_in_many_packets_is_put_together_once() -> None:
    reader = EventReader()
    with within(LIMIT_SECONDS):
        for _ in range(30_000):
            assert reader.feed(b"x" * 100) == []
    assert reader.feed(b"\n\ndata: 1\n\n") == [b"1"]


@pytest.mark.parametrize("piece", ["A'", "A ", "Ab-", "of A "])
def test_a_hostile_task_is_understood_in_one_pass(piece: str) -> None:
    with within(LIMIT_SECONDS):
        analyze_task(piece * 10_000)


@pytest.mark.parametrize("piece", ["1", "a", "a1 "])
def test_text_that_could_be_a_key_is_looked_at_once(piece: str) -> None:
    with within(LIMIT_SECONDS):
        looks_like_key(piece * 20_000)


# -- expressions -------------------------------------------------------------------------------------------

ITEMS = list(range(2_000))


@pytest.mark.parametrize(
    ("source", "input"),
    [
        (
            "input.l.filter(x, input.t.contains(input.p)).size()",
            {"l": [1] * 20, "t": "a" * 200_000, "p": "a" * 100_000 + "b"},
        ),
        (
            "input.l.filter(x, input.t.contains(input.p)).size()",
            {"l": [1] * 5, "t": "a" * 500_000, "p": "a" * 250_000 + "b"},
        ),
        ("input.l.all(x, !input.t.matches('([a-z]{1,100}){1,9}x'))", {"l": ITEMS, "t": "a" * 100_000}),
        ("input.l.all(x, !input.t.matches('\\\\pL{1,10}b'))", {"l": ITEMS, "t": "a"}),
        ("input.l.all(x, !input.t.matches(input.p))", {"l": ITEMS, "t": "a", "p": "(a{1,30}){1,30}b" * 50}),
        ("input.t.matches(input.p + 'x')", {"t": "a" * 100_000, "p": "([a-z]{1,100}){1,9}"}),
        ("input.t.matches(input.p)", {"t": "a", "p": "[" * MIB}),
        ("input.l.map(x, size(input.t)).size()", {"l": ITEMS, "t": "é" * 400_000}),
        ("input.l.all(x, x in input.m)", {"l": ITEMS, "m": list(range(30_000))}),
        ("input.l.all(x, input.m == input.n)", {"l": ITEMS, "m": ITEMS, "n": ITEMS}),
        ("input.l.map(x, input.t.reverse()).size()", {"l": ITEMS, "t": "a" * 400_000}),
        (
            "input.l.all(x, input.t.lastIndexOf(input.p) < 0)",
            {"l": ITEMS, "t": "a" * 9_000, "p": "a" * 4_000 + "b" + "a" * 4_000},
        ),
        ("input.t.lastIndexOf(input.p)", {"t": "a" * 400_000, "p": "a" * 200_000 + "b" + "a" * 200_000}),
        ("input.l.all(x, input.t.indexOf('b') < 0)", {"l": ITEMS, "t": "a" * 400_000}),
        ("input.l.all(x, input.t.split('a').size() > 0)", {"l": ITEMS, "t": "a" * 40_000}),
        ("input.t.split('')", {"t": "a" * 1_000_000}),
        ("{'a': input.m.map(x, x)}", {"m": list(range(9_000))}),
        ("[input.m, input.m, input.m, input.m]", {"m": list(range(100_000))}),
        ("input.l.map(x, input.l.map(y, y)).size()", {"l": ITEMS[:90]}),
        ("entries(input.o).map(e, e.value)", {"o": {str(number): number for number in range(50_000)}}),
        ("input.m.map(x, input.t.contains(x))", {"m": ["a" * 100] * 9_000, "t": "a" * 100_000}),
    ],
)
def test_an_expression_ends_soon_or_is_refused(source: str, input: dict[str, Any]) -> None:
    expression = compile_expression(source)
    with within(LIMIT_SECONDS), suppress(StepError):
        evaluate(expression, {"input": input, "steps": {}, "run": {}})


@pytest.mark.parametrize(
    ("source", "came_to"),
    [
        ("input.rows.filter(r, r.text.contains('7'))", 2_439 * [{}]),
        ("input.rows.filter(r, r.id % 2 == 0).size()", 4_500),
        ("input.rows.map(r, r.id)", list(range(9_000))),
        ("input.rows.exists(r, r.text.startsWith('row 8999'))", True),
        ("input.csv.split('\\n').map(line, line.split(',')[1])", [str(number) for number in range(1_000)]),
    ],
)
def test_long_lists_are_gone_through_as_before(source: str, came_to: Any) -> None:
    input = {
        "rows": [{"id": number, "text": f"row {number}"} for number in range(9_000)],
        "csv": "\n".join(f"row,{number}" for number in range(1_000)),
    }
    expression = compile_expression(source)
    with within(LIMIT_SECONDS):
        found = evaluate(expression, {"input": input, "steps": {}, "run": {}})
    if source == "input.rows.filter(r, r.text.contains('7'))":
        assert found == [row for row in input["rows"] if "7" in row["text"]]  # type: ignore[index]
        return
    assert found == came_to


def test_the_expressions_of_a_template_share_what_they_may_cost() -> None:
    scope = {"input": {"m": list(range(1_500))}, "steps": {}, "run": {}}
    one = "${input.m.map(x, {'a': input.m[x]}).size()}"
    with within(LIMIT_SECONDS), pytest.raises(StepError) as caught:
        render([one] * 500, scope)
    assert caught.value.code == "expression_failed"


@pytest.mark.parametrize("template", ["${input.t}" * 2_000, ["${input.t}"] * 2_000, "${input.m}" * 2_000])
def test_a_template_does_not_grow_beyond_what_a_step_may_hold(template: Any) -> None:
    scope = {"input": {"t": "a" * MIB, "m": list(range(50_000))}, "steps": {}, "run": {}}
    with within(LIMIT_SECONDS), pytest.raises(StepError) as caught:
        render(template, scope)
    assert caught.value.code == "output_too_large"


def test_an_output_of_too_many_values_is_refused_before_it_is_written_down() -> None:
    with within(LIMIT_SECONDS), pytest.raises(StepError) as caught:
        checked_output([[0] * 1_000] * 10_000)
    assert caught.value.code == "output_too_large"


# -- JSON Schemas ------------------------------------------------------------------------------------------


def _any_of(number: int) -> dict[str, Any]:
    return {"items": {"anyOf": [{"type": "object", "required": [f"a{one}"]} for one in range(number)]}}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (_any_of(300), [1] * 2_000, "/0: 1 is not valid under any of the schemas"),
        (_any_of(1_500), [1] * 50_000, "/: it takes more than 4,000,000 checks"),
        ({"items": {"enum": [[one, one] for one in range(1_000)]}}, [[999, 999]] * 5_000, "/: it takes more"),
        ({"items": {"type": "string"}}, [1] * 50_000, '/0: 1 is not of type "string"'),
        ({"required": [f"a{one}" for one in range(1_000)]}, {"x": "t" * MIB}, "/: it does not fit"),
        ({"anyOf": [{"items": {"type": "string"}}, {"type": "object"}]}, [1] * 50_000, "/: it does not fit"),
        ({"items": {"multipleOf": 0.0001}}, [1e300] * 50_000, "/: it takes more"),
        ({"allOf": [{"pattern": f"a{one}(b|c)*d"} for one in range(200)]}, "a" * MIB, "/: it takes more"),
        ({"type": "array"}, [[0] * 1_000] * 1_000, ""),
        (
            {"items": {"items": {"type": "string"}}},
            [[0] * 1_000] * 1_000,
            "/: it has more than 200,000 values",
        ),
        ({"items": {"uniqueItems": True}, "uniqueItems": True}, [[one] for one in range(90_000)], ""),
    ],
)
def test_a_value_is_validated_soon_or_refused(schema: dict[str, Any], value: Any, told: str) -> None:
    assert schema_fault(schema) is None
    with within(LIMIT_SECONDS):
        found = faults(schema, value, most=1)
    assert found.startswith(told) and bool(found) == bool(told)


def test_the_wrong_row_of_many_is_named() -> None:
    row = {"required": ["a"], "properties": {"a": {"type": "integer"}}}
    schema = {"properties": {"rows": {"items": {"$ref": "#/$defs/row"}}}, "$defs": {"row": row}}
    rows: list[Any] = [{"a": 1}] * 9_000
    rows[7_777] = {"a": "one"}
    assert violations(schema, {"rows": rows}) == [("/rows/7777/a", '"one" is not of type "integer"')]


def test_a_schema_whose_keywords_multiply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(16):
        schema = {"allOf": [schema], "unevaluatedItems": {"type": "integer"}}
    with within(LIMIT_SECONDS):
        fault = schema_fault(schema)
    assert fault is not None and "checks of one value" in fault
