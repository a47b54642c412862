"""What providers' failures come to."""

import json
import re
import time
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest

from gateway.destinations import Destination
from gateway.failures import (
    BrokenAnswer,
    ConnectionLost,
    NotSendable,
    Refusal,
    as_provider_error,
    error_in,
    moves_on,
    scrub,
)
from gateway.retry_after import retry_after_seconds
from gateway.sse import EventTooLong
from gateway.timeouts import TimedOut
from schema.errors import MAX_PROPOSED_WAIT_SECONDS, ProviderError
from tests.support.faults import FAULTS, Failure

SECRET = "sk-or-v1-0123456789abcdef"
DESTINATION = Destination("openrouter", "a/b", "a/b", "https://x/v1", "openrouter", api_key=SECRET)


def _refusal(status: int, **error: object) -> Refusal:
    return Refusal(status, {}, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("error", "code", "billed"),
    [
        (TimedOut("connect", 10, sent=False), "provider_timeout", False),
        (TimedOut("first_token", 30, sent=True), "provider_timeout", True),
        (TimedOut("stall", 20, sent=True), "provider_timeout", True),
        (TimedOut("total", 120, sent=True), "provider_timeout", True),
        (ConnectionLost(False, "nobody there"), "provider_unavailable", False),
        (ConnectionLost(True, "gone"), "provider_unavailable", True),
        (ConnectionLost(True, "gone", begun=True), "provider_stream_cut", True),
        (BrokenAnswer("it ended its answer without its usage"), "provider_stream_cut", True),
        (BrokenAnswer("slow down", 429), "provider_rate_limited", True),
        (BrokenAnswer("overloaded", 529), "provider_stream_cut", True),
        (EventTooLong("one event is too long"), "provider_stream_cut", True),
        (ZeroDivisionError(), "provider_stream_cut", True),
        (NotSendable("no"), "provider_bad_request", False),
        (_refusal(429, message="slow down"), "provider_rate_limited", False),
        (_refusal(429, code="insufficient_quota"), "provider_auth", False),
        (_refusal(400, message="Your credit balance is too low"), "provider_auth", False),
        (_refusal(401, message="who?"), "provider_auth", False),
        (_refusal(402, message="Insufficient Balance"), "provider_auth", False),
        (_refusal(403, message="no"), "provider_auth", False),
        (_refusal(403, message="Input was flagged"), "provider_content_policy", False),
        (_refusal(404, message="no such model"), "model_unknown", False),
        (_refusal(400, message="no"), "provider_bad_request", False),
        (_refusal(400, code="context_length_exceeded"), "provider_context_too_long", False),
        (_refusal(400, message="prompt is too long: 3 tokens"), "provider_context_too_long", False),
        (_refusal(400, code="content_policy_violation"), "provider_content_policy", False),
        (_refusal(413), "provider_context_too_long", False),
        (_refusal(422), "provider_bad_request", False),
        (_refusal(408), "provider_timeout", False),
        (_refusal(504), "provider_timeout", False),
        (_refusal(409), "provider_unavailable", False),
        (_refusal(500), "provider_unavailable", False),
        (_refusal(529), "provider_unavailable", False),
        (_refusal(302), "provider_unavailable", False),
    ],
)
def test_failures_have_one_code(error: Exception, code: str, billed: bool) -> None:
    failure = as_provider_error(error, DESTINATION, response_id="gen-1")
    assert (failure.code, failure.billed) == (code, billed)
    again = ("provider_rate_limited", "provider_unavailable", "provider_timeout", "provider_stream_cut")
    assert failure.retryable == (code in again)
    assert failure.response_id == "gen-1"


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("connect", "no connection to openrouter for a/b within 7 s"),
        ("first_token", "no first word of a/b from openrouter within 7 s"),
        ("stall", "fell silent for 7 s"),
        ("total", "no end of a/b's answer from openrouter within 7 s"),
    ],
)
def test_each_timeout_says_which_it_was_and_what_to_do(which: str, said: str) -> None:
    error = as_provider_error(TimedOut(which, 7.0, sent=True), DESTINATION)  # type: ignore[arg-type]
    assert said in error.message
    assert "; " in error.message and "`" in error.message


@pytest.mark.parametrize(
    ("code", "elsewhere"),
    [
        ("provider_rate_limited", True),
        ("provider_unavailable", True),
        ("provider_timeout", True),
        ("provider_stream_cut", True),
        ("provider_auth", True),
        ("model_unknown", True),
        ("provider_context_too_long", True),
        ("provider_content_policy", True),
        ("price_missing", True),
        ("provider_answer_empty", True),
        ("provider_bad_request", False),
        ("budget_exceeded", False),
    ],
)
def test_another_model_is_asked_where_that_may_help(code: str, elsewhere: bool) -> None:
    assert moves_on(ProviderError(code, "", retryable=False)) == elsewhere


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "No.", "type": "t"}}', "No."),
        (b'{"type": "error", "error": {"type": "t", "message": "No."}}', "No."),
        (b'{"error": "No."}', "No."),
        (b'{"detail": "No."}', "No."),
        (b'[{"error": {"message": "No."}}]', "No."),
        (b"No.", "No."),
        (b"<html>Bad gateway</html>", "it answered with status 500 and no reason"),
        (b"", "it answered with status 500 and no reason"),
        (b'{"error": {"code": 5}}', '{"code": 5}'),
    ],
)
def test_the_reason_is_found_in_whichever_shape_it_comes(body: bytes, said: str) -> None:
    failure = as_provider_error(Refusal(500, {}, body), DESTINATION)
    assert failure.message == f"openrouter failed on a/b: {said}"


