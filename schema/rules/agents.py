"""Rules for agents: names exist in the tenant's catalogue, and fields fit together."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schema.language.catalogue import Catalogue
from schema.language.definition import Defaults
from schema.language.problems import Problems, show
from schema.language.shape import Parts
from schema.language.steps import DURATION, Agent, AgentStep, Route, seconds
from schema.language.templates import escape
from schema.language.tools import TOOLS
from schema.rules.steps import check_people, conflict, useless


def is_model(model: str, catalogue: Catalogue) -> bool:
    """Tell whether the name is provider/model of a provider that the tenant can name."""
    provider, _, rest = model.partition("/")
    return provider in catalogue.provider_names() and bool(rest) and len(model) <= 200


def check_model(pointer: str, model: str, catalogue: Catalogue, problems: Problems) -> None:
    if not is_model(model, catalogue):
        known = dict.fromkeys(role.model for role in catalogue.roles.values())
        problems.add(
            "model_unknown",
            pointer,
            show(model),
            f"provider/model with a provider of {', '.join(catalogue.provider_names()[:40])}",
            problems.hint(model, known),
        )


@dataclass(frozen=True, slots=True)
class AgentRules:
    parts: Parts
    catalogue: Catalogue
    problems: Problems

    def check(self) -> None:
        """Every agent, and what only agent steps have."""
        for name, agent in self.parts.agents.items():
            pointer = f"/agents/{escape(name)}"
            self._models(pointer, name, agent)
            self._names(pointer, agent)
            self._prompt(pointer, agent)
            self._patience(pointer, name, agent)
        for placed in self.parts.steps.values():
            if isinstance(placed.step, AgentStep):
                self._step(placed.pointer, placed.step)

    def _models(self, pointer: str, name: str, agent: Agent) -> None:
        if agent.model is None and agent.role is None:
            self.problems.add(
                "agent_without_model",
                pointer,
                f"agent {name!r} with neither model nor role",
                "a model, a routing rule or a role",
                'Add "model": "openai/gpt-4" or "role": "coder".',
            )
        first: str | None = None
        if isinstance(agent.model, Route):
            for index, model in enumerate(agent.model.among):
                check_model(f"{pointer}/model/among/{index}", model, self.catalogue, self.problems)
            self._route(f"{pointer}/model", agent.model)
        elif agent.model is not None:
            first = agent.model
            check_model(f"{pointer}/model", agent.model, self.catalogue, self.problems)
        elif role := self.catalogue.roles.get(agent.role or ""):
            first = role.model
        for index, model in enumerate(agent.fallback):
            where = f"{pointer}/fallback/{index}"
            if model == first or model in agent.fallback[:index]:
                self.problems.add(
                    "value_wrong",
                    where,
                    f"{show(model)}, which has been asked by then",
                    "a model that was not asked before",
                    "Remove it, or name another.",
                )
            else:
                check_model(where, model, self.catalogue, self.problems)

    def _route(self, pointer: str, rule: Route) -> None:
        check_people(f"{pointer}/assignees", rule.assignees, self.problems)
        if rule.assignees and rule.ask_below is None:
            useless(
                f"{pointer}/assignees",
                "assignees without ask_below",
                "Nobody is asked: add ask_below, or remove it.",
                self.problems,
            )
        alone = len(set(rule.among)) == 1
        if alone and rule.ask_below is not None:
            useless(
                f"{pointer}/ask_below",
                "ask_below with one model to choose from",
                "There is nothing to choose: name more models, or remove it.",
                self.problems,
            )
        if rule.verify is None:
            return
        self._verifier(f"{pointer}/verify/by", rule.verify.by)
        if rule.verify.then is not None:
            check_model(f"{pointer}/verify/then", rule.verify.then, self.catalogue, self.problems)
        if alone and rule.verify.then in (None, rule.among[0]):
            useless(
                f"{pointer}/verify",
                f"verify with nobody to answer instead of {show(rule.among[0])}",
                "Name another model in then or among, or remove it.",
                self.problems,
            )

    def _verifier(self, pointer: str, by: str) -> None:
        if "/" in by:
            check_model(pointer, by, self.catalogue, self.problems)
        else:
            self._role(pointer, by)

    def _names(self, pointer: str, agent: Agent) -> None:
        if agent.role is not None:
            self._role(f"{pointer}/role", agent.role)
        self._each_once(f"{pointer}/skills", "skill_unknown", "skill", agent.skills, self.catalogue.skills)
        self._each_once(f"{pointer}/tools", "tool_unknown", "built-in tool", agent.tools, TOOLS)
        role = self.catalogue.roles.get(agent.role or "")
        names = (*agent.skills, *(role.skills if role else ()))
        skills = [self.catalogue.skills.get(name) for name in names]
        if (
            "max_tool_rounds" in agent.model_fields_set
            and not agent.tools
            and not any(skill is None or skill.tools for skill in skills)
        ):
            useless(
                f"{pointer}/max_tool_rounds",
                "max_tool_rounds of an agent without tools",
                "Give it tools, or a skill that brings some, or remove it.",
                self.problems,
            )

    def _role(self, pointer: str, role: str) -> None:
        if role not in self.catalogue.roles:
            self.problems.add(
                "role_unknown",
                pointer,
                show(role),
                "a role of the catalogue",
                self.problems.hint(role, self.catalogue.roles),
            )

    def _each_once(
        self, pointer: str, code: str, what: str, names: Sequence[str], known: Iterable[str]
    ) -> None:
        for index, name in enumerate(names):
            where = f"{pointer}/{index}"
            if name not in known:
                hint = self.problems.hint(name, known)
                self.problems.add(code, where, show(name), f"a {what}", hint)
            elif name in names[:index]:
                self.problems.add(
                    "value_wrong", where, f"{show(name)} a second time", f"each {what} once", "Remove it."
                )

    def _prompt(self, pointer: str, agent: Agent) -> None:
        if agent.prompt is None:
            return
        if agent.system is not None:
            conflict(
                f"{pointer}/prompt",
                "prompt and system",
                "one of them",
                "A stored prompt says who the agent is: remove system, or keep it and remove prompt.",
                self.problems,
            )
        name, _, version = agent.prompt.partition("@")
        latest = self.catalogue.prompts.get(name)
        if latest is None:
            self.problems.add(
                "prompt_unknown",
                f"{pointer}/prompt",
                show(agent.prompt),
                "a stored prompt",
                self.problems.hint(name, self.catalogue.prompts),
            )
        elif version and int(version) > latest:
            self.problems.add(
                "prompt_unknown",
                f"{pointer}/prompt",
                show(agent.prompt),
                f"a version of {name!r} up to {latest}",
                "Correct the number, or leave it out.",
            )

    def _patience(self, pointer: str, name: str, agent: Agent) -> None:
        """Pauses that no step of the agent could ever wait for."""
        timeouts = [
            placed.step.timeout or self._default_timeout()
            for placed in self.parts.steps.values()
            if isinstance(placed.step, AgentStep) and placed.step.agent == name
        ]
        longest = max(timeouts, key=seconds, default=None)
        for field in ("first_token_timeout", "stall_timeout"):
            given = getattr(agent, field)
            if given is None:
                continue
            if not agent.stream:
                useless(
                    f"{pointer}/{field}",
                    f"{field} of an agent with stream: false",
                    "Its answer comes as a whole, within the step's timeout: remove it.",
                    self.problems,
                )
            elif longest is not None and seconds(given) >= seconds(longest):
                useless(
                    f"{pointer}/{field}",
                    f"{field} of {given}, where no step of the agent may take {given}",
                    f"Make it shorter than {longest}, or give a step more time by its timeout.",
                    self.problems,
                )

    def _default_timeout(self) -> str:
        defaults = self.parts.document.get("defaults")
        written = defaults.get("timeout") if isinstance(defaults, dict) else None
        fits = isinstance(written, str) and re.fullmatch(DURATION, written)
        return written if fits and isinstance(written, str) else Defaults().timeout

    def _step(self, pointer: str, step: AgentStep) -> None:
        if step.role is not None:
            self._role(f"{pointer}/role", step.role)
        if step.budget and step.budget.usd is None and step.budget.tokens is None:
            conflict(
                f"{pointer}/budget",
                "neither usd nor tokens",
                "at least one of them",
                'Add a bound such as "usd": 0.05, or leave the budget out.',
                self.problems,
            )
