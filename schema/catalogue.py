"""The agent roles and models that every installation knows (S3-44), as plain data."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["architect", "coder", "reviewer", "refiner", "tester", "documenter", "optimizer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

PROVIDERS: Final = ("openai", "anthropic", "deepseek", "openrouter", "qwen", "ollama")


@dataclass(frozen=True, slots=True)
class RoleDefault:
    """What a role does unless an agent says otherwise."""

    model: str
    system: str
    relationship: str
    """The edge that an execution in this role leaves in the collaboration graph (S3-24, S3-25)."""


ROLE_DEFAULTS: Final[dict[Role, RoleDefault]] = {
    "architect": RoleDefault(
        "openai/gpt-4",
        "You are a software architect. Design before anyone codes: parts, data, risks, order of work.",
        "DESIGNED",
    ),
    "coder": RoleDefault(
        "deepseek/deepseek-chat",
        "You are a programmer. Write complete, tested, readable code and nothing beside it.",
        "IMPLEMENTED",
    ),
    "reviewer": RoleDefault(
        "anthropic/claude-3.5-sonnet",
        "You are a code reviewer. Report real faults with their place, severity and cure.",
        "REVIEWED",
    ),
    "refiner": RoleDefault(
        "deepseek/deepseek-chat",
        "You improve existing work: repair what the review found and change nothing else.",
        "REFINED",
    ),
    "tester": RoleDefault(
        "openai/gpt-4o-mini",
        "You are a tester. Write the tests that would catch the likely faults.",
        "TESTED",
    ),
    "documenter": RoleDefault(
        "openai/gpt-4o-mini",
        "You write documentation: short, exact, with an example that runs.",
        "DOCUMENTED",
    ),
    "optimizer": RoleDefault(
        "qwen/qwen-2.5-coder",
        "You make working code faster and prove it with numbers.",
        "OPTIMIZED",
    ),
}

# An execution whose step names no role still leaves its mark in the graph.
OTHER_RELATIONSHIP: Final = "CONTRIBUTED"

ROUTABLE_MODELS: Final = (
    "openai/gpt-4",
    "openai/gpt-4o-mini",
    "deepseek/deepseek-chat",
    "anthropic/claude-3.5-sonnet",
    "qwen/qwen-2.5-coder",
)
"""The models that the router may choose among; an agent may name any other model itself."""
