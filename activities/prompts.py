"""What an agent is asked, before anybody answers."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.client import Message
from schema import planning
from schema.catalogue import ROLE_DEFAULTS
from schema.expressions import Json
from schema.steps import Agent, AgentStep, Route
from schema.templates import as_text, render

_PEOPLE_SAID: Final = "While this runs, people said the following. Heed it; the later counts more:"


def messages(
    step: AgentStep, agent: Agent, hints: list[dict[str, Any]], scope: Mapping[str, Json]
) -> list[Message]:
    """The first messages of a step: who the agent is, and the prompt; raises StepError when it fails."""
    return [*system(step, agent, hints), Message("user", as_text(render(step.prompt, scope)))]


def system(step: AgentStep, agent: Agent, hints: list[dict[str, Any]]) -> list[Message]:
    """Who the agent is, where there is anything to say of it."""
    parts = [agent.system or (ROLE_DEFAULTS[agent.role].system if agent.role else "")]
    if step.emits:
        parts.append(planning.guide())
    if hints:
        parts.append(_hint_text(hints))
    text = "\n\n".join(part for part in parts if part.strip())
    return [Message("system", text)] if text else []


def with_feedback(messages: list[Message], feedback: list[str]) -> list[Message]:
    """A conversation whose last message, a user's, ends with what people said of the run since the one
    before. No message of its own: some providers refuse two of a user in a row."""
    if not feedback:
        return messages
    *before, last = messages
    said = "\n\n".join(f"{number}. {text.strip()}" for number, text in enumerate(feedback, 1))
    return [*before, Message(last.role, f"{last.content}\n\n---\n{_PEOPLE_SAID}\n\n{said}")]


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
