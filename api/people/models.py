"""Responses about questions to people."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api.http.shapes import StoredValue


class TaskAction(BaseModel):
    id: str
    title: str
    requires: list[str] = Field(description="Fields of the form that must be filled in.")
    edits: str | None = Field(description="The entry of `show` that this action may replace.")


class TaskSummary(BaseModel):
    """A question to people."""

    id: str = Field(description="New with every asking, also where a step asks the same again.")
    collaboration: str
    name: str = Field(description="The definition.")
    path: str = Field(
        description="The step that asks; with ~budget where it is about more money for it, with ~route where "
        "it is about the step's model."
    )
    title: str
    actions: list[TaskAction]
    assignees: list[str] = Field(description="user:<name> or group:<name>; empty: everybody.")
    approvals: int = Field(description="How many people must decide the same action.")
    decided_by: list[str]
    status: str = Field(description="open, decided, expired or cancelled")
    escalated: bool
    opened_at: datetime
    due_at: datetime | None
    reminded_at: datetime | None
    closed_at: datetime | None
    asking: int = Field(
        description="1, and more where the same was asked at this path before: then only the id tells which "
        "one a decision is for."
    )


class TaskDecision(BaseModel):
    actor: str
    action: str
    form: dict[str, Any]
    original: StoredValue = Field(description="What was shown, where it was replaced.")
    edited: StoredValue
    at: datetime


class TaskDetail(TaskSummary):
    show: dict[str, Any] = Field(description="What the people see.")
    form: dict[str, Any] | None = Field(description="A JSON Schema for what they fill in.")
    decisions: list[TaskDecision]


class TaskPage(BaseModel):
    items: list[TaskSummary]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class DecisionRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "reject", "form": {"reason": "tests are missing"}}]},
    )

    action: str = Field(max_length=63)
    form: dict[str, Any] = Field(default_factory=dict, description="Must fit the question's `form`.")
    edited: Any = Field(default=None, description="What replaces the entry that the action edits.")
    actor: str | None = Field(
        default=None,
        pattern=r"^user:[^\x00-\x1f]{1,200}$",
        description="Who decides, when the caller speaks for somebody. Absent: the caller.",
    )
    groups: list[Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,200}$")]] = Field(
        default_factory=list, max_length=100, description="The groups that they belong to."
    )
