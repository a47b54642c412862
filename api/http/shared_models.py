"""Responses of the API. Times are RFC 3339, durations seconds, money dollars."""

from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.http.shapes import StoredValue, one_of_both
from schema.language.definition import LANGUAGE
from schema.language.steps import DURATION, REF

Overlap = Literal["skip", "buffer_one", "allow_all", "cancel_other"]

START_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"


class DefinitionVersion(BaseModel):
    """One immutable stored definition, without its text."""

    name: str
    version: int
    sha256: str
    created_at: datetime
    created_by: str | None
    pins: dict[str, int] = Field(
        description="ref of a sub-collaboration → the version it was bound to at upload."
    )
    deprecated: str | None = Field(description="Why nobody should start it any more.")


class StoredDefinition(DefinitionVersion):
    created: bool = Field(description="False when this content was stored before: nothing has changed.")
    warnings: list[str] = Field(description="What the bare name means now, where that may surprise.")
    inferred: dict[str, list[str]] = Field(
        description="step → dependencies that were not written but follow from its references."
    )


class DefinitionDocument(DefinitionVersion):
    language: str = LANGUAGE
    definition: dict[str, Any]


class LastRun(BaseModel):
    """The newest run of a definition, whichever its version."""

    id: str
    status: str = Field(description="running, completed or failed")
    sub_state: str
    started_at: datetime


class ListedDefinition(DefinitionVersion):
    description: str = Field(description="As the newest version has it.")
    last_run: LastRun | None


class DefinitionList(BaseModel):
    items: list[ListedDefinition]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class DefinitionPage(BaseModel):
    items: list[DefinitionVersion]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class Valid(BaseModel):
    valid: bool = True
    name: str
    steps: int
    inferred: dict[str, list[str]]
    warnings: list[str] = Field(default=[], description="What may be meant so, and may not.")


class Change(BaseModel):
    """One difference, as JSON Patch would name it."""

    op: str = Field(description="add, remove, replace or move")
    path: str = Field(description="RFC 6901 JSON pointer")
    before: Any = Field(default=None, serialization_alias="from")
    after: Any = Field(default=None, serialization_alias="to")


class PartChange(BaseModel):
    """A step or an agent that is new, gone or different."""

    id: str
    change: str = Field(description="added, removed or changed")
    kind: str
    fields: list[Change] = Field(description="Of a changed one.")


class BreakingChange(BaseModel):
    path: str = Field(description="RFC 6901 JSON pointer into the newer document.")
    reason: str


class DefinitionDiff(BaseModel):
    name: str
    before: int = Field(serialization_alias="from")
    after: int = Field(serialization_alias="to")
    steps: list[PartChange] = Field(description="Steps of maps and loops included.")
    agents: list[PartChange]
    input: list[Change] = Field(description="Of the input's schema.")
    rest: list[Change] = Field(description="Of everything else: output, defaults, budget, …")
    pins: list[Change] = Field(description="Of the versions that sub-collaborations are bound to.")
    breaking: list[BreakingChange] = Field(
        description="Inputs that fitted before may not fit any more, because of these."
    )
    changes: list[Change] = Field(description="The whole difference in the order of the documents.")
    text: str = Field(description="The unified difference of the two documents.")


class AliasRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=999_999_999)


class Alias(BaseModel):
    name: str
    alias: str = Field(description="`current` is what the bare name means.")
    version: int
    warnings: list[str] = Field(default_factory=list)


class AliasList(BaseModel):
    items: list[Alias]
    meant: int | None = Field(description="What the bare name means; null when it means nothing.")


class RollbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(
        default=None, ge=1, le=999_999_999, description="Absent: the one before what the name means now."
    )


class RolledBack(BaseModel):
    name: str
    before: int = Field(serialization_alias="from", description="What the bare name meant.")
    after: int = Field(serialization_alias="to", description="What it means from now on.")


class DeprecateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=2_000, description="Shown to everyone who starts it.")


