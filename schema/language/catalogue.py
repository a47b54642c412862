"""Roles, skills, providers and models: what every installation knows (S3-44), and what a tenant adds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from schema.errors import StepError
from schema.language.problems import nearest
from schema.language.skills import SKILLS
from schema.language.skills import Skill as Skill
from schema.language.steps import Agent

Role = Literal["architect", "coder", "reviewer", "refiner", "tester", "documenter", "optimizer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

PROVIDERS: Final = ("openai", "anthropic", "deepseek", "openrouter", "qwen", "ollama")


@dataclass(frozen=True, slots=True)
class RoleDefault:
    """Defaults of a role for its agents."""

    model: str
    system: str
    relationship: str
    """The edge that an execution in this role leaves in the collaboration graph (S3-24, S3-25)."""
    description: str = ""
    skills: tuple[str, ...] = ()
    """Skills that every agent in this role has."""


ProviderKind = Literal["openai", "anthropic", "deepseek", "openrouter", "ollama", "openai_compatible"]


@dataclass(frozen=True, slots=True)
class TenantProvider:
    """A provider of a tenant's own, or a built-in one with the tenant's own key and limits."""

    name: str
    """The first part of a model's id: `acme` of `acme/llama-70b`."""
    kind: ProviderKind
    base_url: str | None = None
    key_ref: str | None = None
    """The name under which a worker finds the key; never the key."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


ROLE_DEFAULTS: Final[Mapping[str, RoleDefault]] = {
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

OTHER_RELATIONSHIP: Final = "CONTRIBUTED"
"""Relationship of an execution whose step names no role, or a role without one."""

RELATIONSHIPS: Final = (
    *dict.fromkeys(default.relationship for default in ROLE_DEFAULTS.values()),
    OTHER_RELATIONSHIP,
)
"""All relationships: a tenant's role takes one of them, since the graph's statements are constants."""

ROUTABLE_MODELS: Final = (
    "openai/gpt-4",
    "openai/gpt-4o-mini",
    "deepseek/deepseek-chat",
    "anthropic/claude-3.5-sonnet",
    "qwen/qwen-2.5-coder",
)
"""The models that the router may choose among; an agent may name any other model itself."""


@dataclass(frozen=True, slots=True)
class Master:
    """The leader of a team (S2-02): the network gives each of the five a probability, and routing uses their
    mixture."""

    name: str
    description: str
    leads: tuple[Role, ...]


# The seed names the coordinator and the number five; the other four names are ours.
MASTERS: Final = (
    Master("coordinator", "Work that needs several of the others, or fits none of them.", ROLES),
    Master("design", "What is to be built, its parts and its risks, before anyone codes.", ("architect",)),
    Master("development", "Code: new, repaired, or made faster.", ("coder", "refiner", "optimizer")),
    Master("quality", "Whether work is right: reviews and tests.", ("reviewer", "tester")),
    Master("documentation", "Texts that explain.", ("documenter",)),
)


@dataclass(frozen=True)
class Catalogue:
    """The names that a tenant's definitions may use.

    Agents are looked up in it when they are used, so that a change counts for the next step that begins.
    """

    roles: Mapping[str, RoleDefault] = field(default_factory=lambda: ROLE_DEFAULTS)
    skills: Mapping[str, Skill] = field(default_factory=lambda: SKILLS)
    providers: Mapping[str, TenantProvider] = field(default_factory=dict)
    """The tenant's own, by name."""
    prompts: Mapping[str, int] = field(default_factory=dict)
    """Stored prompt → its latest version."""

    def with_own(
        self,
        roles: Mapping[str, RoleDefault],
        skills: Mapping[str, Skill],
        providers: Mapping[str, TenantProvider],
        prompts: Mapping[str, int],
    ) -> "Catalogue":
        """With what a tenant adds, or has instead of what is built in."""
        return Catalogue({**self.roles, **roles}, {**self.skills, **skills}, providers, prompts)

    def provider_names(self) -> tuple[str, ...]:
        """First parts of models' ids."""
        return tuple(dict.fromkeys((*PROVIDERS, *self.providers)))

    def role(self, name: str) -> RoleDefault:
        """Raises StepError("role_unknown"): a role can go after a definition that names it was uploaded."""
        found = self.roles.get(name)
        if found is None:
            raise StepError(
                "role_unknown",
                f"found the role {name!r}; expected one of the catalogue. {nearest(name, self.roles)} "
                f"Define it with `facilitair roles set {name}`, or upload the definition with another.",
            )
        return found

    def relationship(self, role: str | None) -> str:
        """The edge that an execution in that role leaves in the collaboration graph."""
        found = self.roles.get(role) if role else None
        return found.relationship if found else OTHER_RELATIONSHIP

    def model_of(self, agent: Agent) -> str:
        """The model to ask where no router chose one; raises StepError("role_unknown")."""
        if isinstance(agent.model, str):
            return agent.model
        if agent.role:
            return self.role(agent.role).model
        return agent.model.among[0] if agent.model and agent.model.among else ROUTABLE_MODELS[0]

    def system_of(self, agent: Agent) -> str:
        """Return the agent's system prompt without its skills. Raises StepError("role_unknown")."""
        return agent.system or (self.role(agent.role).system if agent.role else "")

    def skills_of(self, agent: Agent) -> dict[str, Skill]:
        """Its role's and its own, each once; raises StepError("role_unknown" or "skill_unknown")."""
        of_role = self.role(agent.role).skills if agent.role else ()
        found: dict[str, Skill] = {}
        for name in (*of_role, *agent.skills):
            skill = self.skills.get(name)
            if skill is None:
                raise StepError(
                    "skill_unknown",
                    f"found the skill {name!r}; expected one of the catalogue. "
                    f"{nearest(name, self.skills)} Define it with `facilitair skills set {name}`, or take it "
                    f"from the {'role ' + repr(agent.role) if name in of_role else 'agent'}.",
                )
            found[name] = skill
        return found

    def instructions_of(self, agent: Agent) -> str:
        """Return the instructions that its skills add to the agent's system prompt."""
        return "\n\n".join(
            f"## Skill: {name}\n{skill.instructions}" for name, skill in self.skills_of(agent).items()
        )

    def tools_of(self, agent: Agent) -> tuple[str, ...]:
        """Its own tools and those of its skills, each once."""
        of_skills = (tool for skill in self.skills_of(agent).values() for tool in skill.tools)
        return tuple(dict.fromkeys((*agent.tools, *of_skills)))

    def as_json(self) -> dict[str, Any]:
        """Return what the catalogue has beyond what is built in, for another process."""
        own_roles = {name: one for name, one in self.roles.items() if ROLE_DEFAULTS.get(name) != one}
        own_skills = {name: one for name, one in self.skills.items() if SKILLS.get(name) != one}
        return {
            "roles": {name: asdict(one) for name, one in own_roles.items()},
            "skills": {name: asdict(one) for name, one in own_skills.items()},
            "providers": {name: asdict(one) for name, one in self.providers.items()},
            "prompts": dict(self.prompts),
        }


BUILT_IN: Final = Catalogue()


def from_json(value: Mapping[str, Any]) -> Catalogue:
    """Restore what `as_json` wrote."""
    return BUILT_IN.with_own(
        {name: RoleDefault(**one | {"skills": tuple(one["skills"])}) for name, one in value["roles"].items()},
        {name: Skill(**one | {"tools": tuple(one["tools"])}) for name, one in value["skills"].items()},
        {name: TenantProvider(**one) for name, one in value["providers"].items()},
        value["prompts"],
    )
