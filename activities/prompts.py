"""What an agent is asked, before anybody answers."""

from collections.abc import Mapping
from typing import Any

from gateway.client import Message
from schema import planning
from schema.catalogue import ROLE_DEFAULTS
from schema.expressions import Json
from schema.steps import Agent, AgentStep, Route
from schema.templates import as_text, render


def messages(
    step: AgentStep, agent: Agent, hints: list[dict[str, Any]], scope: Mapping[str, Json]
) -> list[Message]:
    """The first messages of a step: who the agent is, and the prompt; raises StepError when it fails."""
    system = [agent.system or (ROLE_DEFAULTS[agent.role].system if agent.role else "")]
    if step.emits:
        system.append(planning.guide())
    if hints:
        system.append(_hint_text(hints))
    prompt = Message("user", as_text(render(step.prompt, scope)))
    text = "\n\n".join(part for part in system if part.strip())
    return [Message("system", text), prompt] if text else [prompt]


def default_model(agent: Agent) -> str:
    """The model that is asked where no router chose one."""
    if isinstance(agent.model, str):
        return agent.model
    if agent.role:
        return ROLE_DEFAULTS[agent.role].model
    assert isinstance(agent.model, Route) and agent.model.among
    return agent.model.among[0]


def _hint_text(hints: list[dict[str, Any]]) -> str:
    shown = "\n\n".join(
        f"### Past task (similarity {hint['cosine']:.2f})\n{hint['task']}\n\n### What it came to\n"
        f"{as_text(hint['final_output'])}"
        for hint in hints
    )
    return (
        "Similar work was done before. Use it as an example of form and pitfalls; "
        "it is not the answer to this task.\n\n" + shown
    )
