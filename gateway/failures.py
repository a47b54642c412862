"""Providers' failures as ours: one code each, retryable or not, without secrets."""

import asyncio
import email.utils
import re
import time
from collections.abc import Iterator, Sequence
from typing import Final

import httpx

from gateway.destinations import Destination
from schema.errors import ProviderError

RETRYABLE: Final = frozenset(
    ("provider_rate_limited", "provider_unavailable", "provider_timeout", "provider_stream_cut")
)
# Keys have these shapes wherever a provider quotes one back, ours or not.
KEY_SHAPES: Final = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][A-Za-z0-9*._-]{6,}")
LONGEST_MESSAGE: Final = 400
CONTEXT_WORDS: Final = re.compile(
    r"context.?(length|window)|maximum context|too many tokens|prompt is too long", re.I
)
POLICY_WORDS: Final = re.compile(r"content.?(policy|filter|management)|safety system|moderation", re.I)


def as_provider_error(
    error: BaseException, destination: Destination, *, streaming: bool, secrets: Sequence[str] = ()
) -> ProviderError:
    """What a failed call came to. `streaming`: the answer had already begun."""
    # litellm wraps what breaks a translated stream.
    error = getattr(error, "original_exception", None) or error
    code = _code(error, streaming)
    retry_after = _retry_after_seconds(error) if code in RETRYABLE else None
    said = scrub(_said(error), (*secrets, destination.api_key))
    message = f"{destination.provider} failed on {destination.model}: {said}"
    return ProviderError(code, message, retryable=code in RETRYABLE, retry_after_seconds=retry_after)


def cut_stream(destination: Destination, missing: str) -> ProviderError:
    """The stream ended in good order but without what tells that it is complete."""
    message = f"{destination.provider} ended the answer of {destination.model} without {missing}; try again"
    return ProviderError("provider_stream_cut", message, retryable=True)


def scrub(text: str, secrets: Sequence[str]) -> str:
    """Text without the given secrets or anything that looks like a key, at a bounded length."""
    # litellm appends tracebacks to some messages.
    text = text.partition("\nTraceback")[0]
    for secret in secrets:
        # Placeholders such as "ollama" are no secrets, and words of the message.
        if len(secret) > 12:
            text = text.replace(secret, "[key]")
    return KEY_SHAPES.sub("[key]", text)[:LONGEST_MESSAGE]


def _code(error: BaseException, streaming: bool) -> str:
    # The bridge to aiohttp takes a connection that broke for one that was never made in time.
    if any(_is_broken_connection(link) for link in _chain(error)):
        return "provider_stream_cut" if streaming else "provider_unavailable"
    if isinstance(error, TimeoutError | asyncio.TimeoutError | httpx.TimeoutException):
        return "provider_timeout"
    # litellm's exceptions and the SDK's share class names, and litellm derives from the SDK's: names decide,
    # because importing either costs seconds.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"APITimeoutError", "Timeout"}:
        return "provider_timeout"
    if "ContextWindowExceededError" in names:
        return "provider_context_too_long"
    if "ContentPolicyViolationError" in names:
        return "provider_content_policy"
    status = getattr(error, "status_code", None)
    by_status = _code_of_status(error, status) if isinstance(status, int) else None
    connection = "APIConnectionError" in names or isinstance(error, httpx.TransportError)
    if connection:
        return "provider_stream_cut" if streaming else "provider_unavailable"
    if by_status is not None and not (streaming and by_status == "provider_unavailable"):
        return by_status
    return "provider_stream_cut" if streaming else "provider_unavailable"


def _is_broken_connection(error: BaseException) -> bool:
    names = (kind.__name__ for kind in type(error).__mro__)
    return "ClientConnectionError" in names and not isinstance(error, TimeoutError)


def _code_of_status(error: BaseException, status: int) -> str | None:
    said = str(error)
    match status:
        case 429:
            # Out of credit is told with the same status and never heals by waiting.
            return "provider_auth" if "insufficient_quota" in said else "provider_rate_limited"
        case 401 | 402 | 403:
            return "provider_auth"
        case 404:
            return "model_unknown"
        case 408 | 504:
            return "provider_timeout"
        case 409 | 425:
            return "provider_unavailable"
        case _ if 400 <= status < 500:
            if status == 413 or CONTEXT_WORDS.search(said):
                return "provider_context_too_long"
            return "provider_content_policy" if POLICY_WORDS.search(said) else "provider_bad_request"
        case _ if status >= 500:
            return "provider_unavailable"
        case _:
            return None


def _said(error: BaseException) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return str(getattr(error, "message", "") or error or type(error).__name__)


def _retry_after_seconds(error: BaseException) -> float | None:
    for link in _chain(error):
        response = getattr(link, "response", None)
        for headers in (getattr(response, "headers", None), getattr(link, "litellm_response_headers", None)):
            if headers is None:
                continue
            milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
            if milliseconds and re.fullmatch(r"\d+(\.\d+)?", milliseconds):
                return float(milliseconds) / 1000
            if seconds:
                return _seconds(seconds)
    return None


def _seconds(value: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    parsed = email.utils.parsedate_tz(value)
    return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(6):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__
