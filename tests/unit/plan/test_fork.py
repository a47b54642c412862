"""What a forked run keeps, goes on with and runs again: pure, over two definitions and what was left."""

from typing import Any

import pytest

from plan.compile import CompiledDefinition, compiled
from plan.fork import Division, StepBefore, divide
from schema.errors import Refused
from schema.rules.validate import validate
from schema.temporal.runs import Fork


def read(steps: dict[str, Any]) -> CompiledDefinition:
    source = validate(
        {"name": "x", "agents": {"a": {"role": "coder"}}, "steps": steps}
    ).definition.model_dump_json(by_alias=True, exclude_unset=True)
    return compiled(source, source)


def value(text: Any = 1, **more: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": text, **more}


CHAIN = {"a": value(), "b": value("${steps.a.output}"), "c": value("${steps.b.output}"), "d": value()}
MAP = {
    "each": {"kind": "map", "over": "input.n", "max_items": 5, "body": {"steps": {"one": value("${item}")}}},
    "end": value("${steps.each.output}"),
}
LOOP = {"again": {"kind": "loop", "max_iterations": 5, "body": {"steps": {"one": value()}}}}
SWITCH = {
    "which": {"kind": "switch", "cases": [{"when": "input.n > 1", "then": "big"}], "else": "small"},
    "big": value(needs=["which:big"]),
    "small": value(needs=["which:small"]),
}


def ended(*names: str, kind: str = "transform") -> dict[str, StepBefore]:
    return {name: StepBefore(kind, True) for name in names}


def split(
    steps: dict[str, Any],
    left: dict[str, StepBefore],
    *from_steps: str,
    outputs: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    same_input: bool = True,
) -> Division:
    fork = Fork("id", list(from_steps), outputs or {})
    return divide(read(steps), read(before or steps), left, fork, same_input=same_input)


def test_a_named_step_runs_again_with_all_behind_it() -> None:
    assert split(CHAIN, ended(*CHAIN), "b") == Division(["a", "d"], [], [], ["b", "c"])


def test_a_written_output_counts_and_all_behind_it_runs_again() -> None:
    division = split(CHAIN, ended(*CHAIN), outputs={"b": 5})
    assert division == Division(["a", "d"], ["b"], [], ["c"])


def test_what_had_not_finished_runs_again() -> None:
    left = ended("a", "d") | {"b": StepBefore("transform", False)}
    assert split(CHAIN, left) == Division(["a", "d"], [], [], ["b", "c"])


def test_what_was_undone_runs_again_with_all_behind_it() -> None:
    left = ended(*CHAIN) | {"b": StepBefore("transform", True, undone=True)}
    assert split(CHAIN, left) == Division(["a", "d"], [], [], ["b", "c"])


def test_a_step_of_another_kind_runs_again() -> None:
    steps = CHAIN | {"b": {"kind": "tool", "tool": "json.parse", "args": {"text": "${steps.a.output}"}}}
    assert split(steps, ended(*CHAIN), before=CHAIN).again == ["b", "c"]


def test_a_new_step_runs_with_all_that_it_was_put_in_front_of() -> None:
    steps = CHAIN | {"c": value("${steps.b.output}", needs=["new"]), "new": value()}
    division = split(steps, ended(*CHAIN), before=CHAIN)
    assert (set(division.kept), set(division.again)) == ({"a", "b", "d"}, {"new", "c"})


def test_an_edited_step_is_kept_until_it_is_named() -> None:
    steps = CHAIN | {"a": value("edited")}
    assert split(steps, ended(*CHAIN), "d", before=CHAIN).again == ["d"]


def test_a_step_that_did_not_need_what_failed_is_kept() -> None:
    steps = {"a": value(), "b": value(), "first": value(needs=["a", "b"], join="any")}
    left = ended("a", "first") | {"b": StepBefore("transform", False)}
    assert split(steps, left) == Division(["a", "first"], [], [], ["b"])
    assert split(steps, left, "b").again == ["b", "first"]


def test_a_step_that_now_needs_what_failed_runs_again() -> None:
    before = {"a": value(), "b": value(), "c": value("${steps.a.output}")}
    steps = before | {"c": value("${steps.a.output}${steps.b.output}")}
    left = ended("a", "c") | {"b": StepBefore("transform", False)}
    assert split(steps, left, before=before).again == ["b", "c"]


@pytest.mark.parametrize(
    ("more", "resumed"),
    [
        ({}, ["each"]),
        ({"same_input": False}, []),
        ({"before": MAP | {"each": MAP["each"] | {"max_items": 4}}}, []),
    ],
)
def test_a_map_goes_on_where_it_means_the_same(more: dict[str, Any], resumed: list[str]) -> None:
    division = split(MAP, {"each": StepBefore("map", False)}, **more)
    assert division.resumed == resumed
    assert division.resumed + division.again == ["each", "end"]


def test_a_named_map_starts_anew() -> None:
    assert split(MAP, {"each": StepBefore("map", False)}, "each").again == ["each", "end"]


def test_a_map_with_undone_items_goes_on_without_them() -> None:
    left = {"each": StepBefore("map", True, undone=True)} | ended("end")
    assert split(MAP, left) == Division([], [], ["each"], ["end"])


def test_a_loop_goes_on_unless_it_was_exhausted_or_undone() -> None:
    assert split(LOOP, {"again": StepBefore("loop", False)}).resumed == ["again"]
    assert split(LOOP, {"again": StepBefore("loop", False, exhausted=True)}).again == ["again"]
    assert split(LOOP, {"again": StepBefore("loop", True, undone=True)}).again == ["again"]


def test_a_branch_that_is_gone_is_chosen_again() -> None:
    left = {"which": StepBefore("switch", True, "big")} | ended("big", "small")
    assert split(SWITCH, left).again == []
    left["which"] = StepBefore("switch", True, "huge")
    assert split(SWITCH, left).again == ["which", "big", "small"]


def test_a_caught_step_is_kept_while_the_same_step_takes_over() -> None:
    steps = {
        "a": {
            "kind": "tool",
            "tool": "json.parse",
            "args": {"text": "x"},
            "catch": [{"errors": ["*"], "then": "b"}],
        },
        "b": value(),
    }
    left = {"a": StepBefore("tool", True, "!b")} | ended("b")
    assert split(steps, left).kept == ["a", "b"]
    without = {**steps, "a": {**steps["a"], "catch": [{"errors": ["*"], "value": 1}]}}
    assert split(without, left, before=steps).again == ["a"]


@pytest.mark.parametrize(
    ("steps", "from_steps", "outputs", "code", "shown"),
    [
        (CHAIN, ["x"], {}, "fork_step_unknown", "a, b, c, d"),
        (CHAIN, [], {"x": 1}, "fork_step_unknown", "a, b, c, d"),
        (MAP, ["one"], {}, "fork_step_unknown", "within 'each'"),
        (CHAIN, ["a"], {"a": 1}, "fork_output_invalid", "run again"),
        (MAP, [], {"each": {}}, "fork_output_invalid", "no list"),
        (SWITCH, [], {"which": "tiny"}, "fork_output_invalid", "big, small"),
    ],
)
def test_what_makes_no_sense_is_refused(
    steps: dict[str, Any], from_steps: list[str], outputs: dict[str, Any], code: str, shown: str
) -> None:
    with pytest.raises(Refused) as caught:
        split(steps, {}, *from_steps, outputs=outputs)
    assert caught.value.code == code
    assert shown in caught.value.message


def test_a_written_output_fits_the_steps_schema() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    steps = {"a": {"kind": "agent", "agent": "a", "prompt": "x", "output_schema": schema}}
    assert split(steps, {}, outputs={"a": {"n": 1}}).given == ["a"]
    with pytest.raises(Refused, match="output_schema"):
        split(steps, {}, outputs={"a": {"n": "one"}})
