"""What the API answers with. Times are RFC 3339, durations seconds, money dollars."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schema.definition import LANGUAGE


class DefinitionVersion(BaseModel):
    """One immutable stored definition, without its text."""

    name: str
    version: int
    sha256: str
    created_at: datetime
    created_by: str | None


class StoredDefinition(DefinitionVersion):
    created: bool = Field(description="False when this content was stored before: nothing has changed.")
    inferred: dict[str, list[str]] = Field(
        description="step → dependencies that were not written but follow from its references."
    )


class DefinitionDocument(DefinitionVersion):
    language: str = LANGUAGE
    definition: dict[str, Any]


class DefinitionPage(BaseModel):
    items: list[DefinitionVersion]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class Valid(BaseModel):
    valid: bool = True
    name: str
    steps: int
    inferred: dict[str, list[str]]


class Change(BaseModel):
    """One difference, as JSON Patch would name it."""

    model_config = ConfigDict(populate_by_name=True)

    op: str = Field(description="add, remove or replace")
    path: str = Field(description="RFC 6901 JSON pointer")
    before: Any = Field(default=None, serialization_alias="from")
    after: Any = Field(default=None, serialization_alias="to")


class DefinitionDiff(BaseModel):
    name: str
    before: int = Field(serialization_alias="from")
    after: int = Field(serialization_alias="to")
    changes: list[Change]
    text: str = Field(description="The unified difference of the two documents.")


class PlannedStep(BaseModel):
    id: str
    kind: str
    summary: str
    needs: list[str] = Field(description="Must have completed; skipped, when one of them was skipped.")
    waits: list[str] = Field(description="Must have ended either way.")
    inferred: list[str] = Field(description="Those of both that were not written in `needs`.")
    conditional: bool
    timeout_seconds: float
    max_attempts: int


class DefinitionPlan(BaseModel):
    name: str
    version: int
    steps: list[PlannedStep] = Field(description="Every step behind those it depends on.")
    mermaid: str


class StartRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"definition": "code-review", "input": {"task": "Review it.", "file": "print(1)"}}]
        },
    )

    definition: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}(@[1-9][0-9]{0,8})?$",
        description="`name`, or `name@2` for a certain version.",
    )
    input: Any = Field(default_factory=dict, description="Must fit the definition's `input` schema.")
    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$",
        description="The Temporal workflow id; one is made when it is left out.",
    )


class Accepted(BaseModel):
    id: str
    status: str = "running"
    links: dict[str, str]


class ErrorFact(BaseModel):
    code: str
    message: str


class Attempt(BaseModel):
    """One attempt at a step. Each was paid."""

    id: str = Field(description="The execution.")
    step: str
    iteration: int
    attempt: int
    kind: str
    agent: str
    role: str | None
    model: str = Field(description="The model that answered.")
    requested_model: str | None
    provider: str | None
    status: str
    tokens: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    seconds: float
    first_token_seconds: float | None
    quality: float | None
    simulated: bool
    error: ErrorFact | None
    started_at: datetime
    completed_at: datetime | None


class CollaborationSummary(BaseModel):
    id: str
    run_id: str
    name: str
    version: int | None
    task: str
    status: str = Field(description="running, completed or failed")
    sub_state: str = Field(description="starting, cancelled, …; empty when there is nothing to add.")
    error: ErrorFact | None
    quality: float | None
    started_at: datetime
    completed_at: datetime | None
    seconds: float
    steps_done: int
    tokens: int
    cost_usd: float
    trace_id: str | None


class CollaborationPage(BaseModel):
    items: list[CollaborationSummary]
    next: str | None


class CollaborationDetail(CollaborationSummary):
    steps: list[Attempt]
    input: Any = Field(default=None, description="With ?include=input.")
    output: Any = Field(default=None, description="With ?include=output.")


class StepOutput(BaseModel):
    step: str
    status: str
    model: str
    output: Any


class SpanFact(BaseModel):
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    service: str
    started_at: datetime
    ended_at: datetime
    seconds: float
    status: str
    attributes: dict[str, Any]


class Trace(BaseModel):
    trace_id: str
    spans: list[SpanFact]


class EventFact(BaseModel):
    cursor: str
    id: str
    type: str
    payload: dict[str, Any]
    created_at: datetime


class EventPage(BaseModel):
    items: list[EventFact]
    next: str = Field(description="Pass it as `after` to get what comes next.")


class GraphQuery(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"cypher": "MATCH (a:Agent) RETURN a.model, count(*) AS agents"}]},
    )

    cypher: str = Field(
        min_length=1, max_length=20_000, description="A reading query, or the name of a stored one."
    )
    parameters: dict[str, Any] = Field(default_factory=dict)


class GraphAnswer(BaseModel):
    columns: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="There were more rows than one answer holds.")


class StoredQuery(BaseModel):
    name: str
    cypher: str


class Check(BaseModel):
    ok: bool
    required: bool
    milliseconds: float
    detail: str = ""


class Ready(BaseModel):
    ready: bool
    checks: dict[str, Check]


class ProjectionLag(BaseModel):
    """How far a copy is behind the log."""

    events: int | None = Field(description="Not applied yet; null when the server does not answer.")
    seconds: float | None = Field(description="Age of the oldest of them.")
    detail: str = ""


class Live(BaseModel):
    live: bool = True
