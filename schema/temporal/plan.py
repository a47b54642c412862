"""The plan that a run executes, as its history holds it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RetryRule:
    max_attempts: int
    initial_seconds: float
    backoff: float
    max_seconds: float
    never: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CatchRule:
    errors: list[str]
    """Error codes; "*" is every error."""
    then: str = ""
    """The step that takes over; empty where a value stands in for the output."""


@dataclass(frozen=True)
class PlanStep:
    """The interpreter's view of a step for scheduling; prompts and values stay in Postgres."""

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
    branches: list[str] = field(default_factory=list)
    """`switch:branch`, or `step:!` + own id where this step takes over for one that failed: needed like
    `needs`, and met only when the step took this branch."""
    quorum: int = 0
    """Number of needs and branches that are enough; the step starts as soon as they completed. 0: all."""
    chain: str = ""
    """`quick` or `slow`: may share an activity with its neighbours; slow ones need one that heartbeats."""
    catches: list[CatchRule] = field(default_factory=list)
    priority: int = 3
    body: "Plan | None" = None
    concurrency: int = 0
    """Most items of a map at once."""
    max_failed: float = 0.0
    """Most failed items of a map, as a number, or as a share if `failed_share`."""
    failed_share: bool = False
    max_iterations: int = 0
    """Most iterations of a loop."""
    compensates: bool = False
    streams: list[str] = field(default_factory=list)
    """Steps that must only have begun: this one reads what they say while they say it."""


@dataclass(frozen=True)
class Plan:
    steps: list[PlanStep]
    """In an order that respects every dependency."""
