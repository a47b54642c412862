from typing import Any

import pytest

from schema.errors import InvalidDefinition
from schema.language.short_form import expand, is_short_form
from schema.language.steps import AgentStep, LoopStep
from schema.rules.validate import validate

SEED = [
    {"agent": "architect", "stream_to": ["coder", "tester"]},
    {"agent": "coder", "stream_to": ["reviewer"]},
    {"agent": "reviewer"},
]
TASK = {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}}


def test_the_full_form() -> None:
    assert expand(SEED, "seed") == {
        "name": "seed",
        "input": TASK,
        "agents": {name: {"role": name} for name in ("architect", "coder", "reviewer", "tester")},
        "steps": {
            "architect": {"kind": "agent", "agent": "architect", "needs": [], "prompt": "${input.task}"},
            "coder": {
                "kind": "agent",
                "agent": "coder",
                "needs": ["architect"],
                "prompt": "${input.task}\n\n## architect\n${steps.architect.output}",
            },
            "reviewer": {
                "kind": "agent",
                "agent": "reviewer",
                "needs": ["coder"],
                "prompt": "${input.task}\n\n## coder\n${steps.coder.output}",
            },
            "tester": {
                "kind": "agent",
                "agent": "tester",
                "needs": ["architect"],
                "prompt": "${input.task}\n\n## architect\n${steps.architect.output}",
            },
        },
        "stream": [
            {"from": "architect", "to": "coder", "start": "sentence"},
            {"from": "architect", "to": "tester", "start": "sentence"},
            {"from": "coder", "to": "reviewer", "start": "sentence"},
        ],
    }


def test_a_bare_list_takes_its_name_from_outside_and_a_named_one_keeps_its_own() -> None:
    assert validate(SEED, name="seed").definition.name == "seed"
    own = {"name": "own", "steps": SEED, "agents": {"coder": {"model": "openai/gpt-4"}}}
    definition = validate(own, name="seed").definition
    assert definition.name == "own"
    assert definition.agents["coder"].model == "openai/gpt-4"


def test_two_who_stream_to_each_other_become_a_bounded_loop() -> None:
    """The seed's own example, with its circle and its undeclared tester."""
    document = [
        {"agent": "architect", "stream_to": ["coder", "tester"]},
        {"agent": "coder", "stream_to": ["reviewer"]},
        {"agent": "reviewer", "stream_to": ["coder", "documenter"]},
    ]
    checked = validate(document, name="seed")
    loop = checked.definition.steps["coder_and_reviewer"]
    assert isinstance(loop, LoopStep)
    assert (loop.max_iterations, loop.until, loop.needs) == (
        3,
        "!iter.output.reviewer.found_issues",
        ["architect"],
    )
    coder, reviewer = loop.body.steps["coder"], loop.body.steps["reviewer"]
    assert isinstance(coder, AgentStep) and isinstance(reviewer, AgentStep)
    assert coder.prompt == (
        "${input.task}\n\n## architect\n${steps.architect.output}"
        "\n\n## The round before\n${iter.previous == null ? 'none' : iter.previous}"
    )
    assert reviewer.prompt == "${input.task}\n\n## coder\n${steps.coder.output}"
    documenter = checked.definition.steps["documenter"]
    assert isinstance(documenter, AgentStep)
    assert documenter.prompt == "${input.task}\n\n## reviewer\n${steps.coder_and_reviewer.output.reviewer}"
    assert list(checked.definition.steps) == ["architect", "coder_and_reviewer", "tester", "documenter"]
    assert [(edge.source, edge.target) for edge in checked.definition.stream] == [
        ("architect", "coder_and_reviewer"),
        ("architect", "tester"),
        ("coder", "reviewer"),
        ("reviewer", "coder"),
        ("coder_and_reviewer", "documenter"),
    ]


@pytest.mark.parametrize(
    ("document", "short"),
    [([], True), ({"steps": []}, True), ({"steps": {}}, False), ({}, False), ("x", False), (None, False)],
)
def test_what_counts_as_short(document: Any, short: bool) -> None:
    assert is_short_form(document) is short


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        ([{"agent": "coder", "stream_to": ["coder"]}], [("cycle", "/0/agent")]),
        (
            [
                {"agent": "coder", "stream_to": ["tester"]},
                {"agent": "tester", "stream_to": ["reviewer"]},
                {"agent": "reviewer", "stream_to": ["coder"]},
            ],
            [("cycle", "/0/agent")],
        ),
        (  # whom would the reviewer wait for?
            [
                {"agent": "coder", "stream_to": ["reviewer"]},
                {"agent": "tester", "stream_to": ["reviewer"]},
                {"agent": "reviewer", "stream_to": ["coder", "tester"]},
            ],
            [("cycle", "/0/agent")],
        ),
        (
            [
                {"agent": "tester", "stream_to": ["coder"]},
                {"agent": "coder", "stream_to": ["reviewer"]},
                {"agent": "reviewer", "stream_to": ["coder", "tester"]},
            ],
            [("cycle", "/0/agent")],
        ),
        ([{"agent": "poet"}], [("agent_without_model", "/0/agent")]),
        ([{"agent": "coder", "stream_to": ["poet"]}], [("agent_without_model", "/0/stream_to/0")]),
        ({"name": "x", "steps": [{"agent": "poet"}]}, [("agent_without_model", "/steps/0/agent")]),
        ([{"agent": 5}], [("type_wrong", "")]),
        ([{"agent": "coder", "strem_to": []}], [("type_wrong", "")]),
        ([{"agent": f"a{i}"} for i in range(1_001)], [("too_many", "")]),
    ],
)
def test_problems_point_into_what_was_uploaded(document: Any, problems: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document, name="seed")
    assert [(problem.code, problem.pointer) for problem in caught.value.problems] == problems
