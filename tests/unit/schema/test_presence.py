"""What may be absent when a frame has ended is known at upload, and so is a step that can never run."""
# ruff: noqa: E501 - the cases are a table.

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from schema.errors import InvalidDefinition
from schema.language.definition import Definition
from schema.language.dependencies import dependencies, handlers
from schema.language.steps import Quorum, Step, SwitchStep
from schema.language.streams import Streams
from schema.rules.presence import Presence
from schema.rules.validate import validate
from tests.support.definitions import drafts

STEP = {"kind": "transform", "value": 1}
SWITCH = {
    "kind": "switch",
    "cases": [{"when": "input.n > 1", "then": "a"}, {"when": "input.n > 0", "then": "b"}],
    "else": "c",
}
CAUGHT = {**STEP, "catch": [{"errors": ["*"], "then": "h"}]}
STOOD_IN = {**SWITCH, "catch": [{"errors": ["*"], "value": "none"}]}


def on(*needs: str, **more: Any) -> dict[str, Any]:
    return {**STEP, "needs": list(needs), **more}


def value(text: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": text, **more}


BRANCHES = {"r": SWITCH, "x": on("r:a"), "y": on("r:b"), "z": on("r:c")}
TWO = {"r": SWITCH, "q": SWITCH, "x": on("r:a"), "y": on("q:a")}

CERTAIN: list[tuple[dict[str, Any], str]] = [
    ({"a": STEP}, "${steps.a.output}"),
    ({"a": STEP, "b": on("a")}, "${steps.b.output}"),
    # Whichever branch is taken, directly and behind further steps.
    ({**BRANCHES, "j": on("r:a", "r:b", "r:c", join="any")}, "${steps.j.output}"),
    ({**BRANCHES, "j": on("x", "y", "z", join="any")}, "${steps.j.output}"),
    ({**BRANCHES, "w": on("x"), "j": on("w", "r:b", "z", join="any"), "k": on("j")}, "${steps.k.output}"),
    (
        {
            **TWO,
            "j": on("r:a", "r:b", "r:c", join="any"),
            "k": on("q:a", "q:b", "q:c", join="any"),
            "l": on("j", "k"),
        },
        "${steps.l.output}",
    ),
    # Enough of them are certain.
    (
        {"a": STEP, "b": STEP, "c": on(when="input.n > 1"), "j": on("a", "b", "c", join={"quorum": 2})},
        "${steps.j.output}",
    ),
    # A step or who takes over for it.
    ({"a": CAUGHT, "h": STEP, "j": on("a", "h", join="any")}, "${steps.j.output}"),
    ({"a": {**STEP, "catch": [{"errors": ["*"], "value": 0}]}}, "${steps.a.output}"),
    # Of a step that was skipped there are facts as well.
    (BRANCHES, "${steps.x.status}"),
    ({"a": on(when="input.n > 1")}, "${size(steps.a)}"),
    (BRANCHES, "${steps.r.branch}"),
    # What is only evaluated where it is there.
    (BRANCHES, "${has(steps.x.output) ? steps.x.output : 0}"),
    (BRANCHES, "${steps[?'x'].?output.orValue(steps.y.output)}"),
    (
        BRANCHES,
        "${steps.r.branch == 'a' ? steps.x.output : steps.r.branch == 'b' ? steps.y.output : steps.z.output}",
    ),
    (BRANCHES, "${has(steps.x.output) && steps.x.output == 1}"),
    (BRANCHES, "${steps.x.status != 'completed' || steps.x.output == 1}"),
    (BRANCHES, "${steps[?'x'].?output.optMap(o, o + 1).orValue(0)}"),
]
UNCERTAIN: list[tuple[dict[str, Any], str]] = [
    (BRANCHES, "${steps.x.output}"),
    ({**BRANCHES, "w": on("x")}, "${steps.w.output}"),
    ({**BRANCHES, "j": on("x", "y", join="any")}, "${steps.j.output}"),
    ({"a": on(when="input.n > 1")}, "${steps.a.output}"),
    ({"a": on(when="input.n > 1"), "b": value("${steps.a.output}")}, "${steps.b.output}"),
    ({"a": CAUGHT, "h": STEP}, "${steps.a.output}"),
    ({"a": CAUGHT, "h": STEP}, "${steps.h.output}"),
    (
        {
            "a": STEP,
            "b": on(when="input.n > 1"),
            "c": on(when="input.n > 2"),
            "j": on("a", "b", "c", join={"quorum": 2}),
        },
        "${steps.j.output}",
    ),
    (TWO, "${has(steps.x.output) ? 1 : 0} ${steps.y.output}"),
    # To look at one step tells nothing of another.
    (BRANCHES, "${has(steps.x.output) && steps.y.output == 1}"),
    (BRANCHES, "${steps.x.output == 1 && has(steps.x.output)}"),
    ({"r": STOOD_IN}, "${steps.r.branch}"),
    (
        {"r": STOOD_IN, "x": on("r:a"), "y": on("r:b"), "z": on("r:c"), "j": on("x", "y", "z", join="any")},
        "${steps.j.output}",
    ),
]
IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    (
        {**BRANCHES, "j": on("x", "y"), "k": on("j")},
        "/steps/j/needs",
        "'x' and 'y', which never both complete",
    ),
    (
        {**BRANCHES, "w": on("x"), "j": on("w", "r:b")},
        "/steps/j/needs",
        "'w' and 'r:b', which never both complete",
    ),
    (
        {**BRANCHES, "j": value("${steps.x.output}${steps.y.output}")},
        "/steps/j",
        "'x' and 'y', which never both complete",
    ),
    (
        {**BRANCHES, "j": on("x", "y", "z", join={"quorum": 2})},
        "/steps/j/needs",
        "'x' and 'y', which never both complete",
    ),
    ({"a": CAUGHT, "h": STEP, "j": on("a", "h")}, "/steps/j/needs", "'a' and 'h', which never both complete"),
    ({"a": CAUGHT, "b": on("a"), "h": on("b")}, "/steps/h/needs", "needs that are never met in one run"),
]