@pytest.mark.parametrize(
    ("told", "status", "said"),
    [
        ({"message": "m", "code": 502}, 502, "m"),
        ({"message": "m", "code": "502"}, 502, "m"),
        ({"message": "m", "code": "٥٠٢"}, 502, "m"),
        ({"message": "m", "type": "overloaded_error"}, 529, "m"),
        ({"message": "m", "type": "x", "code": "rate_limit_exceeded"}, 429, "m"),
        ({"message": "m", "code": "other"}, None, "m"),
        ("gone", None, "gone"),
        ({}, None, "it reported an error without a reason"),
    ],
)
def test_an_error_within_an_answer_is_understood(told: object, status: int | None, said: str) -> None:
    error = error_in(told)
    assert (error.status, str(error)) == (status, said)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "2m3.5s"}, 123.5),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, MAX_PROPOSED_WAIT_SECONDS),
        ({"retry-after": "99999999"}, MAX_PROPOSED_WAIT_SECONDS),
        ({"retry-after": "Fri, 31 Dec 2083 23:59:59 GMT"}, MAX_PROPOSED_WAIT_SECONDS),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry-after": "2083-01-01T00:00:00Z"}, MAX_PROPOSED_WAIT_SECONDS),
        # Moments that have passed, in seconds and milliseconds since 1970.
        ({"retry-after": "1700000000"}, 0.0),
        ({"retry-after-ms": "1700000000000"}, 0.0),
        ({"retry-after": "99999999999"}, MAX_PROPOSED_WAIT_SECONDS),
        ({"retry-after": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "9s"}, 9.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "9s",
                "x-ratelimit-remaining-tokens": "500",
            },
            1.0,
        ),
        ({"x-ratelimit-reset": "30"}, 30.0),
        ({"x-ratelimit-reset": "1000000000"}, 0.0),
        ({"x-ratelimit-reset-requests": "later", "x-ratelimit-reset-tokens": "2s"}, 2.0),
        ({"x-ratelimit-reset-requests": "2s or so"}, None),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds
    failure = as_provider_error(Refusal(429, headers, b""), DESTINATION)
    assert (failure.code, failure.retry_after_seconds) == ("provider_rate_limited", seconds)


def test_a_moment_to_wait_for_becomes_seconds() -> None:
    soon = time.time() + 60
    for headers in (
        {"retry-after": formatdate(soon, usegmt=True)},
        {"x-ratelimit-reset": str(round(soon * 1000))},
        {"retry-after": str(round(soon))},
        {"retry-after-ms": str(round(soon * 1000))},
        {"retry-after": datetime.fromtimestamp(soon, UTC).isoformat()},
    ):
        assert retry_after_seconds(headers) == pytest.approx(60, abs=3)


def test_nobody_proposes_a_longer_wait_than_the_bound() -> None:
    asked = ProviderError("provider_rate_limited", "", retryable=True, retry_after_seconds=1e12)
    assert asked.retry_after_seconds == MAX_PROPOSED_WAIT_SECONDS


def test_a_reason_with_characters_that_nobody_can_store_is_cleaned() -> None:
    body = rb'{"error": {"message": "bad \u0000 char \ud83d and \ud83d\ude00"}}'
    failure = as_provider_error(Refusal(500, {}, body), DESTINATION)
    assert failure.message == "openrouter failed on a/b: bad  char � and 😀"


def test_no_key_leaves_in_a_message() -> None:
    said = f"Bearer {SECRET} was refused; so was sk-proj-abcdefgh and other-secret-of-ours"
    failure = as_provider_error(_refusal(401, message=said), DESTINATION, secrets=("other-secret-of-ours",))
    assert "0123456789" not in failure.message
    assert "abcdefgh" not in failure.message
    assert "other-secret" not in failure.message
    assert len(scrub("x" * 10_000, ())) == 400


def test_the_table_of_failures_is_the_one_that_is_played() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")
    text = page.split("\n## Failures\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text, re.M)

    def told(failure: Failure | None) -> str:
        if failure is None:
            return "answered"
        return f"`{failure.code}`" + (" $" if failure.billed else "")

    expected = [(name, told(streamed), told(whole)) for name, (_, streamed, whole) in FAULTS.items()]
    assert [(name, *(cell.split(",")[0] for cell in cells)) for name, *cells in rows] == expected
