import pytest

from plan.compile import compile_plan, last_steps
from schema.language.dependencies import Dependencies, dependencies, topological
from schema.language.steps import Catch, Step, TransformStep
from schema.rules.validate import validate
from schema.temporal.plan import Plan, PlanStep, RetryRule

DEFAULT_RETRY = RetryRule(max_attempts=8, initial_seconds=1.0, backoff=2.0, max_seconds=30.0, never=[])


def test_the_plan_of_a_definition() -> None:
    checked = validate(
        {
            "name": "plan",
            "agents": {"g": {"model": {}}, "h": {"role": "coder"}},
            "defaults": {"timeout": "30s"},
            "steps": {
                "end": {"kind": "transform", "value": "${steps.ask.output} ${steps[?'call'].output}"},
                "ask": {"kind": "agent", "agent": "g", "prompt": "${input.task}", "recall": True},
                "again": {"kind": "agent", "agent": "h", "prompt": "x", "needs": ["ask"], "when": "input.x"},
                "call": {
                    "kind": "tool",
                    "activity": "send",
                    "task_queue": "billing",
                    "timeout": "1.5m",
                    "retry": {"max_attempts": 2, "initial": "500ms", "never": ["tool_failed"]},
                },
            },
        }
    )
    assert checked.inferred == {"end": ("ask", "call")}
    assert compile_plan(checked.definition) == Plan(
        [
            PlanStep("ask", "agent", [], [], 30.0, DEFAULT_RETRY, "ask · g", recalls=True, routes=True),
            PlanStep(
                "call",
                "tool",
                [],
                [],
                90.0,
                RetryRule(2, 0.5, 2.0, 30.0, ["tool_failed"]),
                "call · send",
                activity="send",
                task_queue="billing",
            ),
            PlanStep("again", "agent", ["ask"], [], 30.0, DEFAULT_RETRY, "again · h", conditional=True),
            PlanStep("end", "transform", ["ask"], ["call"], 30.0, DEFAULT_RETRY, "end", chain="quick"),
        ]
    )


@pytest.mark.parametrize(
    ("value", "needs", "expected"),
    [
        ("x", [], Dependencies((), (), ())),
        ("${steps.a.output}", [], Dependencies(("a",), (), ("a",))),
        ("${steps.a.output}", ["a"], Dependencies(("a",), (), ())),
        ("${steps[?'a'].output}", [], Dependencies((), ("a",), ("a",))),
        ("${steps[?'a'].output}", ["a"], Dependencies(("a",), (), ())),
        ("${has(steps.a.output)}", [], Dependencies((), ("a",), ("a",))),
        ("${steps.a.output}${steps[?'a'].status}", [], Dependencies(("a",), (), ("a",))),
        ("${steps.b.output}${steps.a.output}", ["c"], Dependencies(("c", "b", "a"), (), ("b", "a"))),
    ],
)
def test_dependencies(value: str, needs: list[str], expected: Dependencies) -> None:
    assert dependencies(TransformStep(kind="transform", value=value, needs=needs)) == expected


def test_where_some_needs_are_enough_what_is_read_besides_only_has_to_have_ended() -> None:
    step = TransformStep(
        kind="transform", value="${steps[?'a']} ${steps[?'c']}", needs=["a", "s:yes", "s:yes"], join="any"
    )
    assert dependencies(step) == Dependencies(("a",), ("c",), ("c",), ("s:yes",))


def test_a_step_that_only_its_handler_uses_is_among_the_last() -> None:
    steps: dict[str, Step] = {
        "try": TransformStep(kind="transform", value=1, catch=[Catch(errors=["*"], then="instead")]),
        "instead": TransformStep(kind="transform", value="${steps.try.error.code}"),
    }
    assert last_steps(steps) == ["try", "instead"]


@pytest.mark.parametrize(
    ("edges", "order"),
    [
        ({}, []),
        ({"b": [], "a": []}, ["b", "a"]),
        ({"c": ["b"], "b": ["a"], "a": []}, ["a", "b", "c"]),
        ({"a": ["a"], "b": []}, ["b"]),
        ({"a": ["b"], "b": ["a"], "c": ["a"], "d": []}, ["d"]),
        ({"a": ["unknown"]}, ["a"]),
    ],
)
def test_topological(edges: dict[str, list[str]], order: list[str]) -> None:
    assert topological(dict(edges)) == order
