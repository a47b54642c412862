"""Messages about questions to people and their decisions."""

from dataclasses import dataclass, field
from typing import Any

from schema.temporal.steps import StepEnd, StepRequest


@dataclass(frozen=True)
class Decision:
    """A person's decision: the argument of the Update `decide`."""

    path: str
    """The step that asks, `approve` or `per_file[3].approve`; `<path>~budget` where more money is asked for,
    `<path>~route` where it is a model."""
    action: str
    actor: str
    """user:<name>; the API fills it in from who is signed in."""
    groups: list[str] = field(default_factory=list)
    form: dict[str, Any] = field(default_factory=dict)
    edited: Any = None
    """The replacement of the shown value, if the action edits one."""
    proof: str = ""
    """The API's signature, where a key for the API is set; see schema/temporal/signing.py."""
    task: str = ""
    """The question's id, which is new with every asking; without it the question open at `path` is meant."""


@dataclass(frozen=True)
class QuestionState:
    """A question to people: open, or decided already."""

    actions: list[dict[str, Any]] = field(default_factory=list)
    """[{"id", "requires": [...], "edits": name or None}]"""
    form: dict[str, Any] | None = None
    """A JSON Schema."""
    assignees: list[str] = field(default_factory=list)
    decided_by: list[str] = field(default_factory=list)
    """Actors who have decided, where several must."""
    remind_in: float | None = None
    """Seconds until people should be reminded; None: never, or done."""
    due_in: float | None = None
    """Seconds until on_timeout holds."""
    ended: StepEnd | None = None
    choice: str = ""
    """The model that a person chose, once a question about a model is settled."""
    task: str = ""
    """The question's id."""
    again: bool = False
    """Whether the same was asked at this path before: then only its id tells them apart."""


@dataclass(frozen=True)
class DecisionRecord:
    request: StepRequest
    """Request of the step that asked."""
    decision: Decision
