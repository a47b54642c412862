"""Translate providers' finish reasons into one vocabulary."""

from collections.abc import Mapping
from typing import Final, Literal, TypeGuard

from schema.errors import ProviderError
from schema.values.foreign import clean_text

FinishReason = Literal["stop", "tool_calls", "length", "content_filter", "refusal", "empty", "error"]
Meaning = Literal["good", "cut", "refused", "empty", "failed"]

MEANINGS: Final[Mapping[FinishReason, Meaning]] = {
    "stop": "good",
    "tool_calls": "good",
    "length": "cut",
    "content_filter": "refused",
    "refusal": "refused",
    "empty": "empty",
    "error": "failed",
}
WORDS: Final[Mapping[FinishReason, tuple[str, ...]]] = {
    "stop": (
        "stop",
        "end_turn",
        "stop_sequence",
        "eos",
        "eos_token",
        "end_of_sequence",
        "complete",
        "completed",
        "finished",
        "done",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "length": (
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "token_limit",
        "time_limit",
        "model_length",
        "model_context_window_exceeded",
    ),
    "content_filter": (
        "content_filter",
        "content_filtered",
        "guardrail_intervened",
        "safety",
        "image_safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "model_armor",
        "sensitive",
        "error_toxic",
        "moderation",
        "flagged",
        "blocked",
    ),
    "refusal": ("refusal", "refused"),
    "error": (
        "error",
        "network_error",
        "server_error",
        "internal_error",
        "model_error",
        "failed",
        "timeout",
        "error_limit",
        "insufficient_system_resource",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "other",
        "malformed_function_call",
        "unexpected_tool_call",
        "malformed_response",
        "malformed_model_output",
        "malformed_tool_use",
        "pause_turn",
    ),
}
"""Providers' words, in small letters and with `_` for every other sign."""
MAX_WORD_CHARS: Final = 40

_REASONS: Final = {word: reason for reason, words in WORDS.items() for word in words}


def refusal(model: str, reason: str) -> ProviderError | None:
    """Return why another model should be asked instead of one whose answer ended so; None where none should.

    The answer is paid, and stands where there is no other model.
    """
    match meaning_of(reason):
        case "refused":
            said = f"{model} ended its answer with {reason}: it, or a filter of its provider, refused"
            return ProviderError("provider_content_policy", f"{said} to go on.", retryable=False)
        case "empty":
            return ProviderError("provider_answer_empty", f"{model} ended without a word.", retryable=False)
    return None


def is_finish(told: object) -> TypeGuard[str]:
    """Tell whether the value is a finish reason. DashScope writes "null" while its answer goes on."""
    return isinstance(told, str) and told.strip().lower() not in ("", "null", "none")


def reason_of(told: str) -> str:
    """Return our word for a provider's. One that is not known is kept as it is, and counts as good."""
    word = clean_text(told).strip().lower().replace("-", "_").replace(" ", "_").removeprefix("finish_reason_")
    return _REASONS.get(word, word[:MAX_WORD_CHARS])


def meaning_of(reason: str) -> Meaning:
    """Return what one of our words means."""
    return next((meaning for known, meaning in MEANINGS.items() if known == reason), "good")
