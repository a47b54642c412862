"""Every error of the platform: one base, a stable code, what was found, what was expected, what to do."""

from dataclasses import asdict, dataclass
from typing import Final, Self

MAX_PROPOSED_WAIT_SECONDS: Final = 600.0
"""Longest wait that a third party may ask for: its clock may be wrong, and a day is no pause."""


class FacilitairError(Exception):
    """Base of every error a person can meet. Code decides by `code` or type, never by the text.

    `retryable` is decided where the error is born: Temporal tries a retryable one again, and ends the
    step at once on any other.
    """

    retryable = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an uploaded document."""

    code: str
    pointer: str
    """RFC 6901 JSON pointer to the culprit; "" is the whole document."""
    found: str
    expected: str
    fix: str

    @property
    def message(self) -> str:
        return f"found {self.found}; expected {self.expected}. {self.fix}"

    def as_json(self) -> dict[str, str]:
        return asdict(self) | {"message": self.message}


class InvalidDefinition(FacilitairError):
    """An uploaded document was refused; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__("definition_invalid", f"{first.pointer or '/'}: {first.message}{more}")
        self.problems = problems


class NotFound(FacilitairError):
    """Something named by the caller does not exist (or belongs to another tenant)."""


class Refused(FacilitairError):
    """The caller's request cannot be carried out as it stands; trying again unchanged will not help."""


class TryLater(Refused):
    """A request that would be taken later; the caller is told when."""

    def __init__(self, code: str, message: str, retry_after_seconds: int) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(FacilitairError):
    """A server that the platform needs does not answer; trying again later will help."""

    retryable = True


class StepError(FacilitairError):
    """A step cannot succeed however often it is tried: its tool, prompt or output is wrong."""

    def __init__(self, code: str, message: str, *, step: str = "") -> None:
        """`step`: the path of the step, where it is known; `at` tells it later."""
        super().__init__(code, message)
        self.step = step

    def at(self, path: str) -> Self:
        """Note which step it is that failed, unless a step within it has been named; returns itself."""
        self.step = self.step or path
        return self

    @property
    def told(self) -> str:
        """The message as the run's own error has it: with the step."""
        return f"step {self.step!r}: {self.message}" if self.step else self.message


class ProviderError(FacilitairError):
    """An LLM provider refused or failed.

    Codes: provider_rate_limited, provider_unavailable, provider_timeout, provider_stream_cut (all
    retryable); provider_auth, provider_bad_request, provider_content_policy, provider_answer_empty,
    provider_context_too_long, model_unknown, price_missing (never retried).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        retry_after_seconds: float | None = None,
        billed: bool = False,
        response_id: str = "",
        tokens: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.retryable = retryable
        asked = retry_after_seconds
        self.retry_after_seconds = None if asked is None else min(asked, MAX_PROPOSED_WAIT_SECONDS)
        self.billed = billed
        """Whether the provider may have billed something: it had the request, and how it ended is unknown."""
        self.response_id = response_id
        """The provider's name for the answer that had begun."""
        self.tokens = tokens
        """Input, output and cached input, where the provider had counted them before it failed."""


STEP_CODES: Final = (
    "expression_failed",
    "output_invalid",
    "output_too_large",
    "tool_args_too_large",
    "tool_args_wrong",
    "tool_failed",
    "tool_not_allowed",
    "tool_unknown",
    "tool_unreachable",
    "attempt_abandoned",
    "step_failed",
    "run_failed",
    "cancelled",
    "timeout",
    "io_error",
    "database_unavailable",
    "internal_error",
    "map_not_a_list",
    "map_too_wide",
    "loop_exhausted",
    "human_timeout",
    "wait_time_invalid",
    "budget_exceeded",
    "budget_busy",
    "role_unknown",
    "skill_unknown",
    "prompt_unknown",
    "child_id_taken",
    "queue_reserved",
    "caller_foreign",
    "input_too_large",
    "plan_invalid",
    "plan_too_deep",
    "too_large_tree",
    "too_many_children",
    "too_many_running",
    "definitions_full",
    "input_invalid",
    "definition_invalid",
    "provider_rate_limited",
    "provider_unavailable",
    "provider_timeout",
    "provider_stream_cut",
    "provider_auth",
    "provider_bad_request",
    "provider_content_policy",
    "provider_answer_empty",
    "provider_context_too_long",
    "price_missing",
    "model_unknown",
)
"""Codes with which our own steps fail, and so which `catch` can name; users' activities have their own."""
