"""The API's pure parts: who may ask, cursors, differences, pictures."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from api import auth, cursors, origins
from api.problems import BadRequest


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
