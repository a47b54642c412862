"""Ask a provider afterwards for a call's usage, if it reports it."""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.destinations import Destination
from gateway.request import Usage
from gateway.usage import MAX_TOKENS
from schema.errors import ProviderError

if TYPE_CHECKING:
    from gateway.http import Http

LOOKUP_TIMEOUT_SECONDS: Final = 10.0


async def ask(http: "Http", destination: Destination, call_id: str, response_id: str) -> Usage | None:
    """By its own name for the answer, else by ours for the call. None where it cannot tell, or cannot yet.
    Raises ProviderError where it does not answer, which says nothing about the call.

    OpenRouter tells (GET /generation); so does the simulator. Others count by day at best.
    """
    name = response_id or (call_id if destination.simulated else "")
    if not destination.can_be_asked or not name:
        return None
    headers = {"Authorization": f"Bearer {destination.api_key}"} if destination.api_key else {}
    url = f"{destination.base_url}/generation?id={quote(name, safe='')}"
    status, body = await http.get_json(url, headers, LOOKUP_TIMEOUT_SECONDS)
    if status not in (200, 404):
        raise ProviderError(
            "provider_unavailable",
            f"found status {status or 'none'} from {destination.provider}; expected the usage of a call. "
            "It is asked again later.",
            retryable=True,
        )
    return usage_in(body)


def usage_in(body: Any) -> Usage | None:
    """Read usage from OpenRouter's record of a generation: it bills native tokens."""
    told = body.get("data") if isinstance(body, dict) else None
    if not isinstance(told, dict):
        return None
    into = _count(told, "native_tokens_prompt", "tokens_prompt")
    out = _count(told, "native_tokens_completion", "tokens_completion")
    if into is None or out is None:
        return None
    return Usage(into, out, min(_count(told, "native_tokens_cached") or 0, into))


def _count(told: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = told.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
            return value
    return None
