"""The closed union of step kinds. What a user writes; nothing here does anything."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from schema.catalogue import Role

STEP_ID: Final = r"^[a-z][a-z0-9_]{0,62}$"
NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DURATION: Final = r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)$"

# Kinds and fields of facilitair/v1 that this release refuses as "not supported" rather than "not valid".
FUTURE_KINDS: Final = ("switch", "map", "loop", "human", "collaboration", "wait")
FUTURE_STEP_FIELDS: Final = ("join", "catch", "compensate", "cache", "priority")
FUTURE_FIELDS: Final = ("budget",)

# Words that CEL keeps for itself: `steps.in` would not parse.
RESERVED_IDS: Final = frozenset(
    (
        "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
        "loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
    )
)  # fmt: skip

StepId = Annotated[str, Field(pattern=STEP_ID, description="Lower case, digits and _, as CEL can name it.")]
Duration = Annotated[
    str, Field(pattern=DURATION, description="A number with its unit: 500ms, 30s, 5m, 2h, 1d.")
]
Template = Any
JsonSchema = dict[str, Any]


class Shape(BaseModel):
    """Base of all shapes: unknown fields are refused, values are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Retry(Shape):
    """How often a failed step is tried again. Temporal does the trying."""

    max_attempts: int = Field(default=8, ge=1, le=100, description="Attempts in all, the first one included.")
    initial: Duration = Field(default="1s", description="The pause after the first failure.")
    backoff: float = Field(
        default=2.0, ge=1, le=10, description="Each pause is so many times the one before."
    )
    max: Duration = Field(default="30s", description="No pause is longer.")
    never: list[str] = Field(
        default_factory=list, max_length=50, description="Error codes that end the step at once."
    )


class Route(Shape):
    """Let the router choose the model."""

    among: list[str] = Field(
        default_factory=list, max_length=20,
        description="Models to choose from, as provider/model. Empty: the catalogue's models.",
    )  # fmt: skip


class Agent(Shape):
    """A named role with a prompt and a model or a routing rule."""

    role: Role | None = Field(default=None, description="Gives a default model and system prompt.")
    model: str | Route | None = Field(
        default=None, description="provider/model, a routing rule such as {}, or absent: the role's own."
    )
    system: str | None = Field(
        default=None, max_length=100_000, description="The system prompt. Absent: the role's own."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="Absent: the provider's default.")
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Where the model must stop. Absent: the provider's limit.",
    )


class Recall(Shape):
    """Show the agent similar past work as a hint."""

    limit: int = Field(default=3, ge=1, le=10, description="At most so many pieces of past work.")
    threshold: float = Field(default=0.7, ge=0, le=1, description="Lowest cosine similarity.")


class StepBase(Shape):
    """What every step has."""

    needs: list[StepId] = Field(
        default_factory=list, max_length=200,
        description="Steps that must have completed first. References imply theirs by themselves.",
    )  # fmt: skip
    when: str | None = Field(default=None, description="CEL; the step is skipped when it comes to false.")
    timeout: Duration | None = Field(default=None, description="For one attempt. Absent: defaults.timeout.")
    retry: Retry | None = Field(default=None, description="Absent: defaults.retry.")
    description: str = Field(default="", max_length=2_000, description="For people; nothing reads it.")


class AgentStep(StepBase):
    """One agent's work: a call of a model."""

    kind: Literal["agent"]
    agent: str = Field(description="The name of an agent of this definition.")
    prompt: str = Field(max_length=200_000, description="What the agent is asked; ${…} is replaced.")
    role: Role | None = Field(default=None, description="What the agent does here, when not its usual role.")
    recall: bool | Recall = Field(default=False, description="Show the agent similar past work as a hint.")
    output_schema: JsonSchema | None = Field(
        default=None, description="A JSON Schema for the answer: the output is then JSON instead of text."
    )


class ToolStep(StepBase):
    """A call of a built-in tool, or of a user's own activity on the user's own task queue."""

    kind: Literal["tool"]
    tool: str | None = Field(default=None, description="The name of a built-in tool.")
    activity: str | None = Field(default=None, max_length=200, description="The name of your own activity.")
    task_queue: str | None = Field(default=None, max_length=200, description="The queue your worker serves.")
    args: dict[str, Template] = Field(
        default_factory=dict, max_length=200, description="Arguments: any JSON with ${…} in it."
    )
    output_schema: JsonSchema | None = Field(
        default=None, description="A JSON Schema that the result must fit."
    )


class TransformStep(StepBase):
    """A value computed from what is already there."""

    kind: Literal["transform"]
    value: Template = Field(description="Any JSON with ${…} in it.")


Step = Annotated[AgentStep | ToolStep | TransformStep, Field(discriminator="kind")]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(duration: str) -> float:
    """A duration as the language writes it, in seconds."""
    unit = duration.lstrip("0123456789.")
    return float(duration[: -len(unit)]) * _SECONDS[unit]
