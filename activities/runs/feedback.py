"""Deliver people's steering to a step that is under way."""

import asyncio
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.runs import control
from db.runs.control import Control
from schema.errors import StepError
from schema.language.catalogue import Catalogue
from schema.language.steps import Agent, AgentStep
from schema.temporal.steps import StepRequest

POLL_SECONDS: Final = 0.25
FRESH_SECONDS: Final = 0.1
"""Longest age of a reading that a call may rely on: after a pause none begins later than 200 ms."""


class SteeringChanged(StepError):
    """People paused the run, told it something or adjusted it after an attempt had begun, and before the
    model was asked: the attempt ends without having cost anything."""

    def __init__(self) -> None:
        super().__init__("steered", "the run was paused, told something or adjusted before the call began")


def agent_of(agent: Agent, step: AgentStep, control: Control) -> Agent:
    """The step's agent as it is to be asked now."""
    return agent.model_copy(update=control.changes_of(step.agent))


def model_of(
    request: StepRequest, agent: Agent, step: AgentStep, control: Control, catalogue: Catalogue
) -> str:
    """The model to ask: a person's, else the router's, else the agent's own or its role's."""
    changed: str | None = control.changes_of(step.agent).get("model")
    return changed or request.model or catalogue.model_of(agent)


def told(step: str, agent: str, control: Control) -> list[str]:
    """Return the notes that the step's prompt must hold."""
    return [one.text for one in control.feedback if one.concerns(step, agent)]


async def until_resumed(engine: AsyncEngine, run: UUID) -> None:
    """Wait in place while the run is paused."""
    while True:
        async with transaction(engine) as connection:
            if not (await control.state(connection, run)).paused:
                return
        await asyncio.sleep(POLL_SECONDS)
