"""Events of the outbox: small facts in the past tense, enough for every projection to apply."""

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """One thing that happened to an aggregate; `type(event).__name__` is its type in the outbox."""

    aggregate: ClassVar[str] = "collaboration"

    def payload(self) -> dict[str, Any]:
        return dict(vars(self))  # flat, and written for every step: asdict() would copy deeply


@dataclass(frozen=True)
class DefinitionStored(Event):
    aggregate: ClassVar[str] = "definition"

    version_id: str
    name: str
    version: int
    sha256: str


@dataclass(frozen=True)
class AliasMoved(Event):
    aggregate: ClassVar[str] = "definition"

    name: str
    alias: str
    version: int | None
    """None: the alias was removed."""


@dataclass(frozen=True)
class VersionDeprecated(Event):
    aggregate: ClassVar[str] = "definition"

    version_id: str
    name: str
    version: int
    reason: str | None
    """None: it may be started again."""


@dataclass(frozen=True)
class CollaborationStarted(Event):
    collaboration_id: str
    temporal_workflow_id: str
    name: str
    version: int
    task: str
    forked_from: str | None = None
    """The collaboration that it goes on from."""


@dataclass(frozen=True)
class StepFinished(Event):
    collaboration_id: str
    execution_id: str
    step: str
    kind: str
    iteration: int
    attempt: int
    agent: str
    role: str | None
    relationship: str | None
    """The edge it leaves in the graph; None for steps that no agent did."""
    model: str
    requested_model: str | None
    input_tokens: int
    output_tokens: int
    latency_ms: int
    cost_usd: str
    found_issues: bool | None
    severity: str | None
    quality: float | None
    simulated: bool
    path: str = ""
    finish_reason: str = ""
    """Why a model's answer ended; "" where none was asked."""
    repaired: bool = False
    """Whether the answer's JSON had to be mended."""


@dataclass(frozen=True)
class StepSkipped(Event):
    collaboration_id: str
    step: str
    iteration: int
    path: str = ""


@dataclass(frozen=True)
class StepCaught(Event):
    """A step failed for good, and its definition says what happens instead."""

    collaboration_id: str
    step: str
    iteration: int
    path: str
    error_code: str
    then: str
    """The step that takes over; empty where a value stands in."""


@dataclass(frozen=True)
class AttemptFailed(Event):
    collaboration_id: str
    execution_id: str
    step: str
    iteration: int
    attempt: int
    error_code: str
    cost_usd: str
    path: str = ""
    error_message: str = ""


@dataclass(frozen=True)
class ToolsCalled(Event):
    """A model called tools instead of answering; the round that did is finished."""

    collaboration_id: str
    execution_id: str
    step: str
    path: str
    """Path of the round: `review~tools1`."""
    agent: str
    calls: list[dict[str, Any]]
    """id, name and arguments of each, the arguments as the model wrote them."""


@dataclass(frozen=True)
class ToolsReturned(Event):
    collaboration_id: str
    step: str
    path: str
    results: list[dict[str, Any]]
    """id and content of each, and its error's code where it failed."""


@dataclass(frozen=True)
class HumanAsked(Event):
    collaboration_id: str
    task_id: str
    step: str
    path: str
    title: str
    assignees: list[str]
    actions: list[dict[str, Any]] = field(default_factory=list)
    form: dict[str, Any] | None = None
    show: dict[str, Any] | None = None
    """None where it is too large to be told."""


@dataclass(frozen=True)
class HumanDecided(Event):
    """A person decided, or the time had passed (`timeout`)."""

    collaboration_id: str
    task_id: str
    step: str
    path: str
    actor: str
    action: str
    closed: bool
    """True once no further decision is needed."""


@dataclass(frozen=True)
class HumanReminded(Event):
    collaboration_id: str
    task_id: str
    step: str
    path: str
    assignees: list[str]


@dataclass(frozen=True)
class HumanEscalated(Event):
    collaboration_id: str
    task_id: str
    step: str
    path: str
    assignees: list[str]
    """The people asked from now on."""


@dataclass(frozen=True)
class RunSteered(Event):
    """A person steered a running collaboration."""

    collaboration_id: str
    action: str
    """pause, resume, inject_feedback or adjust."""
    actor: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class CollaborationFinished(Event):
    collaboration_id: str
    status: str
    sub_state: str
    error_code: str | None
    cost_usd: str
    """This, `tokens` and `simulated` are of the run and all its sub-collaborations."""
    quality: float | None
    latency_ms: int
    tokens: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class CollaborationForgotten(Event):
    """Everything kept of a run is gone, its earlier events too."""

    collaboration_id: str