class PlannedStep(BaseModel):
    id: str
    kind: str
    summary: str
    needs: list[str] = Field(description="Must have completed; skipped, when one of them was skipped.")
    waits: list[str] = Field(description="Must have ended either way.")
    streams: list[str] = Field(
        default_factory=list, description="Must only have begun: this one reads what they say as they say it."
    )
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

    definition: str = Field(pattern=REF, description="`name`, `name@2` or `name@alias`.")
    input: Any = Field(default_factory=dict, description="Must fit the definition's `input` schema.")
    id: str | None = Field(
        default=None,
        pattern=START_ID,
        description="The Temporal workflow id; one is made when it is left out.",
    )


class Accepted(BaseModel):
    id: str
    status: str = "running"
    links: dict[str, str]
    warnings: list[str] = Field(default_factory=list, description="For example that it is deprecated.")


class ErrorFact(BaseModel):
    code: str
    message: str


class Attempt(BaseModel):
    """One attempt at a step. Each was paid."""

    id: str = Field(description="The execution.")
    path: str = Field(description="The step, and where it is repeated: `per_file[17].write`.")
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
    reused_from: str | None = Field(description="The execution whose result this is: of a cache or a fork.")
    finish_reason: str | None = Field(
        default=None,
        description="Why the model's answer ended: stop, tool_calls, length, content_filter, refusal, empty, "
        "or a provider's own word.",
    )
    repaired: bool = Field(default=False, description="Whether the answer was nearly JSON, and was mended.")
    error: ErrorFact | None
    started_at: datetime
    completed_at: datetime | None
    waits_for: str | None = Field(
        default=None, description="Why it does not begin: `no worker has polled 'billing' for 2m`."
    )
    retry_at: datetime | None = Field(
        default=None,
        description="When the step is tried again after this attempt. Null: at once, or not at all.",
    )


class CollaborationSummary(BaseModel):
    id: str
    run_id: str
    name: str
    version: int | None
    task: str
    status: str = Field(description="running, completed or failed")
    sub_state: str = Field(
        description="starting, paused, cancelled, …; no_output where all steps that the output of a "
        "completed run comes from were skipped; empty when there is nothing to add."
    )
    error: ErrorFact | None
    quality: float | None
    started_at: datetime
    completed_at: datetime | None
    seconds: float
    steps_done: int
    tokens: int = Field(description="Of the run and all its sub-collaborations, as cost_usd and simulated.")
    cost_usd: float
    trace_id: str | None
    simulated: bool = Field(default=False, description="Whether any answer came from the simulator.")


class CollaborationPage(BaseModel):
    items: list[CollaborationSummary]
    next: str | None


class Relative(BaseModel):
    """A run that another one came from, or led to."""

    id: str
    run_id: str
    name: str
    version: int
    status: str
    path: str | None = Field(default=None, description="Of a sub-collaboration: the step that runs it.")


class Lineage(BaseModel):
    """The source of a run, and the runs that come from it."""

    forked_from: Relative | None
    forked_at: list[str] = Field(description="The steps that it ran again.")
    forks: list[Relative] = Field(description="Runs that went on from this one, the first 200.")
    parent: Relative | None = Field(description="The collaboration that this one is a step of.")
    children: list[Relative] = Field(description="Its sub-collaborations, the first 200.")


class CollaborationDetail(CollaborationSummary):
    steps: list[Attempt] = Field(description="Attempts at steps in the order they began: a page of them.")
    next: str | None = Field(
        default=None, description="For `after`, where there are more attempts; null at their end."
    )
    sub_collaborations: int = Field(
        default=0,
        description="How many have begun in the tree of runs that this one belongs to; one start may lead to "
        "FACILITAIR_MAX_SUB_COLLABORATIONS.",
    )
    waits_for: list[str] = Field(
        default=[],
        description="What keeps the run from going on: a task queue that no worker polls, or the time when a "
        "step that failed is tried again.",
    )
    lineage: Lineage | None = Field(default=None, description="With ?include=lineage.")
    input: StoredValue = Field(default=None, description="With ?include=input.")
    output: StoredValue = Field(default=None, description="With ?include=output.")


class StepOutput(BaseModel):
    step: str
    status: str
    model: str
    output: StoredValue


