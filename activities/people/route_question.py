"""The question to people which model does a step, where the router is not sure."""

from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.agent import prompts
from activities.runs.context import StepContext, load
from activities.values import storable
from db.router import rules
from db.router.rules import ModelChoice
from db.runs import control
from db.runs.people import Task
from schema.language.steps import AgentStep, Route
from schema.temporal.steps import StepRequest

PURPOSE: Final = "route"
GO_ON: Final = "go_on"
"""The action that takes the router's own choice."""
MAX_OFFERED: Final = 5
_SHOWN_CHARS: Final = 20_000


@dataclass(frozen=True)
class RouteQuestion:
    title: str
    show: dict[str, Any]
    actions: list[dict[str, Any]]
    assignees: list[str]


async def question_of(connection: AsyncConnection, request: StepRequest) -> RouteQuestion | None:
    """None where a person has adjusted the agent's model already, whom the router would not outvote.

    `request` has the question's purpose. Raises StepError where the step's prompt cannot be made."""
    context = await load(connection, request)
    step = context.step
    assert isinstance(step, AgentStep)
    rule = context.definition.agents[step.agent].model
    assert isinstance(rule, Route)
    steering = await control.state(connection, context.run.id)
    if steering.changes_of(step.agent).get("model"):
        return None
    path = replace(request, purpose="").path
    choice = await rules.choice(connection, request.collaboration, path)
    models = {GO_ON: choice.model}
    models |= {f"model_{number}": name for number, name in enumerate(_others(choice), 1)}
    confidence = choice.features.get("confidence")
    sure = "cannot tell" if confidence is None else f"is {confidence:.0%} sure"
    return RouteQuestion(
        title=f"Which model shall do {path} of {context.run.name}? The router would ask {choice.model}, and "
        f"{sure} that it succeeds.",
        show=storable(
            {
                "step": path,
                "task": context.run.task[:_SHOWN_CHARS],
                "prompt": _prompt(context, request.step, step),
                "confidence": confidence,
                "models": models,
                "candidates": [_facts(choice, name) for name in models.values()],
            }
        ),
        actions=[_action(id, name) for id, name in models.items()],
        assignees=rule.assignees,
    )


def chosen(task: Task, action: str | None) -> str:
    """The model that a decision stands for; empty where nobody decided in time."""
    return str(task.show["models"][action]) if action else ""


def _others(choice: ModelChoice) -> list[str]:
    """The most promising first: by what is predicted of them, else by the chance they had."""
    predicted = choice.features.get("predicted") or {}
    others = [name for name in choice.candidates if name != choice.model]
    others.sort(key=lambda name: (-predicted.get(name, {}).get("ok", 0.0), -choice.candidates[name], name))
    return others[:MAX_OFFERED]


def _facts(choice: ModelChoice, name: str) -> dict[str, Any]:
    """Return what the router expects of a candidate; `share` is the chance with which it is chosen."""
    predicted = (choice.features.get("predicted") or {}).get(name, {})
    expected = {key: predicted[key] for key in ("ok", "doubt", "seconds", "usd") if key in predicted}
    return {"model": name, "share": round(choice.candidates.get(name, 0.0), 4), **expected}


def _action(id: str, name: str) -> dict[str, Any]:
    title = f"Go on with {name}" if id == GO_ON else f"Ask {name}"
    return {"id": id, "title": title, "requires": [], "edits": None}


def _prompt(context: StepContext, name: str, step: AgentStep) -> str:
    if context.compiled.streams.read_by(name):
        # What it reads live is not said yet.
        return step.prompt[:_SHOWN_CHARS]
    return prompts.asked(step, context.scope)[:_SHOWN_CHARS]
