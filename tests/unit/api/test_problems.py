"""Errors as problem documents."""

import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.http import problems
from api.http.access_log import AccessLog
from schema.errors import FacilitairError, InvalidDefinition, NotFound, Problem, Refused, Unavailable

_PROBLEM = Problem("kind_unknown", "/steps/a/kind", "'nope'", "one of agent, tool", "Correct it.")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidDefinition([_PROBLEM]), 422),
        (InvalidDefinition([Problem("document_too_large", "", "10 bytes", "at most 9", "Cut it.")]), 413),
        (NotFound("definition_unknown", "none"), 404),
        (Refused("input_invalid", "no"), 422),
        (Refused("collaboration_exists", "no"), 409),
        (Refused("media_type_unsupported", "no"), 415),
        (Refused("api_key_wrong", "no"), 401),
        (Unavailable("postgres_unavailable", "away"), 503),
        (FacilitairError("something", "odd"), 500),
    ],
)
def test_each_kind_of_error_has_its_status(error: FacilitairError, status: int) -> None:
    assert problems.status_of(error) == status


def test_a_refused_definition_tells_everything_that_is_wrong() -> None:
    answer = problems.response(InvalidDefinition([_PROBLEM]), "/v1/definitions")
    assert answer.media_type == "application/problem+json"
    assert json.loads(bytes(answer.body)) == {
        "type": "docs/errors.md#definition_invalid",
        "title": "Definition invalid",
        "status": 422,
        "detail": "/steps/a/kind: found 'nope'; expected one of agent, tool. Correct it.",
        "instance": "/v1/definitions",
        "code": "definition_invalid",
        "problems": [_PROBLEM.as_json()],
    }


def test_an_absent_server_says_when_to_come_back() -> None:
    answer = problems.response(Unavailable("temporal_unavailable", "away"), "/")
    assert answer.headers["retry-after"] == "2"


def test_a_wrong_key_says_how_to_authenticate() -> None:
    assert problems.response(Refused("api_key_wrong", "no"), "/").headers["www-authenticate"] == "Bearer"


def test_half_a_surrogate_pair_in_a_message_can_be_sent() -> None:
    answer = problems.response(Refused("input_invalid", "found '\ud800'"), "/")
    assert json.loads(bytes(answer.body))["detail"] == "found '\ud800'"


async def test_a_bug_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("[SQL: SELECT secret]")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/x", "headers": []}
    await AccessLog(app)(scope, receive, send)
    told = json.loads(sent[1]["body"])
    [logged] = [one for one in caplog.records if one.message == "a fault of the platform"]
    assert (sent[0]["status"], told["code"]) == (500, "internal_error")
    assert told["detail"] == (
        "found a fault of the platform itself (ValueError). The log has the details under "
        f"{logged.__dict__['bug']}."
    )


async def receive() -> Message:
    return {"type": "http.disconnect"}
