"""What lists, memory and the graph call a run: the text that its author meant, in whatever order it comes."""

from typing import Any

import pytest

from schema.language.tasks import MAX_TASK_CHARS, task_of

TRIAGE = {
    "type": "object",
    "required": ["ticket", "severity"],
    "properties": {"ticket": {"type": "string"}, "severity": {"enum": ["low", "high", "spam"]}, "any": True},
}
LONG = "a rather long remark"


@pytest.mark.parametrize(
    ("input", "schema", "task"),
    [
        ({"task": "x", "zeal": LONG}, {"required": ["zeal"]}, "x"),
        ({"severity": "low", "ticket": "no"}, TRIAGE, "no"),
        ({"any": LONG, "severity": "low", "ticket": "no"}, TRIAGE, "no"),
        ({"any": "b", "severity": "spam", "ticket": ""}, TRIAGE, "b"),
        ({"a": "short", "b": LONG, "c": "brief"}, {}, LONG),
        ({"a": "short", "b": LONG}, {"required": ["n", "a"]}, "short"),
        ({"amount": 5, "customer": "Ada"}, {"required": ["customer", "amount"]}, "Ada"),
        ({"n": 5, "task": 7}, {}, '{"n":5,"task":7}'),
        ({"severity": "low"}, TRIAGE, '{"severity":"low"}'),
        ("just a text", {"type": "string"}, "just a text"),
        ([1, 2], {}, "[1,2]"),
        ({"task": "x" * 20_000}, {}, "x" * MAX_TASK_CHARS),
    ],
)
def test_the_task_is_chosen_by_the_schema_and_not_by_the_alphabet(
    input: Any, schema: dict[str, Any], task: str
) -> None:
    assert "".join(task_of(input, schema).split()) == "".join(task.split())
    if isinstance(input, dict):
        # Temporal's converters sort keys, and others do not.
        backwards = dict(reversed(input.items()))
        assert task_of(backwards, schema).startswith("{") or task_of(backwards, schema) == task
