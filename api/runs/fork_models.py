"""Requests and responses about forks."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schema.language.steps import REF, StepId

Definition = Annotated[str, Field(pattern=REF)] | Annotated[int, Field(ge=1, le=999_999_999)]

ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"


class ForkRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                {"properties": {"from": {"minItems": 1}}},
                {"required": ["outputs"], "properties": {"outputs": {"minProperties": 1}}},
            ],
            "examples": [
                {"from": ["review"]},
                {"from": [], "outputs": {"plan": {"files": ["a.py"]}}, "definition": "code-review@3"},
            ],
        },
    )

    from_steps: list[StepId] = Field(
        alias="from",
        max_length=200,
        description="Steps that run again, with all that depends on them. Empty: those behind `outputs`.",
    )
    input: Any = Field(default=None, description="Absent: the input of the run itself.")
    outputs: dict[StepId, Any] = Field(
        default_factory=dict,
        max_length=50,
        description="step → output that replaces its own; all that depends on it runs again.",
    )
    definition: Definition | None = Field(
        default=None,
        description="`name`, `name@2`, `name@alias` or the number of a version. Absent: the run's own.",
    )
    id: str | None = Field(default=None, pattern=ID, description="Of the new run; one is made when absent.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.from_steps and not self.outputs:
            raise ValueError("a step in `from` or `outputs`")
        return self


class RerunRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    definition: Definition | None = Field(
        default=None,
        description="`name`, `name@2`, `name@alias` or the number of a version. Absent: the run's own.",
    )
    id: str | None = Field(default=None, pattern=ID, description="Of the new run; one is made when absent.")


class Forked(BaseModel):
    """A run that goes on from another has been accepted."""

    id: str
    status: str = "running"
    links: dict[str, str]
    warnings: list[str] = Field(default_factory=list)
    definition: str = Field(description="name@version")
    kept: list[str] = Field(description="Steps whose results were taken over. They cost nothing.")
    resumed: list[str] = Field(description="Maps, loops and sub-collaborations that go on where they were.")
    again: list[str] = Field(description="Steps that run again.")
