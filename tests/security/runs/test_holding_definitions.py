"""The hostile cases of `bench.security.cases.holds`, without servers: what comes of each, and how soon."""

import json

import pytest

from activities.rehearsal.walk import rehearse
from api.http.bodies import MAX_JSON_BYTES
from api.http.problems import BadRequest
from api.runs.webhooks import _input
from bench.security.cases.holds import COMPLETED, Delivery, Run, deliveries, runs
from schema.errors import InvalidDefinition, Refused
from schema.rules.validate import validate
from tests.support.processor_time import within

LIMIT_SECONDS = 0.5
"""Of processor time: several pieces of work are done, each of which may take 100 ms."""
RUNS = list(runs())


def _outcome(case: Run) -> str:
    try:
        found = rehearse(validate(case.definition).definition, case.input, {})
    except InvalidDefinition as error:
        return error.problems[0].code
    except Refused as error:
        return error.code
    return found.error["code"] if found.error else found.status


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in RUNS])
def test_a_definition_that_tries_to_hold_a_process_ends_soon(case: Run) -> None:
    with within(LIMIT_SECONDS):
        assert _outcome(case) == case.expected


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in deliveries()])
def test_a_delivery_that_tries_to_hold_the_api_is_refused_soon(case: Delivery) -> None:
    with within(LIMIT_SECONDS):
        with pytest.raises(BadRequest) as caught:
            _input(case.template, case.body)
        assert caught.value.code == case.expected


def test_there_are_enough_cases_and_each_fits_a_request() -> None:
    names = [case.name for case in RUNS]
    assert len(names) == len(set(names)) >= 60
    assert [case.name for case in RUNS if len(json.dumps(case.input)) > MAX_JSON_BYTES] == []
    assert {case.expected for case in RUNS} > {COMPLETED, "expression_failed", "input_invalid"}
