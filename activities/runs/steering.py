"""Record how people steer a running collaboration. A local activity of the run's Updates."""

from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.runs.context import facts_of
from activities.values import storable
from db.definitions import catalogue
from db.engine import transaction
from db.runs import control
from db.runs.collaborations import Run
from db.runs.control import FeedbackNote
from plan.compile import CompiledDefinition
from schema.errors import StepError
from schema.language.steps import AgentStep
from schema.rules.steering import MAX_FEEDBACKS, fault_of
from schema.temporal.runs import Steer, SteerOrder
from schema.temporal.signing import Signer

NOBODY: Final = "temporal"
"""Actor of an Update from Temporal's own UI or CLI that named nobody."""
_MAX_ACTOR_CHARS: Final = 205


class SteerActivity:
    def __init__(self, engine: AsyncEngine, signer: Signer | None = None) -> None:
        """`signer`: without one, anyone who reaches Temporal may steer."""
        self._engine = engine
        self._signer = signer

    @activity.defn(name="steer")
    async def steer(self, steered: SteerOrder) -> None:
        """Pause, resume, tell or adjust a run. The same Update once more changes nothing.

        Raises StepError where that cannot be done to this run.
        """
        action, steer = steered.action, steered.steer
        if self._signer:
            self._signer.check_steer(steered.collaboration, action, steer)
        actor = storable(steer.actor or NOBODY)[:_MAX_ACTOR_CHARS]
        async with transaction(self._engine) as connection:
            run, found = await facts_of(connection, steered.collaboration)
            known = await catalogue.of_tenant(connection, run.tenant)
            if fault := fault_of(action, steer, known.provider_names()):
                raise StepError(fault.code, fault.message)
            status = await control.hold(connection, run.id)
            if status != "running":
                raise StepError(
                    "collaboration_ended",
                    f"found {run.temporal_workflow_id!r} {status}; expected one that is still running.",
                )
            _check_agent(found, steer)
            match action:
                case "pause":
                    await control.pause(connection, run, actor)
                case "resume":
                    await control.resume(connection, run, actor)
                case "adjust":
                    changes = storable(steer.changes)
                    await control.adjust(connection, run, actor, steer.agent, changes)
                case "inject_feedback":
                    _check_step(found, steer)
                    id = uuid5(NAMESPACE_OID, f"{run.id}/{steered.id}")
                    said = FeedbackNote(storable(steer.text), steer.step or None, steer.agent or None, actor)
                    await _tell(connection, run, id, said)
                case _:
                    raise StepError(
                        "steer_invalid",
                        f"found {action!r}; expected pause, resume, inject_feedback or adjust.",
                    )


def _check_agent(found: CompiledDefinition, steer: Steer) -> None:
    agents = found.definition.agents
    if steer.agent and steer.agent not in agents:
        known = ", ".join(list(agents)[:20]) or "none"
        raise StepError("agent_unknown", f"found the agent {steer.agent[:63]!r}; the run has: {known}.")


def _check_step(found: CompiledDefinition, steer: Steer) -> None:
    """That there is a prompt which can hold the feedback."""
    if not steer.step:
        return
    step = found.steps.get(steer.step)
    asking = {name: one.agent for name, one in found.steps.items() if isinstance(one, AgentStep)}
    if step is None:
        raise StepError(
            "step_unknown",
            f"found the step {steer.step[:63]!r}; the run has these with a prompt: "
            f"{', '.join(list(asking)[:20]) or 'none'}.",
        )
    agent = asking.get(steer.step)
    if agent is None or steer.agent not in ("", agent):
        whose = f"of {agent!r}, not of {steer.agent!r}" if agent else f"of kind {step.kind}, without a prompt"
        raise StepError(
            "steer_invalid",
            f"step {steer.step!r} is {whose}; expected one whose prompt can hold feedback.",
        )


async def _tell(connection: AsyncConnection, run: Run, id: UUID, said: FeedbackNote) -> None:
    if (given := await control.feedbacks(connection, run.id, besides=id)) >= MAX_FEEDBACKS:
        raise StepError(
            "steer_invalid",
            f"found {given} feedbacks already; expected fewer than {MAX_FEEDBACKS}, since every later "
            "prompt holds them.",
        )
    await control.tell(connection, run, id, said)