class MemoryHit(BaseModel):
    """Similar past work that a step was shown as a hint."""

    collaboration: str = Field(description="The run_id of the run that did it.")
    cosine: float
    task: str
    final_output: str
    quality_score: float | None


class Routing(BaseModel):
    """The model that the router chose for a step, and the chance it had."""

    policy: str
    model: str
    propensity: float
    candidates: dict[str, float] = Field(description="model → propensity")
    fallback: bool


class StepDetails(BaseModel):
    step: str
    attempts: list[Attempt]
    output: StoredValue = Field(description="Of the attempt that completed; null while none has.")
    memory: list[MemoryHit]
    memory_source: str | None = Field(description="weaviate, pgvector or none; null when nobody asked.")
    routing: Routing | None


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
    spans: list[SpanFact] = Field(description="In the order they began: a page of them.")
    next: str | None = Field(description="For `after`, where there are more; null at their end.")


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
    simulated: bool | None = Field(
        default=None, description="Whether it asked about simulated runs or real ones; null: about neither."
    )


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
    """The lag of a copy behind the log."""

    events: int | None = Field(description="Not applied yet; null when the server does not answer.")
    seconds: float | None = Field(description="Age of the oldest of them.")
    detail: str = ""


class Live(BaseModel):
    live: bool = True


class ScheduleRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [one_of_both("cron", "every"), one_of_both("every", "cron")],
            "examples": [
                {"name": "daily-report@stable", "cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
                {"name": "check-inbox", "every": "30m", "input": {"box": "support"}},
            ],
        },
    )

    name: str = Field(pattern=REF, description="What to start: `name`, `name@2` or `name@alias`.")
    cron: str | None = Field(
        default=None,
        max_length=200,
        description="minute hour day-of-month month day-of-week, as crontab(5) means them; exactly one of "
        "`cron` and `every`.",
    )
    every: str | None = Field(
        default=None, pattern=DURATION, description="Counted from the epoch: 1h means on the hour."
    )
    timezone: str = Field(default="UTC", max_length=100, description="Of `cron`, as Europe/Berlin.")
    input: Any = Field(default_factory=dict, description="Must fit the definition's `input` schema.")
    overlap: Overlap = Field(default="skip", description="What to do while the run before is still going on.")
    catch_up: str = Field(
        default="1h", pattern=DURATION, description="How late a start that was missed is still made up for."
    )
    paused: bool = False

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise ValueError("exactly one of cron and every")
        return self


class ScheduledRun(BaseModel):
    id: str = Field(description="Of the collaboration.")
    at: datetime = Field(description="When it was started.")


class ScheduleFact(BaseModel):
    id: str
    name: str
    cron: str | None
    every: str | None
    timezone: str
    overlap: Overlap
    catch_up: str
    paused: bool
    created_by: str | None
    next: list[datetime] = Field(description="Its next five starts; empty while it is paused.")
    recent: list[ScheduledRun] = Field(description="Its last starts, newest first.")


class ScheduleDetail(ScheduleFact):
    input: Any
    starts: int = Field(description="How often it has started a run.")
    skipped: int = Field(description="Starts left out because the run before was still going on.")
    missed: int = Field(description="Starts that nobody made up for in time.")
    warnings: list[str] = Field(
        default_factory=list, description="When it is made: dates and changes of the clock that may surprise."
    )


class SchedulePage(BaseModel):
    items: list[ScheduleFact]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class WebhookRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "triage", "input": {"task": "${input.issue.title}"}}],
        },
    )

    name: str = Field(pattern=REF, description="What to start: `name`, `name@2` or `name@alias`.")
    input: Any = Field(
        default="${input}", description="Its input: any JSON with ${…} over the request's body as `input`."
    )


class WebhookFact(BaseModel):
    id: str
    name: str
    input: Any
    created_at: datetime
    created_by: str | None
    last_called_at: datetime | None


class StoredWebhook(WebhookFact):
    url: str = Field(description="Anyone who knows it may start runs. It is shown this once.")


class WebhookPage(BaseModel):
    items: list[WebhookFact]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")
