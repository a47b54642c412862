"""The API's pure parts: who may ask, cursors, differences, pictures."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from starlette.datastructures import Headers

from api import auth, cursors
from api.problems import BadRequest


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_loopback(host: str) -> None:
    assert auth.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "localhost.evil.com", "example.com", ""])
def test_not_loopback(host: str) -> None:
    assert not auth.is_loopback(host)


def _code(guard: auth.Guard, **headers: str) -> str | None:
    refusal = guard._refusal(Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    return refusal.code if refusal else None


async def _nothing(*_: object) -> None:
    raise AssertionError("not reached")


def test_with_a_key_only_who_carries_it_may_ask() -> None:
    guard = auth.Guard(_nothing, "secret-ä")
    assert _code(guard, host="anything", authorization="Bearer secret-ä") is None
    assert _code(guard, host="anything", x_api_key="secret-ä") is None
    assert _code(guard, host="127.0.0.1") == "api_key_wrong"
    assert _code(guard, host="127.0.0.1", x_api_key="secret") == "api_key_wrong"
    assert _code(guard, host="127.0.0.1", authorization="Bearer ") == "api_key_wrong"


def test_without_a_key_no_web_page_may_ask() -> None:
    guard = auth.Guard(_nothing, "")
    assert _code(guard, host="127.0.0.1:8700") is None
    assert _code(guard, host="[::1]:8700", origin="http://localhost:8700") is None
    assert _code(guard, host="rebound.example") == "origin_refused"
    assert _code(guard, host="127.0.0.1:8700", origin="https://evil.example") == "origin_refused"
    assert _code(guard, host="127.0.0.1:8700", origin="null") == "origin_refused"
    assert _code(guard, host="[::1") == "origin_refused"
    assert _code(guard) == "origin_refused"


def test_the_audit_name_of_a_key_is_not_the_key() -> None:
    assert auth.actor("") == "local"
    assert auth.actor("secret").startswith("key:")
    assert "secret" not in auth.actor("secret")


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
