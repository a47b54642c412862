"""What a routing rule may say, and what one step of it can come to at most."""

from decimal import Decimal
from typing import Any

import pytest

from schema.errors import InvalidDefinition
from schema.language.steps import Route, Verify
from schema.rules.size import estimate
from schema.rules.validate import validate

TWO = ["openai/gpt-4o-mini", "openai/gpt-4"]


def document(rule: dict[str, Any], **step: Any) -> dict[str, Any]:
    ask = {"kind": "agent", "agent": "a", "prompt": "x" * 300} | step
    return {"name": "x", "agents": {"a": {"model": rule, "max_output_tokens": 100}}, "steps": {"ask": ask}}


def test_a_rule_with_all_it_may_say() -> None:
    rule = {
        "among": TWO,
        "ask_below": 0.6,
        "assignees": ["user:ada"],
        "reasoning": "auto",
        "verify": {"by": "anthropic/claude-3.5-sonnet", "accept": 0.8, "then": "openai/o1"},
    }
    found = validate(document(rule)).definition.agents["a"].model
    assert found == Route(
        among=TWO,
        ask_below=0.6,
        assignees=["user:ada"],
        reasoning="auto",
        verify=Verify(by="anthropic/claude-3.5-sonnet", accept=0.8, then="openai/o1"),
    )
    least = validate(document({"verify": {}})).definition.agents["a"].model
    assert least == Route(verify=Verify(by="reviewer", accept=0.7, then=None))


@pytest.mark.parametrize(
    ("rule", "code", "place"),
    [
        ({"ask_below": 0}, "value_wrong", "ask_below"),
        ({"ask_below": 1.5}, "value_wrong", "ask_below"),
        ({"ask_below": "0.5"}, "type_wrong", "ask_below"),
        ({"reasoning": "much"}, "value_wrong", "reasoning"),
        ({"ask_below": 0.5, "assignees": ["ada"]}, "value_wrong", "assignees/0"),
        ({"assignees": ["user:ada"]}, "field_useless", "assignees"),
        ({"among": TWO[:1], "ask_below": 0.5}, "field_useless", "ask_below"),
        ({"verify": True}, "type_wrong", "verify"),
        ({"verify": {"accept": 0}}, "value_wrong", "verify/accept"),
        ({"verify": {"until": 1}}, "field_unknown", "verify/until"),
        ({"verify": {"by": "judge"}}, "role_unknown", "verify/by"),
        ({"verify": {"by": "nobody/judge"}}, "model_unknown", "verify/by"),
        ({"verify": {"then": "gpt-4"}}, "model_unknown", "verify/then"),
        ({"among": TWO[:1], "verify": {}}, "field_useless", "verify"),
        ({"among": TWO[:1], "verify": {"then": TWO[0]}}, "field_useless", "verify"),
    ],
)
def test_what_is_refused_and_where(rule: dict[str, Any], code: str, place: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document(rule))
    assert [(one.code, one.pointer) for one in caught.value.problems] == [(code, f"/agents/a/model/{place}")]


def test_one_model_and_another_to_answer_instead() -> None:
    validate(document({"among": TWO[:1], "verify": {"then": TWO[1]}}))


PRICES = {
    "openai/gpt-4o-mini": (Decimal("0.001"), Decimal("0.002")),
    "openai/gpt-4": (Decimal("0.01"), Decimal("0.02")),
    "openai/o1": (Decimal("0.1"), Decimal("0.2")),
}


def test_the_worst_case_is_the_cheap_one_the_verifier_and_the_strong_one() -> None:
    rule = {"among": TWO, "verify": {"by": "openai/o1"}}
    found = estimate(validate(document(rule)).definition, PRICES.get)
    answers = 2 * (Decimal("0.01") * 100 + Decimal("0.02") * 100)
    verdict = Decimal("0.1") * (100 + 100) + Decimal("0.2") * 4_096
    assert (found.model_calls, found.usd) == (3, answers + verdict)
    # The model that answers instead may be the dearest; a role's system prompt is read, too.
    dearest = estimate(validate(document(rule | {"verify": {"then": "openai/o1"}})).definition, PRICES.get)
    assert dearest.usd is None  # the reviewer's model has no price here
    price = PRICES | {"anthropic/claude-3.5-sonnet": (Decimal("0.01"), Decimal("0.01"))}
    dearest = estimate(validate(document(rule | {"verify": {"then": "openai/o1"}})).definition, price.get)
    assert dearest.usd is not None
    assert dearest.usd > 2 * (Decimal("0.1") * 100 + Decimal("0.2") * 100)


def test_further_answers_and_one_that_was_cut_are_counted() -> None:
    both = document({"among": TWO, "reasoning": "auto", "verify": {}}, reflect={"max": 2})
    assert estimate(validate(both).definition).model_calls == 1 + 2 + 2 + 1
    assert estimate(validate(document({"reasoning": "auto"})).definition).model_calls == 2
    assert estimate(validate(document({})).definition).model_calls == 1
