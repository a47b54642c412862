"""Plans as pictures: what is drawn, and that nothing a user wrote can leave its label."""

import re
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.prices import per_token
from plan import diagram
from plan.compile import compile_plan
from schema.language.definition import Definition
from schema.rules.validate import validate

EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "agents": {"coder": {"role": "coder"}},
    "steps": {
        "pick": {"kind": "switch", "cases": [{"when": "input.n > 3", "then": "large"}], "else": "small"},
        "improve": {
            "kind": "loop",
            "needs": ["pick:large"],
            "max_iterations": 3,
            "until": "iter.index > 1",
            "body": {
                "steps": {
                    "per_file": {
                        "kind": "map",
                        "over": "input.files",
                        "max_items": 10,
                        "body": {
                            "steps": {"write": {"kind": "agent", "agent": "coder", "prompt": "${item}"}}
                        },
                    },
                    "count": {"kind": "transform", "value": "${size(steps.per_file.output)}"},
                }
            },
        },
        "review": {"kind": "human", "title": "Ship it?", "needs": ["pick:small"], "assignees": ["user:ann"]},
        "child": {
            "kind": "collaboration",
            "ref": "other@3",
            "needs": ["review"],
            "catch": [{"errors": ["timeout", "run_failed"], "then": "mend"}],
        },
        "mend": {"kind": "transform", "value": "${steps.child.error.message}"},
        "nap": {"kind": "wait", "for": "5m", "needs": ["improve"]},
        "call": {
            "kind": "tool",
            "tool": "http",
            "args": {"url": "https://x.example/"},
            "needs": ["nap", "child"],
            "join": "any",
            "compensate": {"tool": "http", "args": {"url": "https://x.example/undo"}},
            "catch": [{"errors": ["*"], "value": None}],
        },
        "end": {"kind": "agent", "agent": "coder", "prompt": "${steps.call.output}", "when": "input.n < 5"},
        "after": {"kind": "transform", "value": "${steps[?'end'].?output.orValue(1)}"},
    },
}


def drawn(document: dict[str, Any]) -> tuple[Definition, list[str]]:
    definition = validate(document).definition
    return definition, diagram.mermaid(definition, compile_plan(definition)).splitlines()


def test_every_kind_has_its_shape() -> None:
    _, lines = drawn(EVERYTHING)
    for line in (
        '  s_pick{"pick<br/>switch"}',
        '  subgraph s_improve["improve · at most 3 times until iter.index #62; 1"]',
        '    subgraph s_per_file["per_file · for each of input.files, 20 at a time"]',
        '      s_write("write<br/>agent coder")',
        '    s_count[/"count<br/>transform"/]',
        '  s_review{{"review<br/>ask user:ann: Ship it?"}}',
        '  s_child[["child<br/>run other@3"]]',
        '  s_nap(("nap<br/>wait 5m"))',
        '  s_call["call<br/>http<br/>any of 2<br/>undo: http<br/>a value instead of #42;"]',
        '  s_end("end<br/>agent coder<br/>when input.n #60; 5")',
    ):
        assert line in lines, line


def test_every_dependency_has_its_arrow() -> None:
    _, lines = drawn(EVERYTHING)
    arrows = [line.strip() for line in lines if re.search(r"^  s_\w+ [-=.]+>", line)]
    assert sorted(arrows) == [
        "s_call --> s_end",
        "s_child --> s_call",
        's_child ==>|"timeout, run_failed"| s_mend',
        "s_end -.-> s_after",
        "s_improve --> s_nap",
        "s_nap --> s_call",
        "s_per_file --> s_count",
        's_pick -->|"large"| s_improve',
        's_pick -->|"small"| s_review',
        "s_review --> s_child",
    ]


def test_a_stream_is_dashed_and_depends_on_nothing() -> None:
    agents = {"a": {"kind": "agent", "agent": "coder", "prompt": "x"}}
    agents["b"] = {"kind": "agent", "agent": "coder", "prompt": "${steps.a.output}"}
    _, lines = drawn({**EVERYTHING, "steps": agents, "stream": [{"from": "a", "to": "b"}]})
    at = lines.index("  s_a -.-> s_b")
    assert lines[at + 1].startswith("  linkStyle 1 stroke-dasharray")
    assert "  s_a --> s_b" in lines


def test_steps_that_share_an_activity_look_alike_and_a_legend_says_so() -> None:
    _, lines = drawn(EVERYTHING)
    assert "  class s_pick,s_count,s_mend,s_after,legend_quick quick" in lines
    assert '    legend_quick["shares a local activity with its neighbours"]' in lines
    plain = {"a": {"kind": "agent", "agent": "coder", "prompt": "x"}}
    _, lines = drawn({**EVERYTHING, "steps": plain})
    assert not any("legend" in line for line in lines)
    _, lines = drawn({**EVERYTHING, "steps": plain, "defaults": {"chain": "all"}})
    assert "  class s_a,legend_slow slow" in lines


