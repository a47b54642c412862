"""What any Temporal client sends to a run is read as one object with known fields, or refused with a code."""

from typing import Any

import pytest

from schema.temporal.people import Decision
from schema.temporal.runs import Steer
from schema.temporal.updates import decision_of, fault_of_decision, fault_of_steer, steer_of

ASKED = {"path": "ship", "action": "approve", "actor": "user:ada"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "found 0 arguments"),
        ([ASKED, ASKED], "found 2 arguments"),
        (["ship"], "found 'ship'; expected a JSON object"),
        ([None], "found None; expected a JSON object"),
        ([{}], "found no 'path'"),
        ([{"path": "ship", "action": "approve"}], "found no 'actor'"),
        ([ASKED | {"colour": "red"}], "found the unknown field 'colour'"),
        ([ASKED | {"path": 1}], "found 1 for 'path'; expected text"),
        ([ASKED | {"groups": "leads"}], "found 'leads' for 'groups'; expected a list of texts"),
        ([ASKED | {"groups": [1]}], "expected a list of texts"),
        ([ASKED | {"form": []}], "found [] for 'form'; expected an object"),
    ],
)
def test_what_is_no_decision(given: list[Any], says: str) -> None:
    fault = fault_of_decision(given)
    assert fault is not None and fault.code == "human_decision_invalid" and says in fault.message


def test_a_decision_names_its_question_by_id_or_by_path() -> None:
    by_id = {"task": "5f", "action": "approve", "actor": "user:ada", "edited": [1]}
    assert fault_of_decision([ASKED]) is None and fault_of_decision([by_id]) is None
    assert decision_of([ASKED]) == Decision("ship", "approve", "user:ada")
    assert decision_of([by_id]) == Decision("", "approve", "user:ada", edited=[1], task="5f")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{}, {}], "found 2 arguments"),
        (["x"], "found 'x'; expected a JSON object"),
        ([{"colour": "red"}], "found the unknown field 'colour'"),
        ([{"actor": 5}], "found 5 for 'actor'; expected text"),
        ([{"changes": "more"}], "found 'more' for 'changes'; expected an object"),
    ],
)
def test_what_steers_nothing(given: list[Any], says: str) -> None:
    fault = fault_of_steer(given)
    assert fault is not None and fault.code == "steer_invalid" and says in fault.message


@pytest.mark.parametrize("given", [[], [None], [{}]])
def test_no_argument_is_an_empty_object(given: list[Any]) -> None:
    assert fault_of_steer(given) is None
    assert steer_of(given) == Steer()


def test_histories_of_older_releases_hold_fields_that_nobody_knows() -> None:
    assert steer_of([{"text": "Be brief.", "colour": "red"}]) == Steer(text="Be brief.")
