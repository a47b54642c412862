"""Requests and responses about prompts."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.shared_models import Change
from schema.language.prompts import PromptContent
from schema.significance import MIN_UNITS

Number = Annotated[int, Field(ge=1, le=999_999_999)]


class PromptVersion(BaseModel):
    """One immutable stored version, without its content."""

    name: str
    version: int
    sha256: str
    origin: str = Field(description="person or optimizer")
    note: str
    created_by: str | None
    created_at: datetime
    simulated: bool = Field(description="Whether its examples are answers of the simulator.")


class PromptDocument(PromptVersion):
    """A version with its content, and what its name means."""

    current: int = Field(description="The version that the bare name means.")
    current_simulated: int | None = Field(
        description="What it means in simulated runs, where a trial of theirs was won; null: the same."
    )
    newest: int
    on_trial: int | None = Field(
        description="The version that runs are compared with, while a trial goes on."
    )
    description: str
    content: PromptContent


class StoredPrompt(PromptVersion):
    created: bool = Field(description="False when this content was stored before: no version was added.")
    current: int


class Prompt(BaseModel):
    name: str
    current: int
    current_simulated: int | None = Field(description="What it means in simulated runs; null: the same.")
    newest: int
    on_trial: int | None
    description: str
    created_at: datetime


class PromptPage(BaseModel):
    items: list[Prompt]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class PromptVersionPage(BaseModel):
    items: list[PromptVersion]
    next: str | None


class PromptDiff(BaseModel):
    name: str
    before: int = Field(serialization_alias="from")
    after: int = Field(serialization_alias="to")
    changes: list[Change]
    text: str = Field(description="As `diff -u` would show it.")


class PromoteRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Number


class Promoted(BaseModel):
    name: str
    before: int = Field(serialization_alias="from", description="What the bare name meant.")
    after: int = Field(serialization_alias="to", description="What it means from now on.")


class TrialRequest(BaseModel):
    """Configuration of a trial between a candidate and the version that the bare name means."""

    model_config = ConfigDict(extra="forbid")

    candidate: Number
    share: float = Field(default=0.5, ge=0.01, le=0.99, description="Of units that get the candidate.")
    unit: Literal["run", "user"] = Field(default="run", description="What stays with one version.")
    metric: Literal["quality", "success", "cost"] = Field(
        default="quality",
        description="A run's quality score, whether it completed, or what it cost in dollars.",
    )
    alpha: float = Field(default=0.05, ge=0.001, le=0.2, description="How often equal versions may differ.")
    min_units: int = Field(
        default=30, ge=MIN_UNITS, le=100_000, description="Of each version, before any verdict."
    )
    max_units: int = Field(
        default=2_000, ge=2 * MIN_UNITS, le=1_000_000, description="Of both; then it ends undecided."
    )
    promote: bool = Field(default=False, description="Let the bare name mean the candidate once it has won.")


class TrialArm(BaseModel):
    version: int
    units: int = Field(description="Runs or users that have ended and count.")
    mean: float
    variance: float
    unmeasured: int = Field(description="Those that have ended and tell nothing of the metric.")


class Trial(BaseModel):
    """A trial, and its figures: of now, or those that it ended with."""

    id: str
    name: str
    status: str = Field(description="running, won, lost, undecided or stopped")
    winner: int | None
    metric: str
    unit: str
    share: float
    alpha: float
    min_units: int
    max_units: int
    promote: bool
    control: TrialArm
    candidate: TrialArm
    difference: float = Field(description="The candidate's mean less the control's.")
    low: float | None = Field(
        description="The true difference lies between low and high, at all looks together, but for alpha."
    )
    high: float | None
    p: float = Field(description="Below alpha they differ, however often one has looked.")
    started_by: str | None
    started_at: datetime
    stopped_at: datetime | None
    simulated: bool = Field(description="Whether simulated runs take part; else real ones do. Never both.")


class OptimizeRequest(BaseModel):
    """Configuration of a search for better examples for a prompt."""

    model_config = ConfigDict(extra="forbid")

    metric: Literal["quality"] = "quality"
    limit: int = Field(default=2_000, ge=1, le=10_000, description="So many of the newest collaborations.")
    budget_usd: float = Field(default=1.0, gt=0, le=1_000, description="For all calls together.")
    model: str | None = Field(default=None, description="Who answers. Absent: who answered most often.")
    judge: str | None = Field(default=None, description="Who judges answers. Absent: the reviewer's model.")


class OptimizeStarted(BaseModel):
    name: str
    workflow_id: str
    state: str = Field(description="running, completed or failed")
    result: dict[str, Any] | None = Field(default=None, description="Once it has completed.")
    error: dict[str, str] | None = Field(default=None, description="Once it has failed: code and message.")
