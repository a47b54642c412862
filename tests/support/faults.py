"""What the gateway makes of each fault that the simulator can play, as docs/gateway.md has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.request import Timeouts

TIMEOUTS: Final = Timeouts(total=2.0, first_token=0.8, stall=0.5)
"""Of the calls that meet them."""


@dataclass(frozen=True)
class Failure:
    """How a call ends."""

    code: str
    retryable: bool = True
    billed: bool = False
    retry_after_seconds: float | None = None
    said: str = ""
    """Part of the message."""


ANSWERED: Final = None
"""It is no failure: the call ends with a Completion."""

CUT: Final = Failure("provider_stream_cut", billed=True)
UNAVAILABLE: Final = Failure("provider_unavailable")
NO_FIRST: Final = Failure("provider_timeout", billed=True, said="no first word of")
SILENT: Final = Failure("provider_timeout", billed=True, said="fell silent for 0.5 s")
NO_END: Final = Failure("provider_timeout", billed=True, said="no end of")
AUTH: Final = Failure("provider_auth", retryable=False)
NO_MODEL: Final = Failure("model_unknown", retryable=False)
BAD: Final = Failure("provider_bad_request", retryable=False)
TOO_LONG: Final = Failure("provider_context_too_long", retryable=False)
POLICY: Final = Failure("provider_content_policy", retryable=False)
LIMITED: Final = Failure("provider_rate_limited", retry_after_seconds=7.0)


def _refuse(status: int, error_code: str = "") -> dict[str, Any]:
    return {"kind": "refuse", "status": status} | ({"error_code": error_code} if error_code else {})


FAULTS: Final[Mapping[str, tuple[dict[str, Any], Failure | None, Failure | None]]] = {
    # name: (the simulator's rule, what comes of a streamed call, and of one that is not)
    "rate_limit": ({"kind": "rate_limit", "retry_after_seconds": 7}, LIMITED, LIMITED),
    "server_error": ({"kind": "server_error"}, UNAVAILABLE, UNAVAILABLE),
    "overloaded": ({"kind": "overloaded", "status": 529}, UNAVAILABLE, UNAVAILABLE),
    "wrong_key": (_refuse(401, "invalid_api_key"), AUTH, AUTH),
    "no_credit": (_refuse(429, "insufficient_quota"), AUTH, AUTH),
    "no_model": (_refuse(404, "model_not_found"), NO_MODEL, NO_MODEL),
    "bad_request": (_refuse(400), BAD, BAD),
    "too_long": (_refuse(400, "context_length_exceeded"), TOO_LONG, TOO_LONG),
    "content_policy": (_refuse(400, "content_policy_violation"), POLICY, POLICY),
    "slow_first_byte": ({"kind": "slow_first_byte", "delay_seconds": 8}, NO_FIRST, NO_END),
    "slow_first_token": ({"kind": "slow", "delay_seconds": 8}, NO_FIRST, NO_END),
    "silence": ({"kind": "timeout"}, NO_FIRST, NO_END),
    "stall": ({"kind": "stall", "after_tokens": 16, "delay_seconds": 8}, SILENT, NO_END),
    "stall_for_ever": ({"kind": "timeout", "after_tokens": 16}, SILENT, NO_END),
    "short_stall": ({"kind": "stall", "after_tokens": 16, "delay_seconds": 0.1}, ANSWERED, ANSWERED),
    "drop": ({"kind": "drop_mid_stream"}, CUT, CUT),
    "drop_at_once": ({"kind": "drop_mid_stream", "after_tokens": 0}, CUT, CUT),
    "end_without_finish": ({"kind": "end_early"}, CUT, ANSWERED),
    "no_usage": ({"kind": "no_usage"}, ANSWERED, ANSWERED),
    "malformed_event": ({"kind": "malformed_sse", "variant": "invalid_json"}, CUT, ANSWERED),
    "error_event": ({"kind": "malformed_sse", "variant": "error"}, CUT, ANSWERED),
    "split_events": ({"kind": "malformed_sse", "variant": "split"}, ANSWERED, ANSWERED),
    "crlf_events": ({"kind": "malformed_sse", "variant": "crlf"}, ANSWERED, ANSWERED),
    "joined_events": ({"kind": "malformed_sse", "variant": "joined"}, ANSWERED, ANSWERED),
    "comments": ({"kind": "malformed_sse", "variant": "comments"}, ANSWERED, ANSWERED),
    "cut_body": ({"kind": "broken_body", "variant": "cut"}, ANSWERED, CUT),
    "body_without_json": ({"kind": "broken_body", "variant": "not_json"}, ANSWERED, CUT),
    "text_cut_short": ({"kind": "bad_json"}, ANSWERED, ANSWERED),
    "filtered": ({"kind": "refusal"}, ANSWERED, ANSWERED),
}
