"""All that crosses Temporal: small facts and references, never a step's content.

Fields are only ever added, with a default: histories hold these for as long as runs live.
"""

from dataclasses import dataclass, field
from typing import Any

QUEUE_COLLABORATIONS = "collaborations"
QUEUE_MEMORY = "memory"
QUEUE_PROJECTIONS = "projections"

MEMO_TENANT = "facilitair_tenant"
MEMO_TRACEPARENT = "facilitair_traceparent"
MEMO_REQUESTED_BY = "facilitair_requested_by"


@dataclass(frozen=True)
class RetryRule:
    max_attempts: int
    initial_seconds: float
    backoff: float
    max_seconds: float
    never: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlanStep:
    """What the interpreter must know of a step to schedule it; prompts and values stay in Postgres."""

    id: str
    kind: str
    needs: list[str]
    """Steps that must have completed; if one was skipped, this one is skipped too."""
    waits: list[str]
    """Steps that must have ended either way."""
    timeout_seconds: float
    retry: RetryRule
    summary: str
    conditional: bool = False
    recalls: bool = False
    routes: bool = False
    activity: str | None = None
    """A user's own activity and the task queue it is served on."""
    task_queue: str | None = None


@dataclass(frozen=True)
class Plan:
    steps: list[PlanStep]
    """In an order that respects every dependency."""


@dataclass(frozen=True)
class PinRequest:
    workflow_id: str
    first_run_id: str
    name: str
    """The workflow type: `name`, or `name@3` for a certain version."""
    input: Any
    tenant: str
    traceparent: str | None
    requested_by: str | None


@dataclass(frozen=True)
class Pinned:
    """What a run is bound to from its first moment on."""

    collaboration: str
    tenant: str
    version: str
    version_number: int
    traceparent: str
    plan: Plan


@dataclass(frozen=True)
class StepRequest:
    """The key of one execution, and where its spans belong."""

    collaboration: str
    tenant: str
    step: str
    traceparent: str
    iteration: int = 0
    model: str | None = None
    """The model that the router chose, when it was asked."""


@dataclass(frozen=True)
class StepResult:
    """What the interpreter and a reader of the history see of a finished execution."""

    execution: str
    status: str
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str = "0"
    output_bytes: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class RouteResult:
    model: str
    policy: str
    propensity: float


@dataclass(frozen=True)
class RecallResult:
    hits: int
    source: str


@dataclass(frozen=True)
class ToolCall:
    """A call of a user's own activity: its arguments, or the result when it is already known."""

    execution: str
    args: Any = None
    done: StepResult | None = None


@dataclass(frozen=True)
class ToolReturn:
    request: StepRequest
    execution: str
    output: Any = None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True)
class Finish:
    collaboration: str
    tenant: str
    traceparent: str
    status: str
    """completed or failed; `sub_state` tells cancelled from failed."""
    sub_state: str = ""
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True)
class ProjectionPass:
    """What one activity of a projection did: how many events it applied and whether more are waiting."""

    applied: int
    more: bool
