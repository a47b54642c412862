"""Requests and responses about the router."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api.http.shapes import AwareMoment
from api.money.models import MODEL

MAX_AT_ONCE = 256

Model = Annotated[str, Field(pattern=MODEL, max_length=200)]
Short = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class PredictRequest(BaseModel):
    """A step that wants a model."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"task": "Write a parser for CSV in Rust", "role": "coder"}]},
    )

    task: str = Field(min_length=1, max_length=100_000, description="What the run is about.")
    prompt: str = Field(default="", max_length=200_000, description="The step's own prompt, as written.")
    role: Short | None = Field(default=None, description="Of the agent.")
    agent: Short = Field(default="anyone", description="The agent's name, where it has no role.")
    candidates: list[Model] = Field(
        default_factory=list, max_length=100, description="provider/model. Empty: the catalogue's models."
    )


class BatchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: list[PredictRequest] = Field(min_length=1, max_length=MAX_AT_ONCE)


class Span90(BaseModel):
    """An interval that holds nine of ten outcomes."""

    low: float
    expected: float = Field(description="About the median.")
    high: float


class Candidate(BaseModel):
    """One model, and what is expected of it; null where nothing is known."""

    model: str
    chance: float = Field(description="Of being chosen; never 0, so that it can be learned about.")
    success: float | None = Field(description="Its chance of a right answer.")
    doubt: float | None = Field(description="The standard deviation of that: how little is known.")
    seconds: Span90 | None
    output_tokens: Span90 | None
    usd: Span90 | None = Field(description="Null also where the model has no price.")
    quarantined: bool


class Prediction(BaseModel):
    """The model that the router would choose, and its confidence."""

    simulated: bool = Field(
        description="Whether the simulator answers: simulated runs taught what is foreseen."
    )
    model: str = Field(description="Who would most likely be chosen.")
    by: str = Field(description="checkpoint; rules where none serves, or where it is broken.")
    policy: str = Field(examples=["checkpoint-4", "rules-v1"])
    checkpoint: int | None = Field(description="The one that decides.")
    fallback: bool = Field(description="Whether rules stand in for a checkpoint that could not be asked.")
    confidence: float | None = Field(
        description="0 to 1: the chance of success less what is not known of it; null where rules decide."
    )
    novelty: float | None = Field(
        description="How far the step is from all that was learned from, 0 to 1; 1 more in a new category."
    )
    budget_tokens: int | None = Field(description="The recommended limit of the answer.")
    category: str
    candidates: list[Candidate] = Field(description="The likeliest first.")
    votes: dict[str, str | None] = Field(description="Whom rules, similar past steps and the network prefer.")
    notes: list[str] = Field(description="What could not be weighed, and what is broken.")


class BatchPrediction(BaseModel):
    predictions: list[Prediction] = Field(description="In the order of the steps.")


class CheckpointFact(BaseModel):
    """A production checkpoint."""

    number: int
    state: str = Field(description="shadow, share, all, rolled_back or retired.")
    state_reason: str
    state_since: datetime | None
    outcomes: int = Field(description="Since it is in its state.")
    training: str
    created_at: datetime
    trained_until: datetime = Field(description="It has learned from nothing that ended later.")
    simulated: bool = Field(description="Whether simulated runs taught it: it decides in those alone.")
    sha256: str
    bytes: int
    manifest: dict[str, Any] = Field(description="Code, seed, arguments and figures: what made it.")


class CheckpointPage(BaseModel):
    items: list[CheckpointFact]
    next: int | None = Field(description="Pass it as `before` for the next page; null on the last one.")


class ModelInfo(BaseModel):
    """The checkpoint that serves, as this process holds it."""

    simulated: bool = Field(description="Whether in simulated runs; the others have one of their own.")
    by: str = Field(description="checkpoint or rules")
    policy: str
    checkpoint: CheckpointFact | None
    challenger: CheckpointFact | None
    models: list[str] = Field(description="Those that the checkpoint has learned of.")
    categories: list[str]
    incumbent: str | None = Field(description="The best single model, left only for more than the margin.")
    margin: float | None
    cost_weight: float | None = Field(description="Success that one US dollar is worth.")
    encoder: str
    loaded: bool = Field(description="Whether this process has it at hand; the first prediction loads it.")
    loaded_at: datetime | None
    loads: int = Field(description="Checkpoints that this process has loaded since it began.")
    cached_texts: int
    cache_hits: int
    cache_misses: int
    broken: str | None = Field(description="Why the checkpoint cannot be asked.")


class TrainingFact(BaseModel):
    """One time that the router learned, or tried to."""

    id: str
    status: str = Field(description="running, registered, refused or failed.")
    reason: str
    simulated: bool = Field(
        description="Whether it learned from simulated runs alone; else from real ones alone."
    )
    until: datetime
    seed: int
    arguments: dict[str, Any]
    data: dict[str, Any] = Field(description="Rows taken, and refused by reason.")
    curve: list[dict[str, Any]] = Field(description="One object for each epoch.")
    figures: dict[str, Any]
    started_by: str | None
    started_at: datetime
    ended_at: datetime | None


class TrainingPage(BaseModel):
    items: list[TrainingFact]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class TrainingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="The same data and seed, the same weights.")
    until: AwareMoment | None = Field(
        default=None, description="What ended later is not learned from. Absent: until now."
    )


class TrainingStarted(BaseModel):
    id: str
    workflow_id: str


class QuarantineFact(BaseModel):
    model: str
    reason: str
    since: datetime
    until: datetime = Field(description="Then it is tried again.")


class RouterStatus(BaseModel):
    """The deciding policy, how fresh it is, and the latest training."""

    simulated: bool = Field(description="Whether in simulated runs; real ones have a router of their own.")
    by: str = Field(description="checkpoint or rules")
    policy: str
    serving: CheckpointFact | None
    challenger: CheckpointFact | None
    fresh_seconds: float | None = Field(description="Age of the newest outcome that the serving one knows.")
    coverage: dict[str, float] = Field(
        description="Of the last 500 outcomes, the share within the serving one's 90 % intervals: seconds, "
        "input_tokens and output_tokens."
    )
    quarantines: list[QuarantineFact]
    trainings: list[TrainingFact] = Field(description="The last five, without their curves.")


class PromoteCheckpoint(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(ge=1, le=2**31 - 1)


class RollbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] = ""


class OutcomeRequest(BaseModel):
    """A judgement of an agent's answer, by a person or by an automatic check."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ok": 1}]})

    ok: float = Field(ge=0, le=1, description="0 useless to 1 right.")
    note: Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


class OutcomeTold(BaseModel):
    execution: str = Field(description="The attempt that answered.")
    ok: float
    note: str