HOSTILE = (
    '"]; click s_a call alert(1)',
    "<script>alert(1)</script>",
    "`md` **b**",
    "%%{init: {}}%%",
    "a\nend\nb",
    "#quot;",
    "#60;",
    "&lt;",
    "| } ) ] \\",
    "$$x$$",
    "1. x",
    "- x",
    "\u202e\u2028",
    "ﬂ°°60¶ß",
    "x" * 500,
    " ",
)


def hostile(text: str) -> dict[str, Any]:
    return {
        "name": "x",
        "steps": {
            "end": {"kind": "human", "title": text},
            "call": {
                "kind": "tool",
                "activity": text[:200] or "x",
                "task_queue": "q",
                "catch": [{"errors": [text[:60] or "x"], "then": "graph"}],
            },
            "graph": {"kind": "transform", "value": 1},
        },
    }


_LINE = re.compile(
    r'  s_\w+(\{\{|\(|\[|\[/)"[^"<>`&|\\{}\[\]$*\n]*(<br/>[^"<>`&|\\{}\[\]$*\n]*)*"(\}\}|\)|\]|/\])'
    r'|  s_\w+ (-->|==>)(\|"[^"<>`&|\\{}\[\]$*\n]*"\|)? s_\w+'
    r'|flowchart TD|  subgraph legend\["How steps are done"\]|    legend_\w+\["[\w ,]+"\]|  end'
    r"|  class(Def)? [\w,]+ [\w:#,]+"
)


def _check(text: str) -> None:
    # The shapes are what the validator lets through: what it refuses is never drawn.
    definition = Definition.model_validate(hostile(text))
    lines = diagram.mermaid(definition, compile_plan(definition)).splitlines()
    assert [line for line in lines if not _LINE.fullmatch(line)] == []
    assert len(lines) == len(diagram.mermaid(definition, compile_plan(definition)).split("\n"))


def test_labels_mean_what_they_say() -> None:
    assert diagram._label("$$$x$$") == "#36;#8203;#36;#8203;#36;x#36;#8203;#36;"
    assert diagram._label("ﬂ°60¶ß") == "fl#176;60#182;ß"
    assert diagram._label(" \n ") == "·"
    assert diagram._label("a  b\nc_1 #60;") == "a b c_1 #35;60;"
    assert diagram._label("a\u202eb\x07") == "ab"
    assert diagram._label("x" * 100) == "x" * 59 + "…"


def test_hostile_text_stays_in_its_label() -> None:
    for text in HOSTILE:
        _check(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_stays_in_its_label(text: str) -> None:
    assume("${" not in text)
    _check(text)


def test_the_plan_as_json() -> None:
    definition = validate(EVERYTHING).definition
    found = diagram.as_json(definition, compile_plan(definition), per_token)
    nodes = {node["id"]: node for node in found["nodes"]}
    assert list(nodes) == [step.id for step, _ in diagram.planned(compile_plan(definition))]
    assert {name: node["frame"] for name, node in nodes.items() if node["frame"]} == {
        "per_file": "improve",
        "write": "per_file",
        "count": "improve",
    }
    assert nodes["call"] == {
        "id": "call",
        "kind": "tool",
        "summary": "call · http",
        "what": "http",
        "frame": "",
        "needs": ["nap", "child"],
        "waits": [],
        "streams": [],
        "branches": [],
        "quorum": 1,
        "when": None,
        "chain": "",
        "done": "an activity of its own",
        "timeout_seconds": 120.0,
        "retry": {
            "max_attempts": 8,
            "initial_seconds": 1.0,
            "backoff": 2.0,
            "max_seconds": 30.0,
            "never": [],
        },
        "catch": [{"errors": ["*"], "then": ""}],
        "compensates": True,
        "priority": 3,
    }
    assert [nodes[name]["done"] for name in ("pick", "improve", "review")] == [
        "shares a local activity with its neighbours",
        "its steps one by one",
        "waits in the workflow",
    ]
    assert nodes["review"]["retry"] is None
    assert {"from": "child", "to": "mend", "kind": "catch", "label": "timeout, run_failed"} in found["edges"]
    assert {"from": "pick", "to": "review", "kind": "branch", "label": "small"} in found["edges"]
    assert found["estimate"]["model_calls"] == 31
    assert found["estimate"]["usd"] > 0
    assert diagram.as_json(definition, compile_plan(definition))["estimate"]["usd"] is None
