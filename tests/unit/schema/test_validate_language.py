"""Every rule of the whole language: what is accepted, and what is refused where."""
# ruff: noqa: E501 - the cases are a table.

import re
from pathlib import Path
from typing import Any

import pytest

from plan.compile import compile_plan
from schema.errors import STEP_CODES, InvalidDefinition, Problem
from schema.rules.validate import validate

AGENTS = {"poet": {"role": "coder"}, "routed": {"model": {}}}
STEP = {"kind": "transform", "value": 1}
SWITCH = {"kind": "switch", "cases": [{"when": "true", "then": "yes"}], "else": "no"}
ASK = {"kind": "agent", "agent": "poet", "prompt": "x"}
PAUSE = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}
OWN = {"kind": "tool", "activity": "send", "task_queue": "q"}
FORM = {"type": "object", "properties": {"reason": {"type": "string"}}}


def problems(document: Any) -> list[Problem]:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document)
    return caught.value.problems


def places(document: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.pointer) for problem in problems(document)]


def steps(**items: Any) -> dict[str, Any]:
    return {"name": "x", "agents": AGENTS, "steps": items}


def value(text: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": text, **fields}


def each(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    output = {"output": fields.pop("output")} if "output" in fields else {}
    return {"kind": "map", "over": "input.x", "max_items": 5, "body": {"steps": body, **output}, **fields}


def loop(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    output = {"output": fields.pop("output")} if "output" in fields else {}
    return {"kind": "loop", "max_iterations": 5, "body": {"steps": body, **output}, **fields}


def human(**fields: Any) -> dict[str, Any]:
    return {"kind": "human", "title": "Well?", **fields}


@pytest.mark.parametrize(
    "document",
    [
        steps(
            m=each({"a": value("${item} ${index}")}, output="${steps.a.output}"),
            z=value("${steps.m.output[0]}"),
        ),
        steps(m=each({"a": value("${item.x.map(i, i + index)}")}), z=value("${steps.m.items}")),
        steps(m=each({"l": loop({"a": value("${item} ${iter.carry}")}, until="iter.output == item")})),
        steps(l=loop({"m": each({"a": value("${iter.index + index}")})}, until="steps.m.output[0] == 1")),
        steps(
            l=loop(
                {"a": value("${iter.?previous.orValue(0)}")},
                init="${input.x}",
                carry="${iter.output}",
                until="iter.output == steps.a.output",
                on_exhausted="fail",
            ),
            z=value("${steps.l.iterations}"),
        ),
        steps(l=loop({"a": STEP}, output={"q": "${steps.a.output}"}), z=value("${steps.l.output.q}")),
        steps(a=STEP, m=each({"b": value("${steps.a.output}", needs=["a"])})),
        steps(
            s=SWITCH,
            a=value(1, needs=["s:yes"]),
            b=value(1, needs=["s:no"]),
            c=value(1, needs=["s"]),
            d=value(
                "${steps[?'a'].?output.orValue(1)} ${steps[?'s'].?branch.orValue('')}",
                needs=["a", "b", "s:yes"],
                join="any",
            ),
        ),
        steps(a=STEP, b=STEP, c=value(1, needs=["a", "b"], join={"quorum": 2})),
        steps(
            a={
                **PAUSE,
                "catch": [
                    {"errors": ["timeout", "Timeout", "my_error"], "then": "h"},
                    {"errors": ["*"], "value": None},
                ],
            },
            h=value("${steps.a.error.code}: ${steps.a.error.message} ${steps.a.status}"),
        ),
        steps(
            a={**PAUSE, "catch": [{"errors": ["*"], "then": "h"}]},
            b={**PAUSE, "catch": [{"errors": ["*"], "then": "h"}]},
            h=value("${steps[?'a'].?error.?code.orValue('')}"),
        ),
        steps(
            a={**PAUSE, "catch": [{"errors": ["*"], "then": "h"}]},
            h=STEP,
            z=value("${steps[?'a'].?error.?code.orValue('none')}", needs=["a", "h"], join="any"),
        ),
        steps(
            a={**PAUSE, "catch": [{"errors": ["*"], "then": "h"}]},
            h=each({"b": value("${steps.a.error.code}")}),
        ),
        steps(
            a=STEP,
            w={"kind": "wait", "for": "1h"},
            v={"kind": "wait", "until": "${input.time}", "needs": ["w"]},
        ),
        steps(
            a=human(
                form=FORM,
                show={"d": "${input.x}"},
                assignees=["user:ann", "group:leads"],
                approvals=3,
                actions=[{"id": "yes"}, {"id": "no", "requires": ["reason"]}, {"id": "edit", "edits": "d"}],
                on_timeout="yes",
                remind_after="1h",
                timeout="2h",
            )
        ),
        steps(a=human(on_timeout="escalate", escalate_to=["user:boss"])),
        steps(c={"kind": "collaboration", "ref": "other@stable", "input": {"x": 1}}),
        steps(
            p={**ASK, "emits": "definition"},
            c={"kind": "collaboration", "definition": "${steps.p.output}", "input": "${input}"},
        ),
        steps(
            a={
                **ASK,
                "reflect": {"expect": [{"that": "size(output) > size(steps.b.output)", "message": "m"}]},
            },
            b=STEP,
        ),
        steps(
            b=STEP,
            a={
                **OWN,
                "args": {"x": "${steps.b.output}"},
                "compensate": {"tool": "pause", "args": {"seconds": "${steps.a.output.x + steps.b.output}"}},
            },
        ),
        steps(
            b=STEP,
            m=each(
                {
                    "a": {
                        **OWN,
                        "compensate": {
                            "activity": "u",
                            "task_queue": "q",
                            "args": {"x": "${item} ${steps.b.output}"},
                        },
                    }
                }
            ),
        ),
        steps(a={**ASK, "chain": True, "cache": {}, "priority": 1}),
        {**steps(a=STEP), "budget": {"usd": 0.5, "on_exceed": "degrade", "degrade_to": "openai/gpt-4o-mini"}},
        {**steps(a=STEP), "budget": {"time": "1h", "on_exceed": "ask", "assignees": ["user:ann"]}},
        {
            **steps(a=STEP),
            "input": {
                "properties": {
                    "default": {"type": "string"},
                    "p": {"type": "string", "default": "x"},
                    "q": {"$ref": "#/properties/p", "default": "y"},
                    "n": {"type": ["integer", "null"], "default": None},
                }
            },
        },
        # Whatever kind of number a model writes.
        steps(
            a={**ASK, "output_schema": {"type": "object", "properties": {"score": {"type": "number"}}}},
            b=value(
                "${steps.a.output.score / 10 >= 0.9 || steps.a.output.score / 10.0 >= 1 || steps.a.output.score * 2 > 1.5}"
            ),
        ),
        {**steps(m=each({"a": ASK, "b": ASK})), "stream": [{"from": "a", "to": "b"}]},
    ],
)
def test_accepted(document: Any) -> None:
    assert compile_plan(validate(document).definition).steps


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # Names in their place.
        (steps(a=value("${item}")), [("reference_out_of_place", "/steps/a/value")]),
        (steps(a=value(1, when="input.x + 1")), [("expression_type", "/steps/a/when")]),
        (steps(m=each({"a": STEP}, over="input.x * 2.5")), [("expression_type", "/steps/m/over")]),
        (steps(a=value(1, when="index == 0")), [("reference_out_of_place", "/steps/a/when")]),
        (steps(a=value("${iter.index}")), [("reference_out_of_place", "/steps/a/value")]),
        (steps(a=value("${output}")), [("reference_out_of_place", "/steps/a/value")]),
        (
            steps(m=each({"a": value("${iter.index}")})),
            [("reference_out_of_place", "/steps/m/body/steps/a/value")],
        ),
        (steps(l=loop({"a": value("${item}")})), [("reference_out_of_place", "/steps/l/body/steps/a/value")]),
        (steps(m=each({"a": STEP}, over="item")), [("reference_out_of_place", "/steps/m/over")]),
        (steps(l=loop({"a": STEP}, init="${iter.carry}")), [("reference_out_of_place", "/steps/l/init")]),
        (
            steps(l=loop({"a": value("${iter.output}")})),
            [("reference_out_of_place", "/steps/l/body/steps/a/value")],
        ),
        (
            steps(l=loop({"a": STEP}, output="${iter.output}")),
            [("reference_out_of_place", "/steps/l/body/output")],
        ),
        (
            steps(l=loop({"a": value("${iter.carrry}")})),
            [("reference_unknown", "/steps/l/body/steps/a/value")],
        ),
        (
            steps(m=each({"a": STEP}), z=value("${steps.a.output}")),
            [("reference_out_of_place", "/steps/z/value")],
        ),
        (
            steps(m=each({"a": STEP}), z=value(1, needs=["a"])),
            [("reference_out_of_place", "/steps/z/needs/0")],
        ),
        (
            steps(m=each({"a": STEP}), n=each({"b": value("${steps.a.output}")})),
            [("reference_out_of_place", "/steps/n/body/steps/b/value")],
        ),
        (
            steps(m=each({"a": STEP})) | {"output": "${steps.a.output}"},
            [("reference_out_of_place", "/output")],
        ),
        (
            steps(m=each({"a": value("${steps.m.output}")})),
            [("reference_out_of_place", "/steps/m/body/steps/a/value")],
        ),
        (
            steps(m=each({"a": value(1, needs=["m"])})),
            [("reference_out_of_place", "/steps/m/body/steps/a/needs/0")],
        ),
        (
            steps(l=loop({"a": STEP}, until="steps.l.output == 1")),
            [("reference_out_of_place", "/steps/l/until")],
        ),
        (
            steps(a={**ASK, "reflect": {"expect": [{"that": "outptu", "message": "m"}]}}),
            [("expression_type", "/steps/a/reflect/expect/0/that")],
        ),
        (
            {**steps(m=each({"a": ASK}), b=ASK), "stream": [{"from": "a", "to": "b"}]},
            [("reference_out_of_place", "/stream/0")],
        ),
        # Ids.
        (steps(a=STEP, m=each({"a": STEP})), [("id_duplicate", "/steps/m/body/steps/a")]),
        (
            steps(m=each({"a": STEP}), n=each({"a": {"kind": "wait"}})),
            [("id_duplicate", "/steps/n/body/steps/a")],
        ),
        (steps(m=each({"m": STEP})), [("id_duplicate", "/steps/m/body/steps/m")]),
        (steps(m=each({"A b": STEP})), [("value_wrong", "/steps/m/body/steps/A b")]),
        (steps(m=each({"in": STEP})), [("value_wrong", "/steps/m/body/steps/in")]),
        # Facts of steps.
        (steps(a=STEP, z=value("${steps.a.model}")), [("reference_unknown", "/steps/z/value")]),
        (steps(a=STEP, z=value("${steps.a.finish_reason}")), [("reference_unknown", "/steps/z/value")]),
        (steps(a=STEP, z=value("${steps.a.items}")), [("reference_unknown", "/steps/z/value")]),
        (steps(a=STEP, z=value("${steps.a.error.code}")), [("reference_out_of_place", "/steps/z/value")]),
        (steps(a=STEP, z=value("${steps[?'a'].?error}")), [("reference_unknown", "/steps/z/value")]),
        (
            steps(m=each({"a": STEP}), z=value("${steps.m.output.x}")),
            [("reference_unknown", "/steps/z/value")],
        ),
        (
            steps(l=loop({"a": STEP}, output={"q": 1}), z=value("${steps.l.output.p}")),
            [("reference_unknown", "/steps/z/value")],
        ),
        (steps(a=value({"q": 1}), z=value("${steps.a.output.p}")), [("reference_unknown", "/steps/z/value")]),
        # Needs, branches, joins.
        (steps(a=STEP, b=value(1, needs=["a:yes"])), [("branch_unknown", "/steps/b/needs/0")]),
        (steps(s=SWITCH, b=value(1, needs=["s:yess"])), [("branch_unknown", "/steps/b/needs/0")]),
        (steps(s=SWITCH, b=value(1, needs=["t:yes"])), [("step_unknown", "/steps/b/needs/0")]),
        (steps(s=SWITCH, b=value(1, needs=["s:Yes"])), [("value_wrong", "/steps/b/needs/0")]),
        (steps(s=SWITCH, b=value(1, needs=["s:yes", "s:no"])), [("fields_conflict", "/steps/b/needs/1")]),
        (
            steps(s=SWITCH, m=each({"a": value(1, needs=["s:yes"])})),
            [("reference_out_of_place", "/steps/m/body/steps/a/needs/0")],
        ),
        (
            steps(s={"kind": "switch", "cases": [{"when": "true", "then": "a"}]}),
            [("field_missing", "/steps/s/else")],
        ),
        (
            steps(s={"kind": "switch", "cases": [{"when": "1 + 1", "then": "a"}], "else": "b"}),
            [("expression_type", "/steps/s/cases/0/when")],
        ),
        (steps(a=value(1, join="any")), [("value_wrong", "/steps/a/join")]),
        (
            steps(a=STEP, b=value(1, needs=["a", "a"], join={"quorum": 2})),
            [("value_wrong", "/steps/b/join/quorum")],
        ),
        (
            steps(s=SWITCH, b=value(1, needs=["s:yes", "s:no"], join={"quorum": 2})),
            [("value_wrong", "/steps/b/join/quorum")],
        ),
        (
            steps(a=STEP, b=STEP, c=value("${steps.a.output}", needs=["a", "b"], join="any")),
            [("reference_uncertain", "/steps/c/value")],
        ),
        (
            steps(a=STEP, b=STEP, c=value("${steps.b.output}", needs=["a"], join="any")),
            [("reference_uncertain", "/steps/c/value")],
        ),
        (
            steps(a=STEP, b=STEP, m=each({"c": value("${steps.a.output}")}, needs=["a", "b"], join="any")),
            [("reference_uncertain", "/steps/m/body/steps/c/value")],
        ),
        (
            steps(a=STEP, b=STEP, m=each({"c": value("${steps[?'a']}")}, needs=["a", "b"], join="any")),
            [("reference_uncertain", "/steps/m/body/steps/c/value")],
        ),
        (
            steps(a=STEP, b=STEP, m=each({"c": value(1, needs=["a"])}, needs=["a", "b"], join="any")),
            [("reference_uncertain", "/steps/m/body/steps/c/needs/0")],
        ),
        (
            steps(a=STEP, m=each({"b": STEP, "c": value(1, needs=["a", "b"], join="any")})),
            [("reference_out_of_place", "/steps/m/body/steps/c/needs/0")],
        ),
        # Errors.
        (steps(a=value(1, catch=[{"errors": ["*"]}])), [("fields_conflict", "/steps/a/catch/0")]),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b", "value": None}]), b=STEP),
            [("fields_conflict", "/steps/a/catch/0")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b"}])),
            [("step_unknown", "/steps/a/catch/0/then")],
        ),
        (steps(a=value(1, catch=[{"errors": ["*"], "then": "a"}])), [("cycle", "/steps/a")]),
        (
            steps(b=STEP, a=value(1, needs=["b"], catch=[{"errors": ["*"], "then": "b"}])),
            [("cycle", "/steps/b")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b"}]), b=value(1, needs=["a"])),
            [("fields_conflict", "/steps/b/needs/0")],
        ),
        (
            steps(m=each({"a": value(1, catch=[{"errors": ["*"], "then": "b"}])}), b=STEP),
            [("reference_out_of_place", "/steps/m/body/steps/a/catch/0/then")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b"}]), m=each({"b": STEP})),
            [("reference_out_of_place", "/steps/a/catch/0/then")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b"}]), b=value("${steps.a.output}")),
            [("reference_out_of_place", "/steps/b/value")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "then": "b"}]), b=value("${steps.a.error.cod}")),
            [("reference_unknown", "/steps/b/value")],
        ),
        (
            steps(
                a=value(1, catch=[{"errors": ["*"], "then": "h"}]),
                b=value(1, catch=[{"errors": ["*"], "then": "h"}]),
                h=value("${steps.a.error.code}"),
            ),
            [("reference_uncertain", "/steps/h/value")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["provider_rate_limit"], "value": 1}])),
            [("error_unknown", "/steps/a/catch/0/errors/0")],
        ),
        (
            steps(a=value(1, catch=[{"errors": ["*"], "value": 1}, {"errors": ["timeout"], "value": 1}])),
            [("field_useless", "/steps/a/catch/1/errors/0")],
        ),
        (steps(a=value(1, catch=[{"errors": [], "value": 1}])), [("value_wrong", "/steps/a/catch/0/errors")]),
        # Kinds.
        (steps(m=each({"a": STEP}, over="1 + 1")), [("expression_type", "/steps/m/over")]),
        (steps(m=each({"a": STEP}, over="{'a': 1}")), [("expression_type", "/steps/m/over")]),
        (steps(m=each({"a": STEP}, over="${input.x}")), [("expression_syntax", "/steps/m/over")]),
        (
            steps(m=each({"a": STEP}, tolerate={"failed": 1, "failed_percent": 5})),
            [("fields_conflict", "/steps/m/tolerate")],
        ),
        (steps(m=each({"a": {"kind": "maap"}})), [("kind_unknown", "/steps/m/body/steps/a/kind")]),
        (steps(m=each({})), [("value_wrong", "/steps/m/body/steps")]),
        (steps(m={"kind": "map", "over": "input.x", "max_items": 1}), [("field_missing", "/steps/m/body")]),
        (
            steps(m={"kind": "map", "body": {"steps": {"a": {"kind": "tool"}}}}),
            [
                ("field_missing", "/steps/m/over"),
                ("field_missing", "/steps/m/max_items"),
                ("tool_unknown", "/steps/m/body/steps/a"),
            ],
        ),
        (steps(l=loop({"a": STEP}, until="'x'")), [("expression_type", "/steps/l/until")]),
        (steps(l=loop({"a": STEP}, on_exhausted="fail")), [("field_useless", "/steps/l/on_exhausted")]),
        (steps(w={"kind": "wait"}), [("fields_conflict", "/steps/w")]),
        (steps(w={"kind": "wait", "for": "1s", "until": "2026-01-01"}), [("fields_conflict", "/steps/w")]),
        (steps(w={"kind": "wait", "for": "1s", "timeout": "1s"}), [("field_useless", "/steps/w/timeout")]),
        (steps(c={"kind": "collaboration"}), [("fields_conflict", "/steps/c")]),
        (steps(c={"kind": "collaboration", "ref": "a@b@c"}), [("value_wrong", "/steps/c/ref")]),
        (
            steps(c={"kind": "collaboration", "definition": {"name": "x"}}),
            [("value_wrong", "/steps/c/definition")],
        ),
        (steps(c={"kind": "collaboration", "ref": "a", "input": [1]}), [("value_wrong", "/steps/c/input")]),
        (
            steps(a={**ASK, "emits": "definition", "output_schema": {}}),
            [("fields_conflict", "/steps/a/output_schema")],
        ),
        (steps(a={**OWN, "compensate": {}}), [("tool_unknown", "/steps/a/compensate")]),
        (
            steps(a={**OWN, "compensate": {"activity": "u"}}),
            [("field_missing", "/steps/a/compensate/task_queue")],
        ),
        (
            steps(a={**OWN, "compensate": {"tool": "pause"}}),
            [("tool_args_wrong", "/steps/a/compensate/args/seconds")],
        ),
        (
            steps(
                b=STEP,
                a={
                    **OWN,
                    "compensate": {"activity": "u", "task_queue": "q", "args": {"x": "${steps.b.output}"}},
                },
            ),
            [("reference_uncertain", "/steps/a/compensate/args/x")],
        ),
        # People.
        (steps(a=human(actions=[{"id": "yes"}, {"id": "yes"}])), [("value_wrong", "/steps/a/actions/1/id")]),
        (steps(a=human(actions=[{"id": "fail"}])), [("value_wrong", "/steps/a/actions/0/id")]),
        (
            steps(a=human(actions=[{"id": "no", "requires": ["reason"]}])),
            [("value_wrong", "/steps/a/actions/0/requires/0")],
        ),
        (steps(a=human(actions=[{"id": "e", "edits": "d"}])), [("value_wrong", "/steps/a/actions/0/edits")]),
        (steps(a=human(on_timeout="aprove")), [("value_wrong", "/steps/a/on_timeout")]),
        (
            steps(a=human(form=FORM, actions=[{"id": "no", "requires": ["reason"]}], on_timeout="no")),
            [("value_wrong", "/steps/a/on_timeout")],
        ),
        (steps(a=human(on_timeout="escalate")), [("field_missing", "/steps/a/escalate_to")]),
        (steps(a=human(escalate_to=["user:boss"])), [("field_useless", "/steps/a/escalate_to")]),
        (
            steps(a=human(assignees=["ann", "user:a b"])),
            [("value_wrong", "/steps/a/assignees/0"), ("value_wrong", "/steps/a/assignees/1")],
        ),
        (
            steps(a=human(assignees=["user:a", "user:a"], approvals=2)),
            [("value_wrong", "/steps/a/approvals")],
        ),
        (steps(a=human(form={"type": "string"})), [("value_wrong", "/steps/a/form")]),
        (
            steps(a=human(form={"type": "objekt"})),
            [("schema_invalid", "/steps/a/form"), ("value_wrong", "/steps/a/form")],
        ),
        # Defaults that no value may have.
        (
            {**steps(a=STEP), "input": {"properties": {"p": {"type": "string", "default": 5}}}},
            [("schema_invalid", "/input/properties/p/default")],
        ),
        (
            {
                **steps(a=STEP),
                "input": {"properties": {"o": {"properties": {"a/b": {"enum": [1, 2], "default": 3}}}}},
            },
            [("schema_invalid", "/input/properties/o/properties/a~1b/default")],
        ),
        (
            {
                **steps(a=STEP),
                "input": {
                    "properties": {
                        "p": {"$ref": "#/$defs/word", "default": 5},
                        "q": {"default": [1], "items": {"type": "string"}},
                    },
                    "$defs": {"word": {"type": "string", "minLength": 3, "default": "xy"}},
                },
            },
            [
                ("schema_invalid", "/input/properties/p/default"),
                ("schema_invalid", "/input/properties/q/default"),
                ("schema_invalid", "/input/$defs/word/default"),
            ],
        ),
        (
            steps(a={**ASK, "output_schema": {"items": {"type": "integer", "default": "one"}}}),
            [("schema_invalid", "/steps/a/output_schema/items/default")],
        ),
        (
            steps(
                a=human(
                    form={
                        "type": "object",
                        "properties": {"n": {"type": "number", "maximum": 3, "default": 4}},
                    }
                )
            ),
            [("schema_invalid", "/steps/a/form/properties/n/default")],
        ),
        # Fields without an effect, or of other kinds.
        (steps(a={**STEP, "retry": {}}), [("field_useless", "/steps/a/retry")]),
        (steps(a={**STEP, "chain": False}), [("field_useless", "/steps/a/chain")]),
        (steps(a=human(chain=True)), [("field_useless", "/steps/a/chain")]),
        (steps(a={**OWN, "chain": True}), [("field_useless", "/steps/a/chain")]),
        (steps(a={**ASK, "agent": "routed", "chain": True}), [("field_useless", "/steps/a/chain")]),
        (steps(a={**ASK, "recall": True, "chain": True}), [("field_useless", "/steps/a/chain")]),
        (steps(a={**STEP, "cache": {}}), [("field_unknown", "/steps/a/cache")]),
        # The whole.
        ({**steps(a=STEP), "budget": {}}, [("fields_conflict", "/budget")]),
        ({**steps(a=STEP), "budget": {"usd": 0}}, [("value_wrong", "/budget/usd")]),
        (
            {**steps(a=STEP), "budget": {"usd": 1, "on_exceed": "degrade"}},
            [("field_missing", "/budget/degrade_to")],
        ),
        (
            {**steps(a=STEP), "budget": {"usd": 1, "on_exceed": "degrade", "degrade_to": "cheap"}},
            [("model_unknown", "/budget/degrade_to")],
        ),
        (
            {**steps(a=STEP), "budget": {"usd": 1, "assignees": ["user:ann"]}},
            [("field_useless", "/budget/assignees")],
        ),
        (
            steps(m=each({"n": each({"a": STEP}, max_items=1_000)}, max_items=1_000)),
            [("too_large_run", "/steps/m")],
        ),
        (
            steps(a=STEP, m=each({f"a{i}": value(1) for i in range(30)}, max_items=10_000)),
            [("too_large_run", "/steps/m")],
        ),
        # Circles.
        (
            steps(m=each({"a": value("${steps.b.output}"), "b": value("${steps.a.output}")})),
            [("cycle", "/steps/m/body/steps/a")],
        ),
        (
            steps(m=each({"a": value("${steps.z.output}")}), z=value("${steps.m.output}")),
            [("cycle", "/steps/m")],
        ),
        (
            steps(l=loop({"a": STEP}, until="steps.z.output"), z=value(1, needs=["l"])),
            [("cycle", "/steps/l")],
        ),
        (steps(a=value(1, needs=["a"])), [("cycle", "/steps/a")]),
    ],
)
def test_refused(document: Any, expected: list[tuple[str, str]]) -> None:
    assert places(document) == expected
    assert all(problem.found and problem.expected and problem.fix for problem in problems(document))


