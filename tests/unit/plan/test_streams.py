"""Live stream edges: who reads whom, what is refused, what the plan, a fork and an estimate make of them."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from activities.agent.live_source import SpokenPart, Voice, finished
from activities.rehearsal.walk import rehearse
from plan import diagram
from plan.compile import compile_plan, compiled, last_steps
from plan.fork import StepBefore, divide
from plan.progress import BEGUN, COMPLETED, OPEN, SKIPPED, FrameProgress
from schema.errors import InvalidDefinition
from schema.language.definition import StreamEdge
from schema.language.streams import streams_of
from schema.rules import mocks
from schema.rules.size import estimate
from schema.rules.validate import validate
from schema.temporal.plan import Plan, PlanStep, RetryRule
from schema.temporal.runs import Fork
from schema.temporal.steps import StepEnd

ONCE = RetryRule(max_attempts=1, initial_seconds=1, backoff=2, max_seconds=1)


def ask(prompt: str = "Go.", **more: Any) -> dict[str, Any]:
    return {"kind": "agent", "agent": "a", "prompt": prompt, **more}


def document(stream: list[dict[str, Any]], **steps: Any) -> dict[str, Any]:
    return {"name": "d", "agents": {"a": {"model": "openai/gpt-4"}}, "steps": steps, "stream": stream}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "to": target, "start": "sentence", **more}


def problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document)
    return [(problem.code, problem.pointer) for problem in caught.value.problems]


# -- who reads whom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "sources", "peers"),
    [
        ("", {}, {}),
        ("ab", {"b": "a"}, {}),
        ("ab bc", {"b": "a", "c": "b"}, {}),
        ("ab ba", {}, {"a": "b", "b": "a"}),
        ("ab ba bc", {"c": "b"}, {"a": "b", "b": "a"}),
        ("ab bc ca", {}, {"a": "c", "b": "a", "c": "b"}),
        ("ab bc ca xa cy", {"a": "x", "y": "c"}, {"a": "c", "b": "a", "c": "b"}),
        ("ac bc", {"c": "ab"}, {}),
    ],
)
def test_who_reads_whom(edges: str, sources: dict[str, str], peers: dict[str, str]) -> None:
    found = streams_of(StreamEdge.model_validate(edge(*one)) for one in edges.split())
    assert {step: "".join(e.source for e in es) for step, es in found.sources.items()} == sources
    assert {step: "".join(e.source for e in es) for step, es in found.peers.items()} == peers
    assert found.live == set(edges.replace(" ", ""))


def test_edges_without_start_are_none_of_them() -> None:
    assert not streams_of([StreamEdge.model_validate({"from": "a", "to": "b"})]).live


# -- what is refused ---------------------------------------------------------------------------------------

_A, _B = ask(), ask("${steps.a.output}")
_MAP = {"kind": "map", "over": "[1]", "max_items": 2, "body": {"steps": {"in_it": ask()}}}
_LIVE = [edge("a", "b")]
_SCHEMA = {"type": "object", "properties": {"x": {}}}


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (document(_LIVE, a=_MAP, b=ask()), [("stream_impossible", "/stream/0/from")]),
        (document(_LIVE, a=_A, b={"kind": "transform", "value": 1}), [("stream_impossible", "/stream/0/to")]),
        (document([edge("a", "a")], a=_A), [("stream_impossible", "/stream/0")]),
        (document(_LIVE * 2, a=_A, b=_B), [("stream_impossible", "/stream/1")]),
        (document(_LIVE, a=ask(emits="definition"), b=_B), [("stream_impossible", "/stream/0/from")]),
        (
            document(_LIVE, a=ask(catch=[{"errors": ["*"], "then": "c"}]), b=_B, c=ask()),
            [("stream_impossible", "/stream/0/from")],
        ),
        (document(_LIVE, a=_A, b=ask(cache={"ttl": "1h"})), [("stream_impossible", "/stream/0/to")]),
        (
            document(_LIVE, a=_A, b=ask(join="any", needs=["c"]), c=ask()),
            [("stream_impossible", "/steps/b/join")],
        ),
        (
            document(_LIVE, a=_A, m=_MAP | {"body": {"steps": {"b": ask()}}}),
            [("reference_out_of_place", "/stream/0")],
        ),
        (
            document(_LIVE, a=_A, b=ask(when="steps.a.output != ''")),
            [("reference_out_of_place", "/steps/b/when")],
        ),
        (
            document(_LIVE, a=ask(output_schema=_SCHEMA), b=ask("${steps.a.output.x}")),
            [("reference_out_of_place", "/steps/b/prompt")],
        ),
        (document(_LIVE, a=_A, b=ask("${steps.a.status}")), [("reference_out_of_place", "/steps/b/prompt")]),
        (
            document(_LIVE, a=_A, b=ask("${steps[?'a'].?output.orValue('')}")),
            [("reference_out_of_place", "/steps/b/prompt")],
        ),
        (document([*_LIVE, edge("b", "a")], a=_A, b=_B), [("cycle", "/steps/b")]),
        (document([*_LIVE, edge("b", "a")], a=ask(needs=["b"]), b=ask()), [("cycle", "/steps/a")]),
        (document(_LIVE, a=ask(needs=["b"]), b=ask()), [("cycle", "/steps/a")]),
        (document(_LIVE, a=_A, b=ask(chain=True)), [("field_useless", "/steps/b/chain")]),
        (
            document([{"from": "a", "to": "b", "turns": 2, "on_retry": "wait"}], a=_A, b=_B),
            [("field_useless", "/stream/0/on_retry"), ("field_useless", "/stream/0/turns")],
        ),
        (document([edge("a", "nobody")], a=_A), [("step_unknown", "/stream/0/to")]),
    ],
)
def test_refused(refused: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems(refused) == expected


def test_more_sources_than_one_can_follow_are_refused() -> None:
    steps = {f"s{number}": ask() for number in range(21)}
    whole = document([edge(name, "b") for name in steps], b=ask(), **steps)
    assert problems(whole) == [("too_many", "/stream/20")]


def test_accepted() -> None:
    catching = ask(catch=[{"errors": ["*"], "value": "none"}], output_schema={"type": "object"})
    validate(document(_LIVE, a=catching, b=ask("${steps.a.output}", output_schema={"type": "object"})))
    validate(document(_LIVE, a=_A, b=_B, c=ask("${steps.a.output} ${steps.b.output}")))
    validate(document([*_LIVE, edge("b", "a")], a=_A, b=ask()))
    body = {"steps": {"a": _A, "b": _B}}
    validate(document(_LIVE, m=_MAP | {"body": body}))


# -- the plan ----------------------------------------------------------------------------------------------


def plan_of(document: dict[str, Any]) -> dict[str, PlanStep]:
    return {step.id: step for step in compile_plan(validate(document).definition).steps}


def test_a_live_source_is_no_need_but_comes_first() -> None:
    plan = plan_of(document([edge("a", "b")], b=ask("${steps.a.output} ${steps.c.output}"), c=ask(), a=ask()))
    assert list(plan) == ["c", "a", "b"]
    assert (plan["b"].needs, plan["b"].streams) == (["c"], ["a"])
    assert last_steps(
        validate(document(_LIVE, a=_A, b=ask())).definition.steps,
        streams_of([StreamEdge.model_validate(_LIVE[0])]),
    ) == ["b"]


def test_peers_need_nothing_of_each_other() -> None:
    plan = plan_of(document([*_LIVE, edge("b", "a"), edge("a", "c")], a=_A, b=ask(), c=ask()))
    assert [(one.needs, one.streams) for one in plan.values()] == [([], []), ([], []), ([], ["a"])]


def test_nothing_live_shares_an_activity_and_who_listens_has_the_time_that_it_takes() -> None:
    twice = {"max_attempts": 2, "max": "10s"}
    definition = document(
        [edge("a", "b", turns=3), edge("c", "d")],
        a=ask(timeout="10s", retry=twice, priority=4),
        b=ask(timeout="20s"),
        c=ask(timeout="1d"),
        d=ask(timeout="20s"),
        e=ask(),
    ) | {"defaults": {"chain": "all"}}
    plan = plan_of(definition)
    assert {name: step.chain for name, step in plan.items()} == dict.fromkeys("abcd", "") | {"e": "slow"}
    assert plan["a"].timeout_seconds == 10
    assert plan["b"].timeout_seconds == 20 * 7 + (10 + 10) * 2
    assert plan["d"].timeout_seconds == 20 * 5 + 86_400
    both = plan_of(
        document([edge("a", "b"), edge("b", "a")], a=ask(timeout="10s", retry=twice), b=ask(retry=twice))
    )
    assert (both["a"].timeout_seconds, both["b"].timeout_seconds) == (10 * 5 + 130 * 2, 120 * 5 + 20 * 2)
    assert (plan["a"].priority, plan["b"].priority, plan["d"].priority) == (4, 4, 3)


# -- what is ready -----------------------------------------------------------------------------------------


def step(name: str, needs: str = "", streams: str = "", *, when: bool = False, chain: str = "") -> PlanStep:
    return PlanStep(
        name,
        "agent",
        needs.split(),
        [],
        1.0,
        ONCE,
        name,
        conditional=when,
        chain=chain,
        streams=streams.split(),
    )


def taken(progress: FrameProgress) -> list[tuple[str, bool]]:
    return [(one.id, may_run) for one, may_run in progress.take()]


def test_it_is_ready_with_its_source_and_behind_it() -> None:
    progress = FrameProgress(Plan([step("a"), step("b", streams="a"), step("c", "b")]))
    assert taken(progress) == [("a", True), ("b", True)]
    progress.end(StepEnd("b", COMPLETED))
    assert taken(progress) == [("c", True)]
    progress.end(StepEnd("a", COMPLETED))
    assert taken(progress) == []


def test_a_condition_is_asked_first_and_a_source_that_is_skipped_skips_it() -> None:
    plan = Plan([step("a", when=True), step("b", streams="a")])
    held, skipped = FrameProgress(plan), FrameProgress(plan)
    assert taken(held) == [("a", True)] == taken(skipped)
    held.end(StepEnd("a", OPEN))
    assert taken(held) == [("a", True), ("b", True)]
    skipped.end(StepEnd("a", SKIPPED))
    assert taken(skipped) == [("b", False)]


def test_it_waits_for_every_source_and_for_what_it_needs_besides() -> None:
    progress = FrameProgress(
        Plan([step("x"), step("a"), step("c", "x"), step("b", "x", "a c"), step("d", "x")])
    )
    assert taken(progress) == [("x", True), ("a", True)]
    progress.end(StepEnd("a", COMPLETED))
    assert taken(progress) == []
    progress.end(StepEnd("x", COMPLETED))
    assert taken(progress) == [("c", True), ("d", True), ("b", True)]


def test_one_lost_source_is_enough_to_skip_it() -> None:
    progress = FrameProgress(Plan([step("a", when=True), step("c"), step("b", streams="a c")]))
    taken(progress)
    progress.end(StepEnd("a", SKIPPED))
    assert taken(progress) == [("b", False)]


def test_sources_that_ended_before_count() -> None:
    progress = FrameProgress(Plan([step("a"), step("b", streams="a")]), [StepEnd("a", COMPLETED)])
    assert taken(progress) == [("b", True)]


def test_a_segment_that_decides_about_it_knows_that_its_source_has_begun() -> None:
    plan = Plan(
        [step("a"), step("q", chain="quick"), step("b", "q", "a", when=True), step("r", chain="quick")]
    )
    progress = FrameProgress(plan)
    segments, singles = progress.take_units()
    assert [one.id for one in singles] == ["a"]
    assert [(one.members, one.gates) for one in segments] == [(["q", "r"], [])]
    progress.end(StepEnd("q", COMPLETED))
    (segment,), singles = progress.take_units()
    assert (segment.gates, singles) == (["b"], [])
    known = progress.known_to(segment)
    assert known == [StepEnd("q", COMPLETED), StepEnd("a", BEGUN)]
    inside = FrameProgress(plan, known, only={"b"})
    assert taken(inside) == [("b", True)]
    progress.end(StepEnd("b", OPEN))
    assert [one.id for one in progress.take_units()[1]] == ["b"]


# -- what else reads a plan --------------------------------------------------------------------------------


def test_a_dry_run_gives_it_the_whole_answer() -> None:
    definition = validate(document(_LIVE, b=_B, a=_A)).definition
    trace = rehearse(definition, {}, mocks.read({})[0]).trace
    assert [(entry.path, entry.input, entry.output) for entry in trace] == [
        ("a", "Go.", "a: Go."),
        ("b", "a: Go.", "a: a: Go."),
    ]


def test_an_estimate_counts_the_turns() -> None:
    calls = [
        estimate(validate(document([one], a=_A, b=_B)).definition).model_calls
        for one in ({"from": "a", "to": "b"}, edge("a", "b"), edge("a", "b", turns=5))
    ]
    assert calls == [2, 4, 7]


def test_the_picture_tells_a_live_edge_from_one_that_only_shows() -> None:
    definition = validate(
        document(
            [edge("a", "b"), {"from": "a", "to": "c"}, edge("c", "d"), edge("d", "c")],
            a=_A,
            b=_B,
            c=ask(),
            d=ask(),
        )
    ).definition
    found = diagram.edges(definition, compile_plan(definition))
    assert [(one.source, one.target, one.kind, one.label) for one in found] == [
        ("a", "b", "live", "sentence"),
        ("a", "c", "stream", ""),
        ("c", "d", "stream", "sentence"),
        ("d", "c", "stream", "sentence"),
    ]


def divided(fork: Fork) -> tuple[list[str], list[str]]:
    stream = [edge("a", "b"), edge("c", "d"), edge("d", "c")]
    definition = validate(
        document(stream, a=_A, b=ask(), c=ask(), d=ask(), e=ask("${steps.d.output}"))
    ).definition
    found = compiled(str(uuid4()), definition.model_dump_json(by_alias=True, exclude_unset=True))
    left = {name: StepBefore("agent", True) for name in definition.steps}
    division = divide(found, found, left, fork, same_input=True)
    return sorted(division.kept), sorted(division.again)


def test_a_fork_runs_again_who_read_what_runs_again() -> None:
    run = str(uuid4())
    assert divided(Fork(run, ["a"])) == (["c", "d", "e"], ["a", "b"])
    assert divided(Fork(run, ["d"])) == (["a", "b"], ["c", "d", "e"])
    assert divided(Fork(run, ["e"])) == (["a", "b", "c", "d"], ["e"])
    assert divided(Fork(run, [], {"c": "given"})) == (["a", "b"], ["d", "e"])


# -- parts of a text that grows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "text", "length"),
    [
        ("token", "", 0),
        ("token", "On", 2),
        ("sentence", "One. Two", 5),
        ("sentence", "One.", 0),
        ("sentence", "Is 3.5 enough", 0),
        ("sentence", 'He said "no." And', 14),
        ("sentence", "Well…\nyes!? So", 12),
        ("paragraph", "One.\nTwo.\n", 0),
        ("paragraph", "One.\n \nTwo.", 7),
        ("code_block", "```python\nx = 1\n", 0),
        ("code_block", "```python\nx = 1\n```\nand", 20),
        ("code_block", "```\na\n```\n```\nb\n", 10),
        ("code_block", "no `code` at all. Really.\n\n", 0),
    ],
)
def test_finished_parts(part: str, text: str, length: int) -> None:
    assert finished(text, part) == length


def test_of_a_text_that_grows_each_part_is_told_once() -> None:
    voice = Voice(StreamEdge.model_validate(edge("a", "b")), ["a"])
    voice.parts["a"] = SpokenPart(UUID(int=1), "One. Tw")
    assert (voice.has_begun(), voice.so_far(), voice.news()) == (True, "One. ", "One.")
    voice.tell()
    voice.parts["a"].text += "o. "
    assert voice.news() == "Two."
    voice.tell()
    assert (voice.news(), voice.replaced()) == ("", False)
    voice.parts["a"] = SpokenPart(UUID(int=2), "Otherwise. ")
    assert (voice.news(), voice.replaced()) == ("Otherwise.", True)
