"""A dry run walks plans as runs do: it must come to what a naive reading of the language comes to."""

from typing import Any

from hypothesis import HealthCheck, assume, given, note, settings

from activities.rehearsal.walk import rehearse
from schema.rules.validate import validate
from tests.support import reference
from tests.support.definitions import definitions, inputs


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(definitions(), inputs())
def test_what_is_walked_is_what_the_language_means(document: dict[str, Any], value: dict[str, Any]) -> None:
    definition = validate(document).definition
    try:
        expected = reference.run(definition, value)
    except reference.UnspecifiedMeaning:
        assume(False)
    found = rehearse(definition, value, {})
    note(str(found.error))
    assert found.status == expected.status
    if expected.status == "failed":
        assert found.error is not None and found.error["code"] in expected.codes
        return
    assert found.output == expected.output
    statuses = {entry.path: entry.status for entry in found.trace if entry.kind != "item"}
    clear = {path: status for path, status in statuses.items() if expected.is_clear(path)}
    assert clear == expected.statuses
