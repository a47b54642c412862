"""Dry runs: what is really evaluated, and what stands in for models, people and networks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from activities.rehearsal import mocked_steps, walk
from activities.rehearsal.walk import MocksInvalid, Rehearsal, rehearse
from schema.errors import Refused
from schema.language.tools import TOOLS
from schema.rules import mocks
from schema.rules.planning import EXAMPLE
from schema.rules.validate import validate

ROOT = Path(__file__).resolve().parents[3]
AGENTS = {"coder": {"role": "coder"}}
FAST = {"retry": {"max_attempts": 3}}


def document(steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "d", "agents": AGENTS, "steps": steps, **more}


def play(
    steps: dict[str, Any], given: Any = None, answers: Any = None, *, max_steps: int = 10_000, **more: Any
) -> Rehearsal:
    definition = validate(document(steps, **more)).definition
    read, problems = mocks.read(answers or {})
    assert problems == []
    return rehearse(definition, {} if given is None else given, read, max_steps=max_steps)


def ends(found: Rehearsal) -> list[tuple[str, str]]:
    return [(entry.path, entry.status) for entry in found.trace]


def entry(found: Rehearsal, path: str) -> walk.RehearsalEntry:
    return [one for one in found.trace if one.path == path][-1]


def ask(prompt: str = "go", **more: Any) -> dict[str, Any]:
    return {"kind": "agent", "agent": "coder", "prompt": prompt, **more}


def value(template: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": template, **more}


def call(**more: Any) -> dict[str, Any]:
    return {"kind": "tool", "activity": "work", "task_queue": "q", **more}


# -- kinds ----------------------------------------------------------------------------------------------


def test_an_agent_without_answers_says_who_was_asked_what() -> None:
    found = play({"a": ask("Write about ${input.x}. " + "y" * 100)}, {"x": "cats"})
    assert found.output == "coder: Write about cats. " + "y" * 62
    assert entry(found, "a").input.startswith("Write about cats. ")
    assert (entry(found, "a").mocked, found.defaulted, found.model_calls) == ("default", ["a"], 1)


def test_an_agent_with_a_schema_gets_a_value_that_fits() -> None:
    schema = {
        "type": "object",
        "required": ["score", "items"],
        "properties": {
            "score": {"type": "integer", "minimum": 3},
            "kind": {"enum": ["b", "a"]},
            "items": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/item"}},
        },
        "$defs": {"item": {"type": "object", "properties": {"at": {"type": "string", "format": "date"}}}},
    }
    found = play({"a": ask(output_schema=schema)})
    assert found.output == {"score": 3, "kind": "b", "items": [{"at": "2026-01-31"}] * 2}


def test_where_no_value_can_be_made_up_an_answer_is_asked_for() -> None:
    schema = {"type": "object", "required": ["x"], "properties": {"x": {"pattern": "^[0-9]{4}$"}}}
    schema["properties"]["x"]["type"] = "string"  # type: ignore[index]
    found = play({"a": ask(output_schema=schema), "b": value("${steps.a.output}")})
    assert found.error is not None
    assert (found.status, found.error["code"], found.never_reached) == ("stopped", "mock_missing", ["b"])
    again = play({"a": ask(output_schema=schema)}, answers={"a": [{"output": {"x": "2026"}}]})
    assert again.output == {"x": "2026"}


def test_a_planner_comes_to_a_plan_that_a_collaboration_step_takes() -> None:
    found = play(
        {
            "plan": ask(emits="definition"),
            "do": {"kind": "collaboration", "definition": "${steps.plan.output}", "input": {"task": "x"}},
        },
        answers={"do": [{"output": {"haiku": "…"}}]},
    )
    assert entry(found, "plan").output == EXAMPLE
    assert (found.output, entry(found, "do").input) == ({"haiku": "…"}, {"task": "x"})


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"name": "x", "steps": {"a": {"kind": "nonsense"}}}, "plan_invalid"),
        ("no JSON", "plan_invalid"),
        ({"steps": {"a": value(1)}, "name": "x", "input": {"required": ["task"]}}, "input_invalid"),
    ],
)
def test_a_planned_definition_is_checked(plan: Any, code: str) -> None:
    step = {"kind": "collaboration", "definition": "${input.plan}"}
    found = play({"do": step}, {"plan": plan})
    assert found.error is not None and found.error["code"] == code


def test_quick_tools_really_run_unless_they_are_mocked() -> None:
    steps = {
        "parse": {"kind": "tool", "tool": "json.parse", "args": {"text": "${input.text}"}},
        "pause": {"kind": "tool", "tool": "pause", "args": {"seconds": 1}},
    }
    assert play(steps, {"text": "[1]"}).output == {"parse": {"value": [1]}, "pause": {"seconds": 1}}
    mocked = play(steps, {"text": "no JSON"}, {"parse": [{"output": {"value": 2}}]})
    assert entry(mocked, "parse").output == {"value": 2}
    failed = play(steps, {"text": "no JSON"})
    assert failed.error is not None and failed.error["code"] == "tool_failed"
    assert mocked_steps._QUICK.keys() == {name for name, tool in TOOLS.items() if tool.quick}


def test_a_tool_is_called_with_fitting_arguments_and_keeps_its_promise() -> None:
    http = {"kind": "tool", "tool": "http", "args": {"url": "${input.url}"}}
    assert play({"a": http}, {"url": "http://x"}).output["status"] == 200
    wrong = play({"a": http}, {"url": 3})
    assert wrong.error is not None and wrong.error["code"] == "tool_args_wrong"
    own = call(args={"n": "${input.n}"}, output_schema={"type": "object", "required": ["id"]})
    found = play({"a": own}, {"n": 1}, {"a": [{"output": {}}]})
    assert found.error is not None and found.error["code"] == "output_invalid"
    assert entry(found, "a").input == {"n": 1}
    assert play({"a": own}, {"n": 1}).output == {"id": None}


def test_waiting_takes_no_time() -> None:
    steps = {
        "nap": {"kind": "wait", "for": "30d"},
        "until": {"kind": "wait", "until": "${input.at}"},
    }
    found = play(steps, {"at": "2030-01-01T00:00:00Z"})
    assert found.output["until"] == {"until": "2030-01-01T00:00:00+00:00"}
    assert (found.status, found.defaulted) == ("completed", [])
    wrong = play(steps, {"at": "tomorrow"})
    assert wrong.error is not None and wrong.error["code"] == "wait_time_invalid"


def test_a_switch_takes_one_branch_and_what_needs_another_is_skipped() -> None:
    steps = {
        "size": {"kind": "switch", "cases": [{"when": "input.n > 3", "then": "large"}], "else": "small"},
        "big": value("big", needs=["size:large"]),
        "little": value("little", needs=["size:small"]),
        "either": value("${steps[?'big'].?output.orValue('-')}", needs=["big", "little"], join="any"),
    }
    steps["either"]["value"] = "on"
    found = play(steps, {"n": 4})
    assert ends(found) == [
        ("size", "completed"),
        ("big", "completed"),
        ("little", "skipped"),
        ("either", "completed"),
    ]
    assert entry(found, "size").branch == "large"
    assert found.output == "on"


def test_a_condition_skips_and_so_does_what_is_skipped() -> None:
    found = play(
        {
            "a": value(1, when="input.on"),
            "b": value("${steps.a.output}"),
            "c": value("${steps[?'b'].?output.orValue('none')}"),
        },
        {"on": False},
    )
    assert ends(found) == [("a", "skipped"), ("b", "skipped"), ("c", "completed")]
    assert found.output == "none"


# -- people ---------------------------------------------------------------------------------------------

REVIEW = {
    "kind": "human",
    "title": "Ship ${input.x}?",
    "show": {"draft": "${input.x}"},
    "form": {"type": "object", "properties": {"why": {"type": "string"}}},
    "actions": [{"id": "approve", "edits": "draft"}, {"id": "reject", "requires": ["why"]}],
    "approvals": 2,
}


def test_people_approve_where_nobody_says_otherwise() -> None:
    found = play({"r": REVIEW}, {"x": "it"})
    assert found.output["decision"] == "approve"
    assert found.output["value"] == "it"
    assert found.output["by"] == ["user:somebody", "user:somebody_2"]
    assert entry(found, "r").input == {"title": "Ship it?", "show": {"draft": "it"}}
    assert found.defaulted == ["r"]


def test_people_edit_and_reject() -> None:
    edited = play({"r": REVIEW}, {"x": "it"}, {"r": [{"decision": "approve", "edited": "that"}]})
    assert edited.output["value"] == "that"
    rejected = play(
        {"r": REVIEW}, {"x": "it"}, {"r": [{"decision": "reject", "form": {"why": "no"}, "by": "user:ann"}]}
    )
    assert (rejected.output["decision"], rejected.output["form"]) == ("reject", {"why": "no"})
    assert rejected.output["by"][0] == "user:ann"
    late = play({"r": REVIEW}, {"x": "it"}, {"r": [{"error": {"code": "human_timeout"}}]})
    assert late.error is not None and late.error["code"] == "human_timeout"


# -- answers --------------------------------------------------------------------------------------------


def test_answers_are_used_in_order_and_the_last_one_again() -> None:
    steps = {
        "m": {"kind": "map", "over": "[1, 2, 3]", "max_items": 3, "body": {"steps": {"a": ask("${item}")}}}
    }
    found = play(steps, answers={"a": [{"output": "one"}, {"output": "two"}]})
    assert found.output == ["one", "two", "two"]
    assert [one.input for one in found.trace if one.kind == "agent"] == ["1", "2", "3"]


def test_a_retryable_error_is_tried_again_at_once() -> None:
    answers = {"a": [{"error": {"code": "provider_timeout"}}] * 2 + [{"output": "fine"}]}
    found = play({"a": ask()}, answers=answers, defaults=FAST)
    assert [(one.attempt, one.status) for one in found.trace] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert (found.output, found.model_calls) == ("fine", 3)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        ({"code": "provider_timeout"}, 3),
        ({"code": "provider_auth"}, 1),
        ({"code": "provider_auth", "retryable": True}, 3),
        ({"code": "provider_timeout", "retryable": False}, 1),
        ({"code": "provider_rate_limited"}, 1),
    ],
)
def test_how_often_an_error_is_tried_again(error: dict[str, Any], attempts: int) -> None:
    defaults = {"retry": {"max_attempts": 3, "never": ["provider_rate_limited"]}}
    found = play({"a": ask()}, answers={"a": [{"error": error}]}, defaults=defaults)
    assert (found.status, found.executed) == ("failed", attempts)
    assert found.error == {"code": error["code"], "message": "as the mock says"}


def test_errors_of_ones_own_activities_are_tried_again() -> None:
    found = play({"a": call()}, answers={"a": [{"error": {"code": "Mine"}}, {"output": 1}]})
    assert (found.output, found.executed) == (1, 2)


def test_an_answer_that_does_not_fit_is_asked_for_again() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    step = ask(output_schema=schema, reflect={"max": 1, "expect": [{"that": "output.n > 0", "message": "n"}]})
    answers = [{"output": {}}, {"output": {"n": 1}}]
    found = play({"a": step}, answers={"a": answers})
    assert (found.output, found.model_calls) == ({"n": 1}, 2)
    assert [one.status for one in found.trace] == ["failed", "completed"]
    never = play({"a": step}, answers={"a": [{"output": {"n": 0}}]})
    assert never.error is not None and never.error["code"] == "output_invalid"
    assert never.model_calls == 2


# -- errors ---------------------------------------------------------------------------------------------


def test_the_first_rule_that_names_the_code_catches() -> None:
    steps = {
        "a": call(
            catch=[{"errors": ["Mine"], "then": "mend"}, {"errors": ["*"], "value": "instead"}],
            retry={"max_attempts": 1},
        ),
        "b": value("${steps.a.output}"),
        "mend": value("${steps.a.error.code}: ${steps.a.error.message}"),
    }
    mended = play(steps, answers={"a": [{"error": {"code": "Mine", "message": "oh"}}]})
    assert ends(mended) == [("a", "caught"), ("b", "skipped"), ("mend", "completed")]
    assert mended.output == {"b": None, "mend": "Mine: oh"}
    other = play(steps, answers={"a": [{"error": {"code": "Other"}}]})
    assert ends(other) == [("a", "completed"), ("b", "completed"), ("mend", "skipped")]
    assert other.output["b"] == "instead"
    assert entry(other, "a").error == {"code": "Other", "message": "as the mock says"}
    fine = play(steps, answers={"a": [{"output": 1}]})
    assert ends(fine) == [("a", "completed"), ("b", "completed"), ("mend", "skipped")]


def test_an_error_that_nobody_catches_ends_the_run() -> None:
    found = play(
        {"a": value("${input.x}"), "b": value("${1 / input.n}", needs=["a"]), "c": value(1, needs=["b"])},
        {"x": 1, "n": 0},
    )
    assert (found.status, found.output, found.never_reached) == ("failed", None, ["c"])
    assert found.error is not None and found.error["code"] == "expression_failed"
    assert entry(found, "b").error == found.error


def test_a_condition_that_fails_is_an_error_of_its_step() -> None:
    found = play({"a": value(1, when="input.n", catch=[{"errors": ["*"], "value": 2}])}, {"n": 1})
    assert (found.output, ends(found)) == (2, [("a", "completed")])


# -- joins ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "on", "status"),
    [
        ("all", [True, True, True], "completed"),
        ("all", [True, True, False], "skipped"),
        ("any", [False, False, True], "completed"),
        ("any", [False, False, False], "skipped"),
        ({"quorum": 2}, [True, False, True], "completed"),
        ({"quorum": 2}, [True, False, False], "skipped"),
    ],
)
def test_joins(join: Any, on: list[bool], status: str) -> None:
    steps = {f"s{at}": value(at, when=f"input.on[{at}]") for at in range(3)}
    found = play(steps | {"end": value(1, needs=list(steps), join=join)}, {"on": on})
    assert entry(found, "end").status == status


# -- loops and maps -------------------------------------------------------------------------------------


def loop(**more: Any) -> dict[str, Any]:
    body = {"steps": {"add": value("${iter.carry + 1}")}}
    return {"kind": "loop", "max_iterations": 4, "init": 0, "carry": "${iter.output}", "body": body, **more}


def test_a_loop_carries_and_ends_when_it_may() -> None:
    found = play({"l": loop(until="iter.output >= 2"), "n": value("${steps.l.iterations}")})
    assert ends(found) == [
        ("l", "completed"),
        ("l[0]", "completed"),
        ("l[0].add", "completed"),
        ("l[1]", "completed"),
        ("l[1].add", "completed"),
        ("n", "completed"),
    ]
    assert entry(found, "l").output == 2
    assert found.output == 2


def test_a_loop_that_is_exhausted() -> None:
    goes_on = play({"l": loop(until="iter.output > 9")})
    assert (goes_on.status, goes_on.output) == ("completed", 4)
    fails = play({"l": loop(until="iter.output > 9", on_exhausted="fail")})
    assert fails.error is not None and fails.error["code"] == "loop_exhausted"
    caught = play(
        {
            "l": loop(
                until="iter.output > 9",
                on_exhausted="fail",
                catch=[{"errors": ["loop_exhausted"], "value": 0}],
            )
        }
    )
    assert caught.output == 0


def test_a_loop_sees_the_iteration_before() -> None:
    body = {"steps": {"a": value(["${iter.index}", "${iter.previous}"])}}
    found = play({"l": {"kind": "loop", "max_iterations": 3, "body": body}})
    assert found.output == [2, [1, [0, None]]]


def each(over: str, inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "map", "over": over, "max_items": 5, "body": {"steps": inner}, **more}


def test_a_map_keeps_the_order_and_tolerates_as_many_failures_as_it_says() -> None:
    inner = {"a": value("${10 / item}")}
    steps = {"m": each("input.list", inner, tolerate={"failed": 1}), "s": value("${steps.m.items[1].status}")}
    found = play(steps, {"list": [5, 0, 2]})
    assert entry(found, "m").output == [2, None, 5]
    assert found.output == "failed"
    too_many = play(steps, {"list": [0, 1, 0]})
    assert too_many.error is not None and too_many.error["message"].startswith("item 2: ")
    half = {"m": each("input.list", inner, tolerate={"failed_percent": 50})}
    assert play(half, {"list": [0, 1, 0, 1]}).output == [None, 10, None, 10]


@pytest.mark.parametrize(
    ("given", "code"), [([1] * 6, "map_too_wide"), ("text", "map_not_a_list"), ({"a": 1}, "map_not_a_list")]
)
def test_a_map_over_what_it_cannot_take(given: Any, code: str) -> None:
    found = play({"m": each("input.list", {"a": value(1)})}, {"list": given})
    assert found.error is not None and found.error["code"] == code


def test_a_map_in_a_loop() -> None:
    inner = {"m": each("input.list", {"a": value("${item * (iter.index + 1)}")})}
    found = play({"l": {"kind": "loop", "max_iterations": 2, "body": {"steps": inner}}}, {"list": [1, 2]})
    assert found.output == [2, 4]
    assert [path for path, _ in ends(found) if path.endswith(".a")] == [
        "l[0].m[0].a",
        "l[0].m[1].a",
        "l[1].m[0].a",
        "l[1].m[1].a",
    ]


def test_what_was_under_way_when_something_failed_is_cancelled() -> None:
    found = play({"m": each("[1, 0]", {"a": value("${1 / item}")})})
    assert ends(found) == [
        ("m", "failed"),
        ("m[0]", "completed"),
        ("m[0].a", "completed"),
        ("m[1]", "cancelled"),
        ("m[1].a", "failed"),
    ]


# -- limits ---------------------------------------------------------------------------------------------


def test_a_dry_run_ends_after_so_many_steps() -> None:
    found = play({"l": loop(max_iterations=1000)}, max_steps=50)
    assert found.error is not None
    assert (found.status, found.error["code"], found.executed) == ("stopped", "rehearsal_too_long", 50)


def test_a_dry_run_ends_when_its_time_is_over() -> None:
    definition = validate(document({"l": loop(max_iterations=50_000)})).definition
    found = rehearse(definition, {}, {}, max_steps=10**6, max_seconds=0.2)
    assert found.error is not None and found.error["message"].startswith("stopped after 0.2 s")


def test_a_dry_run_does_not_hold_any_amount_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_HELD_CHARS", 1_000)
    body = {"steps": {"a": value("${iter.carry + iter.carry}")}}
    found = play({"l": loop(init="text", max_iterations=40, body=body)})
    assert found.error is not None and found.error["code"] == "rehearsal_too_long"


def test_the_trace_shows_the_beginning_of_long_values(monkeypatch: pytest.MonkeyPatch) -> None:
    found = play({"a": value("${input.x}"), "b": value(["${steps.a.output}"])}, {"x": "y" * 5_000})
    assert entry(found, "a").output == "y" * 2_048 + "… (5,000 characters)"
    assert entry(found, "b").output.startswith('["yyy')
    assert found.output == ["y" * 5_000]
    monkeypatch.setattr(walk, "MAX_TRACE_CHARS", 3_000)
    assert (
        entry(
            play({"a": value("${input.x}"), "b": value("${steps.a.output}")}, {"x": "y" * 5_000}), "b"
        ).output
        == "…"
    )


# -- what is refused ------------------------------------------------------------------------------------


def test_an_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Refused, match="the input does not fit"):
        play({"a": value(1)}, {"n": "x"}, input={"type": "object", "properties": {"n": {"type": "integer"}}})


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ([], ""),
        ({"a": []}, "/a"),
        ({"a": {"output": 1}}, "/a"),
        ({"a": [1]}, "/a/0"),
        ({"a": [{"outptu": 1}]}, "/a/0/outptu"),
        ({"a": [{"error": {"message": "x"}}]}, "/a/0/error/code"),
    ],
)
def test_mocks_of_the_wrong_shape(given: Any, pointer: str) -> None:
    _, problems = mocks.read(given)
    assert [(one.code, one.pointer) for one in problems] == [("mocks_invalid", pointer)]


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"aa": [{"output": "x"}]}, "/aa"),
        ({"t": [{"output": 1}]}, "/t"),
        ({"a": [{"output": 1}]}, "/a/0/output"),
        ({"a": [{}]}, "/a/0"),
        ({"a": [{"output": "x", "error": {"code": "x"}}]}, "/a/0"),
        ({"a": [{"decision": "approve"}]}, "/a/0"),
        ({"a": [{"output": "x", "form": {}}]}, "/a/0"),
        ({"r": [{"output": "x"}]}, "/r/0"),
        ({"r": [{"decision": "aprove"}]}, "/r/0"),
        ({"r": [{"decision": "approve"}, {"decision": "reject"}]}, "/r/1"),
        ({"r": [{"decision": "reject", "form": {"why": 1}}]}, "/r/0"),
        ({"r": [{"decision": "reject", "form": {"why": "x"}, "edited": 1}]}, "/r/0"),
    ],
)
def test_mocks_that_cannot_be_answers_of_their_steps(given: Any, pointer: str) -> None:
    steps = {"a": ask(), "t": value(1), "r": REVIEW}
    with pytest.raises(MocksInvalid) as refused:
        play(steps, {"x": 1}, given)
    assert [one.pointer for one in refused.value.problems] == [pointer]


def test_a_dry_run_asks_for_nothing_that_is_heavy() -> None:
    code = (
        "import sys, activities.rehearsal.walk; "
        "print(*(n for n in ('litellm', 'torch', 'weaviate', 'neo4j') if n in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


SCORED = {
    "type": "object",
    "required": ["score", "rank"],
    "properties": {"score": {"type": "number"}, "rank": {"type": "integer"}},
}


@pytest.mark.parametrize("until", ["iter.output.score / 10.0 >= 0.9", "iter.output.score / 10 >= 0.9"])
@pytest.mark.parametrize(("score", "iterations"), [(1, 3), (1.0, 3), (9.5, 1), (9, 1), (9.0, 1)])
def test_a_number_decides_the_same_whichever_way_it_is_written(
    until: str, score: float, iterations: int
) -> None:
    ask = {"kind": "agent", "agent": "coder", "prompt": "judge", "output_schema": SCORED}
    loop = {"kind": "loop", "max_iterations": 3, "until": until, "body": {"steps": {"j": ask}}}
    told = {"kind": "transform", "value": "${steps.l.output.score} of ${steps.l.output.rank % 2 + 10}"}
    found = play({"l": loop, "t": told}, answers={"j": [{"output": {"score": score, "rank": 2.0}}]})
    assert found.status == "completed"
    assert found.output == f"{score:g} of 10"
    assert found.model_calls == iterations


@pytest.mark.parametrize("kind", ["input", "tool", "human"])
def test_numbers_are_what_their_schema_says_wherever_they_come_from(kind: str) -> None:
    shape = {"type": "object", "properties": {"n": {"type": "number"}}}
    steps = {
        "input": {},
        "tool": {"a": {"kind": "tool", "activity": "x", "task_queue": "q", "output_schema": shape}},
        "human": {"a": {"kind": "human", "title": "Well?", "form": shape}},
    }[kind]
    read = {"input": "input.n", "tool": "steps.a.output.n", "human": "steps.a.output.form.n"}[kind]
    answers = {
        "tool": {"a": [{"output": {"n": 1}}]},
        "human": {"a": [{"decision": "approve", "form": {"n": 1}}]},
    }
    halved = {"kind": "transform", "value": f"${{{read} / 2}}"}
    found = play({**steps, "h": halved}, {"n": 1}, answers.get(kind), input=shape)
    assert (found.status, found.output) == ("completed", 0.5)
