"""Providers' failures as ours: one code each, retryable or not, billed or not, without secrets."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.destinations import Destination
from gateway.retry_after import retry_after_seconds
from gateway.sse import EventTooLong
from gateway.timeouts import TimedOut, Which
from schema.errors import ProviderError
from schema.values.foreign import clean_text
from schema.values.foreign_json import NotJson, read_json

RETRYABLE: Final = frozenset(
    ("provider_rate_limited", "provider_unavailable", "provider_timeout", "provider_stream_cut")
)
ELSEWHERE: Final = RETRYABLE | {
    "provider_auth",
    "model_unknown",
    "provider_context_too_long",
    "provider_content_policy",
    "provider_answer_empty",
    "price_missing",
}
# Keys have these shapes wherever a provider quotes one back, ours or not.
KEY_SHAPES: Final = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][A-Za-z0-9*._-]{6,}")
MAX_MESSAGE: Final = 400
CONTEXT_WORDS: Final = re.compile(
    r"context.?(length|window|size)|maximum context|too many tokens|prompt is too long", re.I
)
POLICY_WORDS: Final = re.compile(
    r"content.?(policy|filter|management)|safety system|moderation|flagged", re.I
)
# Out of money is told with several statuses, and never heals by waiting.
CREDIT_WORDS: Final = re.compile(
    r"insufficient.?(quota|balance|credits|funds)|credit balance|billing.{0,20}limit", re.I
)
# Within an answer there is no status; these are the names that stand for one.
STATUS_OF: Final[Mapping[str, int]] = {
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_policy_violation": 400,
    "content_filter": 400,
}
TOO_LONG: Final[Mapping[Which, str]] = {
    "connect": "found no connection to {provider} for {model} within {seconds:g} s; check the network and "
    "the provider's address, or name another model in `fallback`",
    "first_token": "found no first word of {model} from {provider} within {seconds:g} s of the request; "
    "raise `first_token_timeout`, or name another model in `fallback`",
    "stall": "found that {model} of {provider} fell silent for {seconds:g} s within its answer; raise "
    "`stall_timeout`, or name another model in `fallback`",
    "total": "found no end of {model}'s answer from {provider} within {seconds:g} s; raise the step's "
    "`timeout`, or lower `max_output_tokens`",
}


class Refusal(Exception):
    """A provider answered with another status than 200."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


class ConnectionLost(Exception):
    """A connection was not made, or lost."""

    def __init__(self, sent: bool, reason: str, *, begun: bool = False) -> None:
        super().__init__(reason)
        self.sent, self.begun = sent, begun


class BrokenAnswer(Exception):
    """An answer that breaks off, cannot be read, or tells of an error in the middle of it."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotSendable(Exception):
    """A request that cannot be put in the provider's words."""


def as_provider_error(
    error: Exception,
    destination: Destination,
    *,
    secrets: Sequence[str] = (),
    response_id: str = "",
    tokens: tuple[int, int, int] | None = None,
) -> ProviderError:
    """Translate a failed call; `tokens` is what its provider counted before it failed."""
    retry_after: float | None = None
    billed = True
    match error:
        case ProviderError():
            return error
        case TimedOut():
            code, billed = "provider_timeout", error.sent
            said = TOO_LONG[error.which].format(
                model=destination.model, provider=destination.provider, seconds=error.seconds
            )
            return ProviderError(code, said, retryable=True, billed=billed, response_id=response_id)
        case Refusal():
            words, said = _read_refusal(error.body)
            code, billed = code_of_status(error.status, words), False
            said = said or f"it answered with status {error.status} and no reason"
            if code in RETRYABLE:
                retry_after = retry_after_seconds(error.headers)
        case ConnectionLost():
            code = "provider_stream_cut" if error.begun else "provider_unavailable"
            billed, said = error.sent, str(error)
        case NotSendable():
            code, billed, said = "provider_bad_request", False, str(error)
        case BrokenAnswer(status=int(status)):
            code, said = code_of_status(status, str(error)), str(error)
            # Something had come: what began and broke is a cut answer, whatever caused it.
            code = "provider_stream_cut" if code == "provider_unavailable" else code
        case BrokenAnswer() | EventTooLong():
            code, said = "provider_stream_cut", str(error)
        case _:
            code, said = "provider_stream_cut", "its answer cannot be read"
    said = scrub(said, (*secrets, destination.api_key))
    return ProviderError(
        code,
        f"{destination.provider} failed on {destination.model}: {said}",
        retryable=code in RETRYABLE,
        retry_after_seconds=retry_after,
        billed=billed,
        response_id=response_id,
        tokens=tokens,
    )


def moves_on(error: ProviderError) -> bool:
    """Tell whether another model should be asked. Not if the request is at fault: no model mends that."""
    return error.code in ELSEWHERE


def scrub(text: str, secrets: Sequence[str]) -> str:
    """Clean text without the given secrets or anything that looks like a key, at a bounded length."""
    # litellm appends tracebacks to some messages.
    text = clean_text(text).partition("\nTraceback")[0]
    for secret in secrets:
        # Shorter ones are no secrets, and parts of words.
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    return KEY_SHAPES.sub("[key]", text)[:MAX_MESSAGE]


def code_of_status(status: int, words: str) -> str:
    """The code of a refusal; `words` is everything that the provider said about it."""
    if 400 <= status < 500 and CREDIT_WORDS.search(words):
        return "provider_auth"
    match status:
        case 429:
            return "provider_rate_limited"
        case 403 if POLICY_WORDS.search(words):
            return "provider_content_policy"
        case 401 | 402 | 403:
            return "provider_auth"
        case 404:
            return "model_unknown"
        case 408 | 504:
            return "provider_timeout"
        case 409 | 425:
            return "provider_unavailable"
        case _ if 400 <= status < 500:
            if status == 413 or CONTEXT_WORDS.search(words):
                return "provider_context_too_long"
            return "provider_content_policy" if POLICY_WORDS.search(words) else "provider_bad_request"
        case _:
            return "provider_unavailable"


def error_in(told: object) -> BrokenAnswer:
    """Translate an `error` inside an answer."""
    if not isinstance(told, Mapping):
        return BrokenAnswer(str(told))
    kinds = [told.get("code"), told.get("status"), told.get("type")]
    numbers = (int(said) for kind in kinds if len(said := str(kind)) == 3 and said.isdecimal())
    status = next((number for number in numbers if 400 <= number < 600), None)
    named = (STATUS_OF[kind] for kind in kinds if isinstance(kind, str) and kind in STATUS_OF)
    message = str(told.get("message") or "it reported an error without a reason")
    return BrokenAnswer(message, status or next(named, None))


def _read_refusal(body: bytes) -> tuple[str, str]:
    """(everything said, the sentence for people): providers agree on neither shape nor names."""
    text = body.decode("utf-8", "replace").strip()
    try:
        read: Any = read_json(text)
    except NotJson:
        # A page of some machine in between: its words are for nobody.
        return text, "" if text.startswith("<") else text
    told = read[0] if isinstance(read, list) and read else read
    for _ in range(2):
        if not isinstance(told, Mapping):
            break
        told = next((told[name] for name in ("error", "message", "detail") if told.get(name)), told)
    return text, told if isinstance(told, str) else json.dumps(told) if told else ""
