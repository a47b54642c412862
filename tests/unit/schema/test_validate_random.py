"""Random definitions: refused or accepted, never anything else; what is accepted has a plan of every step."""

from contextlib import suppress
from typing import Any

from hypothesis import given, settings

from plan.compile import compile_plan
from schema.errors import InvalidDefinition
from schema.language.dependencies import walk
from schema.rules.size import estimate
from schema.rules.validate import ValidDefinition, validate
from schema.temporal.plan import Plan
from tests.support.definitions import definitions, flawed


def _planned(plan: Plan) -> list[str]:
    return [name for step in plan.steps for name in (step.id, *(_planned(step.body) if step.body else ()))]


def _hold(checked: ValidDefinition) -> None:
    """What holds for every accepted definition."""
    definition = checked.definition
    plan = compile_plan(definition)
    ids = [name for _, name, _, _ in walk(definition.steps)]
    assert sorted(_planned(plan)) == sorted(ids)
    assert (
        type(definition).model_validate_json(definition.model_dump_json(by_alias=True, exclude_unset=True))
        == definition
    )
    assert estimate(definition).executions >= len(ids)
    _connected(plan)


def _connected(plan: Plan) -> None:
    """Every step can start: what it waits for stands before it in the plan, and the join can be met."""
    before: set[str] = set()
    for step in plan.steps:
        sources = {*step.needs, *step.waits, *(branch.partition(":")[0] for branch in step.branches)}
        assert sources <= before, step.id
        own = {*step.needs, *(one.partition(":")[0] for one in step.branches if ":!" not in one)}
        assert step.quorum <= len(own), step.id
        before.add(step.id)
        if step.body:
            _connected(step.body)


@given(definitions())
@settings(max_examples=150, deadline=None)
def test_definitions_that_are_made_to_be_valid_are_accepted(document: dict[str, Any]) -> None:
    _hold(validate(document))


@given(flawed())
@settings(max_examples=250, deadline=None)
def test_flawed_definitions_are_refused_or_have_a_plan(document: dict[str, Any]) -> None:
    with suppress(InvalidDefinition):
        _hold(validate(document))
