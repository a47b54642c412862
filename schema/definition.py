"""facilitair/v1: the one JSON document that a user uploads."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from schema.steps import NAME, Agent, Duration, JsonSchema, Retry, Shape, Step, StepId, Template

LANGUAGE: Final = "facilitair/v1"


class Defaults(Shape):
    """What holds for every step that does not say otherwise."""

    timeout: Duration = "2m"
    retry: Retry = Retry()


class StreamEdge(Shape):
    """Tokens of one step shown to another while they are made. Advisory: it never creates a dependency."""

    source: StepId = Field(alias="from")
    target: StepId = Field(alias="to")


class Definition(Shape):
    """A multi-agent collaboration as data."""

    language: Literal["facilitair/v1"] = LANGUAGE
    name: Annotated[str, Field(pattern=NAME, description="Also the Temporal workflow type.")]
    description: str = Field(default="", max_length=10_000)
    input: JsonSchema = Field(default_factory=lambda: {"type": "object"})
    agents: dict[str, Agent] = Field(default_factory=dict, max_length=200)
    defaults: Defaults = Defaults()
    steps: dict[StepId, Step] = Field(min_length=1, max_length=1_000)
    stream: list[StreamEdge] = Field(default_factory=list, max_length=5_000)
    output: Template = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the language, for editors; published as docs/facilitair-v1.schema.json."""
    schema = Definition.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Facilitair definition (facilitair/v1)",
    } | {key: value for key, value in schema.items() if key != "title"}
