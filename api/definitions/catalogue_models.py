"""Requests and responses of the catalogue."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.shapes import NOT_BLANK
from schema.language.catalogue import RELATIONSHIPS, ProviderKind
from schema.language.steps import NAME
from schema.language.tools import TOOLS
from schema.rules.catalogue import MAX_TEXT

Origin = Literal["built_in", "yours", "yours_instead"]
_ORIGIN = "`built_in`, `yours`, or `yours_instead` of the built-in one of that name."


class RoleRequest(BaseModel):
    """Absent fields keep the built-in role's value, if there is a role of that name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "openai/gpt-4o-mini",
                    "system": "You are a security reviewer. Report what an attacker could use.",
                    "relationship": "REVIEWED",
                    "skills": ["security-review"],
                }
            ]
        },
    )

    model: str | None = Field(default=None, max_length=200, description="provider/model")
    system: str | None = Field(default=None, max_length=MAX_TEXT, description="The system prompt.")
    relationship: str | None = Field(
        default=None,
        max_length=63,
        description="The edge that its work leaves in the collaboration graph.",
        json_schema_extra={"anyOf": [{"enum": [*RELATIONSHIPS]}, {"type": "null"}]},
    )
    description: str | None = Field(default=None, max_length=2_000, description="For people.")
    skills: list[str] | None = Field(
        default=None, max_length=20, description="Skills that every agent in this role has."
    )


class RoleFact(BaseModel):
    name: str
    origin: Origin = Field(description=_ORIGIN)
    model: str
    system: str
    relationship: str
    description: str
    skills: list[str]
    set_by: str | None = None
    set_at: datetime | None = None


class SkillRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    description: str = Field(
        max_length=2_000, description="What it is for, in a sentence.", json_schema_extra=NOT_BLANK
    )
    instructions: str = Field(
        max_length=MAX_TEXT, description="They follow the agent's system prompt.", json_schema_extra=NOT_BLANK
    )
    tools: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="Built-in tools that come with it.",
        json_schema_extra={"items": {"enum": [*TOOLS]}, "uniqueItems": True},
    )


class SkillFact(BaseModel):
    name: str
    origin: Origin = Field(description=_ORIGIN)
    description: str
    instructions: str
    tools: list[str]
    set_by: str | None = None
    set_at: datetime | None = None


class ProviderRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "kind": "openai_compatible",
                    "base_url": "https://models.example.com/v1",
                    "key_ref": "example-models",
                    "requests_per_minute": 300,
                }
            ]
        },
    )

    kind: ProviderKind = Field(description="What it speaks and how it counts.")
    base_url: str | None = Field(
        default=None,
        max_length=500,
        description="Absent: the provider's own. Its host must be one that the operator allowed.",
    )
    # Its length is checked with its form: an error of pydantic would quote it, and it may be a key.
    key_ref: str | None = Field(
        default=None,
        description="The name under which workers find the key; never the key itself.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": NAME}, {"type": "null"}]},
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Absent: no limit of ours."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, le=2_000_000_000, description="Absent: no limit of ours."
    )


class ProviderFact(BaseModel):
    name: str
    origin: Origin = Field(description=_ORIGIN)
    kind: str
    base_url: str | None = None
    key_ref: str | None = Field(default=None, description="The name of the key.")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    set_by: str | None = None
    set_at: datetime | None = None


class MasterFact(BaseModel):
    name: str
    description: str
    leads: list[str] = Field(description="Roles.")


class ToolFact(BaseModel):
    name: str
    description: str
    args: dict[str, Any] = Field(description="A JSON Schema.")


class ModelFact(BaseModel):
    model: str
    routable: bool = Field(description="Whether the router may choose it where `among` names none.")
    input_usd: float | None = Field(description="For a million tokens; null where nothing says.")
    output_usd: float | None


class CatalogueDocument(BaseModel):
    """Everything that definitions may name."""

    roles: list[RoleFact]
    skills: list[SkillFact]
    masters: list[MasterFact]
    providers: list[ProviderFact] = Field(description="First parts of models' ids.")
    tools: list[ToolFact]
    models: list[ModelFact] = Field(description="Those of roles and of the router; others may be named too.")
    prompts: dict[str, int] = Field(description="Stored prompt → its latest version.")


class Removed(BaseModel):
    name: str
    built_in: bool = Field(description="Whether the built-in one of that name holds again.")
    used_by: list[str] = Field(description="name@version of definitions that name it: at most 20.")
    more: bool = Field(description="Whether there are others.")
    roles: list[str] = Field(description="Roles of yours that name it.")