def _nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = STEP
    for level in range(depth):
        step = loop({f"s{level}": step}, max_iterations=1)
    return steps(top=step)


def test_bodies_may_be_nested_four_deep() -> None:
    assert validate(_nested(4)).definition.name == "x"
    assert places(_nested(5)) == [
        ("too_many", "/steps/top/body/steps/s4/body/steps/s3/body/steps/s2/body/steps/s1/body/steps/s0")
    ]


def test_steps_of_bodies_count() -> None:
    bodies = {f"m{at}": each({f"a{at}_{i}": STEP for i in range(100)}, max_items=1) for at in range(10)}
    assert places(steps(**bodies)) == [("too_many", "/steps")]


def test_expressions_of_bodies_count() -> None:
    whens = {
        f"m{at}": each({f"a{at}_{i}": value(1, when=f"input.x == {i}{'0' * 300}") for i in range(40)})
        for at in range(6)
    }
    assert places(steps(**whens)) == [("too_many", "")]


def test_a_field_of_another_kind_names_the_kinds_that_have_it() -> None:
    fix = problems(steps(a={**STEP, "max_items": 3}))[0].fix
    assert fix == "Remove it or correct its name. Steps of kind map have it."
    assert (
        problems(steps(a={**STEP, "vlaue": 3}))[0].fix
        == "Remove it or correct its name. Did you mean 'value'?"
    )


