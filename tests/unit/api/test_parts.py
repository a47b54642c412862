"""The API's pure parts: who may ask, cursors, differences, pictures."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from api.http import auth, cursors, origins
from api.http.problems import BadRequest
from api.http.shared_models import Attempt, CollaborationDetail, ErrorFact
from api.runs.service import with_waiting


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_loopback(host: str) -> None:
    assert origins.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "localhost.evil.com", "example.com", ""])
def test_not_loopback(host: str) -> None:
    assert not origins.is_loopback(host)


def test_with_a_key_only_who_carries_it_may_ask() -> None:
    key = auth.ApiKey("secret-ä")
    scope = {"type": "http", "client": ("10.0.0.1", 1)}
    assert key.refusal(scope, "secret-ä") is None
    for wrong in ("", "secret", "secret-a", "secret-ä "):
        refusal = key.refusal(scope, wrong)
        assert refusal is not None
        assert refusal.code == "api_key_wrong"


def test_a_cursor_comes_back_as_it_was() -> None:
    moment, id = datetime(2026, 1, 2, 3, 4, 5, 6, UTC), uuid4()
    assert cursors.moment_and_id(cursors.encode_moment(moment, id)) == (moment, id)
    assert cursors.two_numbers(cursors.encode(17, 4)) == (17, 4)


@pytest.mark.parametrize("cursor", ["", "%%%", "äöü", "abc", cursors.encode("x", "y"), cursors.encode(1)])
def test_a_wrong_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        cursors.moment_and_id(cursor)
    with pytest.raises(BadRequest, match="cursor"):
        cursors.two_numbers(cursor)


def test_a_run_says_until_when_a_step_waits_to_be_tried_again() -> None:
    now = datetime.now(UTC)

    def attempt(path: str, seconds: float | None) -> Attempt:
        return Attempt(
            id="x",
            path=path,
            step=path,
            iteration=0,
            attempt=1,
            kind="agent",
            agent="a",
            role=None,
            model="m",
            requested_model=None,
            provider=None,
            status="failed",
            tokens=0,
            input_tokens=0,
            output_tokens=0,
            cost_usd=0,
            seconds=0,
            first_token_seconds=None,
            quality=None,
            simulated=False,
            reused_from=None,
            error=ErrorFact(code="provider_rate_limited", message=""),
            started_at=now,
            completed_at=now,
            retry_at=now + timedelta(seconds=seconds) if seconds is not None else None,
        )

    run = CollaborationDetail(
        id="r",
        run_id="u",
        name="n",
        version=1,
        task="",
        status="running",
        sub_state="",
        error=None,
        quality=None,
        started_at=now,
        completed_at=None,
        seconds=0,
        steps_done=0,
        tokens=0,
        cost_usd=0,
        trace_id=None,
        steps=[attempt("a", 600), attempt("b", -1), attempt("c", None)],
    )
    [told] = with_waiting(run, []).waits_for
    until = now + timedelta(seconds=600)
    assert told == f"a: tried again at {until:%Y-%m-%d %H:%M:%S} UTC, after provider_rate_limited"
    assert with_waiting(run.model_copy(update={"steps": []}), []).waits_for == []
