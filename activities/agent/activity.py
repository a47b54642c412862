"""One agent step: begin an attempt, answer, record the result."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from activities.agent import loop, prompts, tool_rounds, verification
from activities.agent.attempts import Attempts
from activities.agent.conversation import Conversation
from activities.agent.deadline import Deadline
from activities.agent.money import Purse
from activities.agent.resources import Resources
from activities.agent.shared_answer import SharedAnswer
from activities.heartbeats import heartbeats
from activities.routing.fallbacks import Choices
from activities.runs.context import load, worker_of
from activities.runs.failures import recorded
from activities.runs.feedback import model_of
from activities.spans import span
from db.engine import transaction
from db.runs import control, executions, vectors
from schema import telemetry
from schema.language.steps import Agent, AgentStep, seconds
from schema.temporal.runs import PAUSED
from schema.temporal.steps import StepRequest, StepResult


class AgentActivity:
    def __init__(self, means: Resources) -> None:
        self._means = means

    @activity.defn(name="agent")
    async def agent(self, request: StepRequest) -> StepResult:
        """Do an agent step, or return the result of the attempt that already finished it.

        Also called from within other activities, and without one.
        """
        started_at = asyncio.get_running_loop().time()
        async with recorded(self._means.engine, request), transaction(self._means.engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, AgentStep)
            agent = context.definition.agents[step.agent]
            # As late as can be: what is paused from now on may still ask once.
            steering = await control.state(connection, context.run.id)
            if steering.paused:
                return StepResult(execution="", status=PAUSED)
            rule = await verification.of_step(connection, request, agent, context.catalogue)
            if rule.verification and rule.verification.accepted is False:
                request = replace(request, model=rule.verification.strong)
            model = model_of(request, agent, step, steering, context.catalogue)
            to, providers = self._means.gateway.destinations, context.catalogue.providers
            simulated = to.simulates(model, providers, request.tenant)
            chosen = await prompts.chosen(connection, agent, context.run, simulated=simulated)
            assignment = replace(
                worker_of(context.definition, step),
                requested_model=model,
                prompt=chosen.ref if chosen else None,
                trial_id=chosen.trial_id if chosen else None,
                simulated=simulated,
            )
            claim = await executions.claim(connection, request, assignment)
            if claim.done:
                return claim.done
            hints = await vectors.recalled(connection, request) if step.recall else []
            tools = context.catalogue.tools_of(agent)
            rounds = await _rounds(connection, request, agent) if tools else []
        conversation = Conversation(request.step, step, agent, context.catalogue, chosen, hints, steering)
        means, defaults = self._means, context.definition.defaults
        cached = step.cache or defaults.cache
        attempts = Attempts(
            means,
            context,
            step,
            request,
            assignment,
            claim,
            conversation,
            Choices(model, conversation.agent.fallback),
            Deadline(seconds(step.timeout or defaults.timeout), started_at),
            Purse(means.engine, means.gateway, means.reconciler, step),
            SharedAnswer(means.flights, request.tenant, seconds(cached.ttl) if cached else None),
            rule,
            rounds,
        )
        attempts.follow(steering)
        with span(
            f"{telemetry.INVOKE_AGENT} {step.agent}",
            request,
            {
                telemetry.OPERATION: telemetry.INVOKE_AGENT,
                telemetry.AGENT_NAME: step.agent,
                telemetry.CONVERSATION_ID: context.run.temporal_workflow_id,
                telemetry.STEP: request.step,
                telemetry.ITERATION: request.iteration,
                telemetry.ATTEMPT: claim.attempt,
                telemetry.REQUEST_MODEL: model,
            },
        ) as current:
            async with heartbeats() if activity.in_activity() else contextlib.nullcontext():
                return await loop.run(attempts, current)


async def _rounds(connection: AsyncConnection, request: StepRequest, agent: Agent) -> list[dict[str, Any]]:
    """Return the rounds of tools that an earlier activity has paid for, in order."""
    numbers = range(1, agent.max_tool_rounds + 1)
    paths = [replace(request, purpose=tool_rounds.purpose(number)).path for number in numbers]
    known = await executions.known(connection, UUID(request.collaboration), paths)
    return [found.output for path in paths if (found := known.get(path))]
