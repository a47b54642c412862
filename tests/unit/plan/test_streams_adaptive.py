"""Adaptive edges: which can be, and that a run that goes without one asks as if it were not there."""

from typing import Any

import pytest

from schema.errors import InvalidDefinition
from schema.language.diff import difference
from schema.rules.validate import validate


def ask(prompt: str = "Go.", **more: Any) -> dict[str, Any]:
    return {"kind": "agent", "agent": "a", "prompt": prompt, **more}


def document(stream: list[dict[str, Any]], **steps: Any) -> dict[str, Any]:
    return {"name": "d", "agents": {"a": {"model": "openai/gpt-4"}}, "steps": steps, "stream": stream}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "to": target, "start": "sentence", "adaptive": True, **more}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (ask("Judge ${steps.a.output}"), ("stream_impossible", "/stream/0/adaptive")),
        (ask(needs=["a"]), ("stream_impossible", "/stream/0/adaptive")),
    ],
)
def test_a_reader_that_names_its_source_cannot_do_without(
    target: dict[str, Any], problem: tuple[str, str]
) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document([edge("a", "b")], a=ask(), b=target))
    assert [(one.code, one.pointer) for one in caught.value.problems] == [problem]


def test_without_start_nobody_reads_by_the_edge() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document([{"from": "a", "to": "b", "adaptive": True}], a=ask(), b=ask()))
    assert [(one.code, one.pointer) for one in caught.value.problems] == [
        ("field_useless", "/stream/0/adaptive")
    ]


def test_readers_and_peers_who_can_do_without_are_accepted() -> None:
    validate(document([edge("a", "b"), edge("c", "b", adaptive=False)], a=ask(), b=ask(), c=ask()))
    validate(document([edge("a", "b"), edge("b", "a", adaptive=False)], a=ask(), b=ask()))
    # Another step may name both.
    validate(document([edge("a", "b")], a=ask(), b=ask(), c=ask("${steps.a.output} ${steps.b.output}")))


def test_a_definition_without_the_word_is_what_it_was() -> None:
    before = document([{"from": "a", "to": "b", "start": "sentence"}], a=ask(), b=ask())
    stored = validate(before).definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert stored["stream"] == before["stream"]
    after = document([edge("a", "b")], a=ask(), b=ask())
    assert [one.path for one in difference(before, after).rest] == ["/stream/0/adaptive"]
