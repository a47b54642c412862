"""Messages of the router's learning: references and counts, never rows or weights.

Fields are only ever added, with a default: histories hold these for as long as runs live.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LearnRequest:
    tenant: str
    by: str
    """user:<name>, or who else had it begun."""
    seed: int = 0
    until: str = ""
    """ISO 8601; what ended later is not learned from. Empty: until now."""
    simulated: bool = False
    """Learn from simulated runs, instead of real ones."""


@dataclass(frozen=True)
class LearnStep:
    """The key of a training, and what it is made with."""

    training: str
    tenant: str
    by: str
    seed: int
    until: str
    simulated: bool = False


@dataclass(frozen=True)
class CollectedOutcomes:
    """Counts of the outcomes to learn from."""

    outcomes: int
    refused: int
    """Rows that nothing can be learned from, also for want of a verdict; reasons stand with the training."""
    models: int
    reason: str = ""
    """Why that is not enough; empty where it is."""


@dataclass(frozen=True)
class TrainingRun:
    steps: int
    """Distinct ones that were learned from."""
    epochs: int
    """Epochs of the network; 0 if there was too little data for one."""
    resumed_at: int = 0
    """The epoch that an earlier attempt had reached."""


@dataclass(frozen=True)
class TrainingVerdict:
    may_enter: bool
    reason: str


@dataclass(frozen=True)
class TrainingEnd:
    training: LearnStep
    status: str
    """refused or failed."""
    reason: str


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training."""

    training: str
    status: str
    """registered or refused."""
    reason: str
    checkpoint: int | None = None
    """The number under which it is in shadow now."""


@dataclass(frozen=True)
class DueTenants:
    tenants: list[str]
    """Tenants with enough real runs to learn from."""
    simulated: list[str] = field(default_factory=list)
    """Tenants with enough simulated runs to learn from."""


@dataclass(frozen=True)
class LearnPass:
    """The result of one night's learning."""

    tenants: int
    told: list[str] = field(default_factory=list)
    """`tenant: registered, …` of each."""


@dataclass(frozen=True)
class RolloutsPass:
    """The result of one look at the router's checkpoints."""

    looked: int
    """Tenants."""
    told: list[str] = field(default_factory=list)
    """`tenant: checkpoint 3 in shadow, 120 of 200 outcomes, …` of each."""