def whole(steps: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "steps": steps, **more}


def in_loop(steps: Mapping[str, Any], field: str, template: str) -> dict[str, Any]:
    """The steps as the body of a loop, one of whose fields reads them."""
    body: dict[str, Any] = {"steps": steps}
    loop = {"kind": "loop", "max_iterations": 2, "body": body}
    if field == "output":
        body["output"] = [template]
    elif field == "until":
        loop["until"] = f"dyn({template.removeprefix('${').removesuffix('}')}) == dyn(1)"
    else:
        loop["carry"] = template
    return whole({"around": loop})


def documents(steps: Mapping[str, Any], template: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(definition, pointer to where the template stands) for every place that is evaluated at a frame's end."""
    yield whole(steps, output={"o": template}), "/output/o"
    body = {"steps": steps, "output": template}
    around = {"kind": "map", "over": "[1]", "max_items": 1, "body": body}
    yield whole({"around": around}), "/steps/around/body/output"
    yield in_loop(steps, "output", template), "/steps/around/body/output/0"
    yield in_loop(steps, "carry", template), "/steps/around/carry"
    if template.count("${") == 1:
        yield in_loop(steps, "until", template), "/steps/around/until"


def places(document: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        validate(document)
    except InvalidDefinition as error:
        return [(one.code, one.pointer) for one in error.problems]
    return []


@pytest.mark.parametrize(("steps", "template"), CERTAIN)
def test_what_is_surely_there_may_be_read(steps: dict[str, Any], template: str) -> None:
    for document, _ in documents(steps, template):
        assert places(document) == []


@pytest.mark.parametrize(("steps", "template"), UNCERTAIN)
def test_what_may_be_absent_is_refused_wherever_it_is_read(steps: dict[str, Any], template: str) -> None:
    for document, pointer in documents(steps, template):
        assert places(document) == [("reference_uncertain", pointer)]


@pytest.mark.parametrize(("steps", "pointer", "found"), IMPOSSIBLE)
def test_a_step_that_can_never_run_is_refused(steps: dict[str, Any], pointer: str, found: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(whole(steps))
    assert [(one.code, one.pointer, one.found) for one in caught.value.problems] == [
        ("fields_conflict", pointer, found)
    ]


def test_a_compensation_reads_no_need_of_which_others_are_enough() -> None:
    undo = {"tool": "pause", "args": {"seconds": "${steps.b.output}"}}
    own = {"kind": "tool", "activity": "send", "task_queue": "q", "compensate": undo}
    fine = whole({"b": STEP, "c": STEP, "a": {**own, "needs": ["b", "c"]}})
    assert places(fine) == []
    fine["steps"]["a"]["join"] = "any"
    assert places(fine) == [("reference_uncertain", "/steps/a/compensate/args/seconds")]


def test_very_many_decisions_are_not_looked_at_for_ever() -> None:
    steps: dict[str, Any] = {}
    for at in range(200):
        steps[f"r{at}"] = {"kind": "switch", "cases": [{"when": "input.n > 1", "then": "a"}], "else": "b"}
        steps[f"x{at}"] = on(f"r{at}:a", f"r{at - 1}:b" if at else "r0:a", join="any")
    steps["j"] = on(*(f"x{at}" for at in range(200)), join={"quorum": 100})
    assert places(whole(steps, output="${steps.j.output}")) == []


# -- against every way in which a run can go ---------------------------------------------------------------


def _worlds(steps: Mapping[str, Step]) -> Iterator[set[str]]:
    """The steps that complete, for each way to decide what a run decides."""
    ways: dict[tuple[str, str], list[str]] = {}
    for name, step in steps.items():
        if isinstance(step, SwitchStep):
            ways["branch", name] = [*dict.fromkeys((*(case.then for case in step.cases), step.otherwise))]
            if any(rule.then is None for rule in step.catch):
                ways["branch", name].append("")
        if step.when is not None:
            ways["when", name] = ["yes", "no"]
        if takeovers := [rule.then for rule in step.catch if rule.then]:
            ways["end", name] = ["", *takeovers]
    number = 1
    for one in ways.values():
        number *= len(one)
    assume(number <= 512)
    for chosen in product(*ways.values()):
        yield _completed(steps, dict(zip(ways, chosen, strict=True)))


def _completed(steps: Mapping[str, Step], world: Mapping[tuple[str, str], str]) -> set[str]:
    started: dict[str, bool] = {}
    completed: set[str] = set()

    def runs(name: str) -> bool:
        if name not in started:
            started[name] = False
            started[name] = _starts(name)
            if started[name] and world.get(("when", name)) != "no" and not world.get(("end", name)):
                completed.add(name)
        return started[name]

    def met(need: str) -> bool:
        source, _, branch = need.partition(":")
        runs(source)
        return source in completed and (not branch or world["branch", source] == branch)

    def _starts(name: str) -> bool:
        step, link = steps[name], dependencies(steps[name])
        failing = handlers(steps).get(name, [])
        needs = [need for need in (*link.needs, *link.branches) if need not in failing]
        number = sum(map(met, needs))
        enough = (
            step.join.quorum if isinstance(step.join, Quorum) else 1 if step.join == "any" else len(needs)
        )
        called = not failing or any(runs(one) and world.get(("end", one)) == name for one in failing)
        return number >= enough and called

    for name in steps:
        runs(name)
    return completed


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts(max_steps=8, max_depth=0))
def test_what_is_certain_completes_in_every_run_and_what_is_impossible_in_none(
    document: dict[str, Any],
) -> None:
    steps = Definition.model_validate(document).steps
    worlds = list(_worlds(steps))
    presence = Presence(
        {name: dependencies(step) for name, step in steps.items()}, dict.fromkeys(steps, ()), (), Streams()
    )
    presence.add(steps)
    certain = {name for name in steps if all(name in world for world in worlds)}
    assert {name for name in steps if presence.is_certain(name)} == certain
    never = {name for name in steps if not any(name in world for world in worlds)}
    assert set(presence.impossible) <= never
    assert bool(presence.impossible) == bool(never)
