"""Render the first messages to an agent."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.routing.tasks import task_type
from db.prompts import trials
from db.prompts.trials import ChosenPrompt
from db.runs.collaborations import Run
from gateway.request import Message
from router.data.task import analyze_task
from schema.cel.expressions import Json
from schema.errors import NotFound, StepError
from schema.language.catalogue import Catalogue
from schema.language.steps import Agent, AgentStep
from schema.language.templates import as_text, render
from schema.rules import planning

_PEOPLE_SAID: Final = "While this runs, people said the following. Heed it; the later counts more:"


async def chosen(
    connection: AsyncConnection, agent: Agent, run: Run, *, simulated: bool
) -> ChosenPrompt | None:
    """The stored prompt that the agent names, as this run gets it; raises StepError when it is gone.
    `simulated`: whether the simulator answers the agent."""
    if agent.prompt is None:
        return None
    try:
        return await trials.choose(connection, run, agent.prompt, simulated=simulated)
    except NotFound as error:
        raise StepError(error.code, error.message) from None


def asked(step: AgentStep, scope: Mapping[str, Json]) -> str:
    """The step's prompt; raises StepError when it cannot be made."""
    return as_text(render(step.prompt, scope))


def system(
    step: AgentStep,
    agent: Agent,
    hints: list[dict[str, Any]],
    catalogue: Catalogue,
    chosen: ChosenPrompt | None,
    prompt_text: str,
) -> list[Message]:
    """Render the system message from role, skills and hints; no message if there is nothing to say."""
    parts = _stored(agent, catalogue, chosen, prompt_text) if chosen else [catalogue.system_of(agent)]
    parts.append(catalogue.instructions_of(agent))
    if step.emits:
        parts.append(planning.guide())
    if hints:
        parts.append(_hint_text(hints))
    text = "\n\n".join(part for part in parts if part.strip())
    return [Message("system", text)] if text else []


def examples(chosen: ChosenPrompt | None) -> list[Message]:
    """Earlier answers that the agent is to take for its own."""
    shown = chosen.content.examples if chosen else []
    return [
        message for one in shown for message in (Message("user", one.input), Message("assistant", one.output))
    ]


def _stored(agent: Agent, catalogue: Catalogue, chosen: ChosenPrompt, prompt_text: str) -> list[str]:
    """Render a stored prompt for this task (S2-12)."""
    content = chosen.content
    parts = [content.system or catalogue.system_of(agent)]
    if content.by_task:
        parts.append(content.by_task.get(task_type(prompt_text, agent.role), ""))
    if content.when_complex and analyze_task(prompt_text).complexity == "high":
        parts.append(content.when_complex)
    return parts


def with_feedback(messages: list[Message], feedback: list[str]) -> list[Message]:
    """A conversation that ends with what people said of the run since the message before. It has none of its
    own behind a user's: some providers refuse two in a row."""
    if not feedback:
        return messages
    *before, last = messages
    said = "\n\n".join(f"{number}. {text.strip()}" for number, text in enumerate(feedback, 1))
    heed = f"{_PEOPLE_SAID}\n\n{said}"
    if last.role != "user":
        return [*messages, Message("user", heed)]
    return [*before, Message("user", f"{last.content}\n\n---\n{heed}")]


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
