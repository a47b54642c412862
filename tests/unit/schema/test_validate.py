import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.errors import InvalidDefinition, Problem
from schema.language import json_schemas
from schema.language.problems import MAX_PROBLEMS, nearest
from schema.rules.validate import validate, validate_bytes

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
STEP = {"kind": "transform", "value": 1}
AGENTS = {"poet": {"role": "coder"}}


def problems(document: Any) -> list[Problem]:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document)
    return caught.value.problems


def places(document: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.pointer) for problem in problems(document)]


def definition(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "steps": {"a": STEP}} | fields


def steps(**items: Any) -> dict[str, Any]:
    return definition(steps=items, agents=AGENTS)


def value(text: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": text} | fields


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_examples_are_valid(file: Path) -> None:
    assert validate_bytes(file.read_bytes(), name=file.stem).definition.name == file.stem


def test_all_problems_at_once_in_a_stable_order() -> None:
    document = {
        "name": "Not A Name",
        "budget": {},
        "agents": {"a": {}, "b": {"model": "x"}, "c": 5},
        "steps": {
            "one": {"kind": "agent", "agent": "nobody", "prompt": "${inptu.x}", "needs": ["two", "zero"]},
            "two": {"kind": "tool", "tool": "htpp"},
            "three": {"kind": "map"},
            "four": {"knid": "tool"},
            "five": value("${1 +} ${steps.tow.output}", timeout="soon", cache=True),
            "six": value("${steps.three.output.x} ${steps.one.output.y}", when="1"),
        },
        "stream": [{"from": "one", "to": "nine"}],
        "output": {"x": "${steps.seven}"},
    }
    assert places(document) == [
        ("type_wrong", "/agents/c"),
        ("field_missing", "/steps/three/over"),
        ("field_missing", "/steps/three/max_items"),
        ("field_missing", "/steps/three/body"),
        ("field_missing", "/steps/four/kind"),
        ("value_wrong", "/steps/five/timeout"),
        ("field_unknown", "/steps/five/cache"),
        ("value_wrong", "/name"),
        ("agent_without_model", "/agents/a"),
        ("model_unknown", "/agents/b/model"),
        ("step_unknown", "/steps/one/needs/1"),
        ("agent_unknown", "/steps/one/agent"),
        ("expression_type", "/steps/one/prompt"),
        ("tool_unknown", "/steps/two/tool"),
        ("expression_type", "/steps/six/when"),
        ("reference_unknown", "/steps/six/value"),
        ("fields_conflict", "/budget"),
        ("step_unknown", "/output/x"),
        ("step_unknown", "/stream/0/to"),
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, [("type_wrong", "")]),
        (5, [("type_wrong", "")]),
        ({}, [("field_missing", "/name"), ("field_missing", "/steps")]),
        (definition(steps={}), [("value_wrong", "/steps")]),
        (definition(steps=None), [("type_wrong", "/steps")]),
        (definition(steps={"A b": STEP}), [("value_wrong", "/steps/A b")]),
        (definition(steps={"in": STEP}), [("value_wrong", "/steps/in")]),
        (definition(language="facilitair/v2"), [("value_wrong", "/language")]),
        (definition(agents={"g": {"model": ""}}), [("model_unknown", "/agents/g/model")]),
        (
            definition(agents={"g": {"model": {"among": ["openai/gpt-4", "x/y"]}}}),
            [("model_unknown", "/agents/g/model/among/1")],
        ),
        (definition(agents={"g": {"model": {"amnog": []}}}), [("field_unknown", "/agents/g/model/amnog")]),
        (steps(a=STEP | {"retry": {"max_attempts": 0}}), [("value_wrong", "/steps/a/retry/max_attempts")]),
        (steps(a=STEP | {"retry": {"max_attempts": "3"}}), [("type_wrong", "/steps/a/retry/max_attempts")]),
        (steps(a=STEP | {"needs": ["b", 3]}), [("type_wrong", "/steps/a/needs/1")]),
        (steps(a={"kind": "tool"}), [("tool_unknown", "/steps/a")]),
        (
            steps(
                a={"kind": "tool", "tool": "http", "activity": "x", "task_queue": "q", "args": {"url": "u"}}
            ),
            [("tool_unknown", "/steps/a")],
        ),
        (steps(a={"kind": "tool", "activity": "x"}), [("field_missing", "/steps/a/task_queue")]),
        (
            steps(a={"kind": "tool", "tool": "http", "args": {"url": 5}}),
            [("tool_args_wrong", "/steps/a/args/url")],
        ),
        (steps(a={"kind": "tool", "tool": "http", "args": {}}), [("tool_args_wrong", "/steps/a/args/url")]),
        (steps(a=value("${steps.a.output}")), [("cycle", "/steps/a")]),
        (steps(a=value({"x/y": ["${foo}"]})), [("expression_type", "/steps/a/value/x~1y/0")]),
        (steps(a=value("${steps.b.ouput}"), b=STEP), [("reference_unknown", "/steps/a/value")]),
        (steps(a=value("${run.nmae}")), [("reference_unknown", "/steps/a/value")]),
        (steps(a=value(1, when="input.x + 1 > 2 && 'no'")), [("expression_type", "/steps/a/when")]),
        (
            steps(a=value("${steps.p.output.x}"), p={"kind": "agent", "agent": "poet", "prompt": "x"}),
            [("reference_unknown", "/steps/a/value")],
        ),
        (
            definition(input={"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#"}}}),
            [("schema_invalid", "/input")],
        ),
        (definition(input={"$ref": "https://example.com/s.json"}), [("schema_invalid", "/input")]),
        (definition(input={"pattern": r"(a+)\1"}), [("schema_invalid", "/input")]),
        (definition(description="${", output="${1}" * 100_000), [("too_many", "")]),
        (definition(**{f"f{i}": 1 for i in range(65)}), [("too_many", "")]),
        (definition(agents={str(i): {} for i in range(201)}), [("too_many", "/agents")]),
        (definition(steps={f"a{i}": STEP for i in range(1_001)}), [("too_many", "/steps")]),
    ],
)
def test_problems_and_their_places(document: Any, expected: list[tuple[str, str]]) -> None:
    assert places(document) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (steps(a=value(1, needs=["b"]), b=STEP), {}),
        (steps(a=value("${steps.b.output}"), b=STEP), {"a": ("b",)}),
        (steps(a=value("${steps[?'b'].output.orValue(1)}"), b=STEP), {"a": ("b",)}),
        (definition(**{"$schema": "https://example.com/facilitair-v1.schema.json"}), {}),
        (
            definition(
                input={"$defs": {"t": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/t"}}}
            ),
            {},
        ),
        (steps(a={"kind": "tool", "tool": "http", "args": {"url": "${input.url}", "body": {"x": 1}}}), {}),
        (definition(output="costs $5 and $${literal}"), {}),
    ],
)
def test_accepted_with_inferred_dependencies(document: Any, expected: dict[str, tuple[str, ...]]) -> None:
    assert validate(document).inferred == expected