def test_a_step_inside_a_body_is_read_through_its_map() -> None:
    problem = problems(steps(m=each({"a": STEP}), z=value("${steps.a.output}")))[0]
    assert problem == Problem(
        "reference_out_of_place",
        "/steps/z/value",
        "step 'a' in the body of 'm'",
        "a step of the same body or around it",
        "Use steps.m.output, and let the body's output hold what is needed.",
    )


def test_catch_knows_every_documented_error_of_a_step() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "errors.md").read_text(encoding="utf-8")
    sections = re.findall(
        r"^## (?:A step that fails|Language models)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    documented = set(re.findall(r'<a id="([a-z_]+)"></a>', "".join(sections)))
    assert len(sections) == 2
    assert documented - set(STEP_CODES) == set()


def test_what_bodies_depend_on_is_inferred_for_them_and_for_their_map() -> None:
    document = steps(
        a=STEP,
        b=STEP,
        m=each({"c": value("${steps.a.output} ${steps[?'b']}"), "d": value("${steps.c.output}")}),
    )
    assert validate(document).inferred == {"m": ("a", "b"), "c": ("a", "b"), "d": ("c",)}


def test_the_plan_of_a_body_holds_its_own_steps_only() -> None:
    document = steps(a=STEP, m=each({"c": value("${steps.a.output}"), "d": value("${steps.c.output}")}))
    plan = compile_plan(validate(document).definition)
    body = plan.steps[1].body
    assert plan.steps[1].needs == ["a"]
    assert body and [(step.id, step.needs) for step in body.steps] == [("c", []), ("d", ["c"])]


def test_a_handler_that_reads_the_error_does_not_need_success() -> None:
    document = steps(a={**PAUSE, "catch": [{"errors": ["*"], "then": "h"}]}, h=value("${steps.a.error.code}"))
    handler = compile_plan(validate(document).definition).steps[1]
    assert (handler.needs, handler.waits, handler.branches) == ([], [], ["a:!h"])
