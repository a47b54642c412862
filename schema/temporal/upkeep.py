"""Messages of the platform's own regular workflows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArchivePass:
    """The result of one archiving of tokens."""

    executions: int
    tokens: int
    forgotten: int
    """Archives deleted, as they had been kept long enough."""
    cached: int = 0
    """Entries of the step cache deleted because nothing may take them again, and abandoned leads."""


@dataclass(frozen=True)
class VerifyPass:
    """The result of one comparison of the copies with the log."""

    differences: dict[str, int]
    """Copy → number of nodes, relationships or objects that differ."""
    first: list[str]
    """The first of them by kind and key, without their values."""


@dataclass(frozen=True)
class ReconcilePass:
    """The result of one look at the lost calls."""

    settled: int
    """Their providers reported the cost."""
    assumed: int
    """Calls without any account, booked at their upper bound."""
    refunded: int
    """They never arrived."""
    left: int
    """For later, or closed by somebody else."""


@dataclass(frozen=True)
class EndingsPass:
    """The result of one look at runs that may have ended in Temporal alone."""

    looked: int
    closed: int
    first: list[str]
    """`id: TERMINATED`, and so on."""


@dataclass(frozen=True)
class TrialsPass:
    """The result of one look at the A/B tests of prompts."""

    looked: int
    ended: list[str]
    """`name: won`, and so on."""


@dataclass(frozen=True)
class OptimizePrompt:
    """Look for better examples for a prompt."""

    id: str
    """Key of its budget."""
    tenant: str
    name: str
    actor: str
    limit: int
    budget_usd: str
    model: str = ""
    """The answering model; empty for the one that answered most often."""
    judge: str = ""
    """The judging model; empty for the reviewer's."""
    simulated: bool = False
    """Look in simulated runs, instead of real ones."""


@dataclass(frozen=True)
class OptimizationResult:
    """The version that came of it, which is on trial now."""

    version: int
    trial: str
    examples: int
    scored: int
    """Collaborations that it learned from or was held to."""
    held_out: int
    """Tasks that both versions answered and the judge scored."""
    present: float
    candidate: float
    model: str
    judge: str


@dataclass(frozen=True)
class ProjectionPass:
    """The result of one activity of a projection: events applied, and whether more are waiting."""

    applied: int
    more: bool
