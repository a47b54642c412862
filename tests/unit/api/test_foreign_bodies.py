"""What other programs and people send: content types, CloudEvents, the first text of a WebSocket."""

import pytest

from api.http import bodies
from api.http.problems import BadRequest
from api.live import socket_messages
from api.live.socket_messages import Start
from api.runs import cloud_events


@pytest.mark.parametrize(
    "name",
    [
        "application/json",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/vnd.api+json",
        "application/ld+json",
    ],
)
def test_json_goes_by_its_name_or_its_suffix(name: str) -> None:
    assert bodies._is_json(name)


@pytest.mark.parametrize(
    "name", ["", "+json", "json", "text/plain", "application/xml", "application/json+xml"]
)
def test_what_is_no_json(name: str) -> None:
    assert not bodies._is_json(name)


HEADERS = {"ce-specversion": "1.0", "ce-type": "a", "ce-source": "/b", "ce-id": "1"}


def test_an_event_in_binary_mode_reads_as_in_structured_mode() -> None:
    headers = HEADERS | {"Ce-Subject": "Euro%20%E2%82%AC%00", "content-type": "application/json"}
    assert cloud_events.event_of(headers, {"n": 1}) == {
        "specversion": "1.0",
        "type": "a",
        "source": "/b",
        "id": "1",
        "subject": "Euro €",
        "datacontenttype": "application/json",
        "data": {"n": 1},
    }


@pytest.mark.parametrize("missing", HEADERS)
def test_an_event_without_one_of_its_attributes_is_any_other_body(missing: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    assert cloud_events.event_of(headers, {"n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    "text",
    [
        "add two numbers",
        "[urgent] fix the login page",
        "{name} is missing from the greeting",
        '"quoted" words first',
        "[1, 2",
        "[] and {} differ",
        '{"a": 1} is what comes',
        "{{ x }}",
    ],
)
def test_a_first_text_that_is_no_json_is_a_task(text: str) -> None:
    assert socket_messages.parse_first(text) == Start(type="start", input={"task": text})


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1]",
        "{}",
        '{"a": 1}',
        '{"type": "start", "input": {',
        '{"type": "dance"}',
        "[" * 100_000,
        '{"a": ' + "9" * 5_000 + "}",
    ],
)
def test_a_first_text_that_is_json_or_a_broken_message_is_no_task(text: str) -> None:
    with pytest.raises(BadRequest):
        socket_messages.parse_first(text)


def test_later_texts_are_messages_only() -> None:
    with pytest.raises(BadRequest):
        socket_messages.parse("[urgent] fix the login page")
