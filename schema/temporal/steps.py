"""Messages of one step: small facts and references, never a step's content."""

from dataclasses import dataclass, field
from typing import Any

from schema.temporal.plan import RetryRule


@dataclass(frozen=True)
class StepEnd:
    """The end of a step."""

    step: str
    status: str
    """completed, skipped, caught, or open: the condition of a step that is not run here holds."""
    branch: str = ""
    """For a switch the branch taken; for a caught step `!` and the id of the step that takes over."""


@dataclass(frozen=True)
class StepRequest:
    """The key of one execution, and where its spans belong."""

    collaboration: str
    tenant: str
    step: str
    traceparent: str
    iteration: int = 0
    """The innermost index of `frame`."""
    model: str | None = None
    """The model that the router chose, or a person whom it asked."""
    frame: str = ""
    """Place of the repetition: `per_file[17]` or `per_file[17].improve[2]`; empty at the top."""
    purpose: str = ""
    """`undo` for its compensation, `budget` where people are asked for more money for it, `route` for its
    model, `verify` where its answer is judged."""
    max_output_tokens: int | None = None
    """Length of answer that the router recommends, if its rule asks for that."""

    @property
    def path(self) -> str:
        """The step within its collaboration: `review`, `per_file[17].review`, `ship~undo`."""
        path = f"{self.frame}.{self.step}" if self.frame else self.step
        return f"{path}~{self.purpose}" if self.purpose else path


@dataclass(frozen=True)
class StepResult:
    """A finished execution, as the interpreter and a reader of the history see it."""

    execution: str
    status: str
    """completed, skipped or caught; PAUSED where nothing was begun."""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str = "0"
    output_bytes: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class SegmentRequest:
    """Neighbouring steps of one frame for one activity. Each is recorded before the next starts."""

    collaboration: str
    tenant: str
    traceparent: str
    frame: str
    members: list[str]
    """Steps to run."""
    gates: list[str]
    """Steps whose condition to evaluate, and which to record as skipped where they cannot run."""
    ended: list[StepEnd]
    """Ends of the steps that these depend on."""


@dataclass(frozen=True)
class SegmentResult:
    ended: list[StepEnd]


@dataclass(frozen=True)
class RepetitionState:
    """A map or loop that has begun, or had."""

    count: int = 0
    """For a map: number of items."""
    done: list[int] = field(default_factory=list)
    """For a map: items that ended earlier, as pairs first, last+1, first, last+1 …"""
    failed: int = 0
    """For a map: number of those that failed."""
    next: int = 0
    """For a loop: next iteration."""
    ended: StepEnd | None = None
    """The whole, when it had ended already."""


@dataclass(frozen=True)
class ItemEnd:
    """The end of one item or iteration: completed, or failed with a code."""

    request: StepRequest
    """Request of the map or loop itself."""
    index: int
    error_code: str | None = None
    error_message: str | None = None
    error_step: str = ""
    """The path of the step that failed."""


@dataclass(frozen=True)
class ItemResult:
    last: bool = False
    """For a loop: `until` holds, or the bound is reached."""


@dataclass(frozen=True)
class CaughtFailure:
    """A step failed for good and its definition says what happens instead."""

    request: StepRequest
    rule: int
    """Which entry of `catch`."""
    error_code: str
    error_message: str
    error_step: str = ""
    """The path of the step that failed: the one that catches, or one within it."""


@dataclass(frozen=True)
class RouteResult:
    model: str
    policy: str
    propensity: float
    confidence: float | None = None
    """0 to 1: the chance of success of the model, less what is not known of it; None where rules chose."""
    ask: bool = False
    """Whether people are to be asked first: the confidence is below what the agent's rule wants."""
    max_output_tokens: int | None = None
    """Output limit that the router recommends, if the agent's rule allows it."""


@dataclass(frozen=True)
class RecallResult:
    hits: int
    source: str


@dataclass(frozen=True)
class OwnActivityCall:
    """A call of a user's own activity: its arguments, or the result when it is already known."""

    execution: str
    args: Any = None
    done: StepResult | None = None


@dataclass(frozen=True)
class OwnActivityReturn:
    request: StepRequest
    execution: str
    output: Any = None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True)
class Undo:
    """A completed step to compensate, as the activity `compensate` takes it."""

    request: StepRequest
    summary: str
    timeout_seconds: float
    retry: RetryRule
    activity: str | None = None
    """A user's own activity and the task queue it is served on, where it is not a built-in tool."""
    task_queue: str | None = None
    priority: int = 3