def test_a_problem_says_what_was_found_expected_and_what_to_do() -> None:
    assert problems(steps(a=value("${steps.bb.output}"), b=STEP)) == [
        Problem(
            "step_unknown", "/steps/a/value", "step 'bb'", "a step of this definition", "Did you mean 'b'?"
        )
    ]
    assert problems(definition(nmae="y")) == [
        Problem(
            "field_unknown",
            "/nmae",
            "'y'",
            "a field of facilitair/v1",
            "Remove it or correct its name. Did you mean 'name'?",
        )
    ]


def test_every_circle_is_named_once() -> None:
    found = problems(
        steps(
            a=value(1, needs=["b"]),
            b=value(1, needs=["a"]),
            c=value(1, needs=["d"]),
            d=value("${steps.c.output}"),
            e=value(1, needs=["a"]),
        )
    )
    assert [(p.code, p.pointer, p.found) for p in found] == [
        ("cycle", "/steps/a", "the cycle a → b → a"),
        ("cycle", "/steps/c", "the cycle c → d → c"),
    ]


def test_no_more_than_a_hundred_problems() -> None:
    assert len(problems(definition(steps={f"a{i}": {} for i in range(500)}))) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("coder", ["code", "review"], "Did you mean 'code'?"),
        ("zzz", ["a", "b"], "Known: a, b."),
        ("zzz", [], "There are none."),
        ("zzz", [f"k{i}" for i in range(13)], "Known: k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11 …."),
    ],
)
def test_nearest(word: str, known: list[str], hint: str) -> None:
    assert nearest(word, known) == hint


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "object"}, None),
        ({"$defs": {"a/b": {}}, "$ref": "#/$defs/a~1b"}, None),
        ({"properties": {"$ref": {"type": "string"}}}, None),
        ({"const": {"$ref": "#/nothing"}}, None),
        ({"$ref": "#"}, "the reference '#', which leads back to itself"),
        ({"$ref": "#/$defs/x"}, "the reference '#/$defs/x', which leads nowhere"),
        ({"$ref": "file:///x"}, "the reference 'file:///x'; only pointers into this schema are followed"),
        ({"$dynamicRef": "#x"}, "a dynamic reference; write $ref with a pointer such as #/$defs/name"),
    ],
)
def test_schema_faults(schema: dict[str, Any], says: str | None) -> None:
    assert json_schemas.schema_fault(schema) == says


_KEYS = st.sampled_from(
    [
        "name",
        "steps",
        "agents",
        "kind",
        "value",
        "needs",
        "when",
        "agent",
        "prompt",
        "model",
        "retry",
        "input",
        "output",
        "stream",
        "from",
        "to",
        "a",
        "in",
        "~/",
        "tool",
        "args",
        "timeout",
        "among",
        "stream_to",
        "body",
        "over",
        "max_items",
        "until",
        "max_iterations",
        "cases",
        "else",
        "then",
        "catch",
        "errors",
        "join",
        "quorum",
        "form",
        "show",
        "actions",
        "assignees",
        "compensate",
        "reflect",
        "budget",
        "carry",
        "ref",
        "definition",
        "for",
        "b",
    ]
)
_LEAVES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "a",
        "x",
        "agent",
        "tool",
        "transform",
        "map",
        "loop",
        "switch",
        "human",
        "wait",
        "collaboration",
        "any",
        "a:x",
        "*",
        "item",
        "iter.output",
        "${steps.a.output}",
        "${",
        "${input.x.map(k, k)}",
        "openai/gpt-4",
        "1s",
        "#/$defs/a",
        "http",
        "object",
    ]
)
_DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=30,
)


def _resolves(document: Any, pointer: str) -> bool:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return False
    return True


@given(
    st.fixed_dictionaries(
        {"name": st.just("x"), "steps": st.dictionaries(_KEYS, _DOCUMENTS, max_size=4)},
        optional={"agents": _DOCUMENTS, "input": _DOCUMENTS, "stream": _DOCUMENTS, "output": _DOCUMENTS},
    )
    | _DOCUMENTS
)
@settings(max_examples=200, deadline=2_000)
def test_any_json_is_accepted_or_refused_with_pointers_that_resolve(document: Any) -> None:
    try:
        validate_bytes(json.dumps(document).encode())
    except InvalidDefinition as error:
        for problem in error.problems:
            parent = problem.pointer.rpartition("/")[0]
            assert _resolves(document, problem.pointer) or _resolves(document, parent), problem
