"""facilitair/v1: the one JSON document that a user uploads."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schema.language.steps import (
    NAME,
    Agent,
    Cache,
    Duration,
    JsonSchema,
    Retry,
    Shape,
    Step,
    StepId,
    Template,
)

LANGUAGE: Final = "facilitair/v1"


class Defaults(Shape):
    """Defaults for every step that does not override them."""

    timeout: Duration = "2m"
    retry: Retry = Retry()
    priority: int = Field(default=3, ge=1, le=5, description="1 goes before 5 where workers are short.")
    cache: Cache | None = Field(
        default=None,
        description="For agent steps: take an equal step's answer. Absent: every one asks the model.",
    )
    chain: Literal["quick", "all", "off"] = Field(
        default="quick",
        description="Which neighbouring steps share one activity that records each in Postgres: those "
        "without a model or a network call, all, or none.",
    )


class Budget(Shape):
    """The most that one run may cost, its sub-collaborations included. Checked before every call."""

    usd: float | None = Field(default=None, gt=0, le=1_000_000, description="US dollars.")
    tokens: int | None = Field(default=None, ge=1, description="Input and output tokens together.")
    time: Duration | None = Field(default=None, description="From the run's start to its end.")
    on_exceed: Literal["stop", "degrade", "ask"] = Field(
        default="stop",
        description="stop with budget_exceeded, go on with `degrade_to`, or ask a person for more.",
    )
    degrade_to: str | None = Field(default=None, description="A cheaper model, as provider/model.")
    assignees: list[str] = Field(
        default_factory=list, max_length=100, description="Who is asked: user:<name> or group:<name>."
    )


class StreamEdge(Shape):
    """Tokens of one step shown to another while they are made.

    With `start` the target begins as soon as there is a first part to read, instead of when the source has
    ended. Without, the edge only says who sees them, and creates no dependency.
    """

    source: StepId = Field(alias="from", description="The step whose tokens are shown.")
    target: StepId = Field(alias="to", description="The step that sees them.")
    start: Literal["token", "sentence", "paragraph", "code_block"] | None = Field(
        default=None, description="The first finished part that the target begins on, and goes on by."
    )
    turns: int = Field(
        default=2,
        ge=1,
        le=20,
        description="How often the target answers, at most, before the source has ended.",
    )
    on_retry: Literal["restart", "ignore", "wait"] = Field(
        default="restart",
        description="When the source is tried again: the target forgets what it had read, keeps it, or "
        "waits for the end.",
    )
    adaptive: bool = Field(
        default=False,
        description="Runs find out whether the edge helps: one in twenty goes without it, and where it does "
        "not help, only one in twenty has it.",
    )


class Definition(Shape):
    """A multi-agent collaboration as data."""

    editor_schema: str | None = Field(
        default=None,
        alias="$schema",
        max_length=2_000,
        description="Where an editor finds this JSON Schema. The platform does not read it.",
    )
    language: Literal["facilitair/v1"] = Field(default=LANGUAGE, description="The version of the language.")
    name: Annotated[str, Field(pattern=NAME, description="Also the Temporal workflow type.")]
    description: str = Field(default="", max_length=10_000, description="For people; nothing reads it.")
    input: JsonSchema = Field(
        default_factory=lambda: {"type": "object"},
        description="A JSON Schema (2020-12) that the input of every run must fit.",
    )
    agents: dict[str, Agent] = Field(
        default_factory=dict, max_length=200, description="The agents that agent steps name."
    )
    defaults: Defaults = Field(
        default=Defaults(), description="Timeout and retry of steps that give none of their own."
    )
    budget: Budget | None = Field(default=None, description="Absent: no bound of its own.")
    steps: dict[StepId, Step] = Field(
        min_length=1, max_length=1_000, description="Step id to step. Their order in the file means nothing."
    )
    stream: list[StreamEdge] = Field(
        default_factory=list,
        max_length=5_000,
        description="Which step's tokens are shown to which other step.",
    )
    output: Template = Field(
        default=None,
        description="The collaboration's result: any JSON with ${…} in it. Absent: what the last steps made.",
    )
