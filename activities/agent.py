"""One agent step: begin an attempt, answer, record what it came to."""

import asyncio
import contextlib
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.answers import Answers, Means
from activities.context import load, worker_of
from activities.heartbeats import heartbeats
from activities.news import News
from activities.spans import span
from activities.steering import model_of
from activities.tokens import TokenLog
from db import budgets, control, executions, vectors
from db.engine import transaction
from gateway.client import Gateway
from schema import telemetry
from schema.messages import PAUSED, StepRequest, StepResult
from schema.steps import AgentStep


class AgentActivity:
    def __init__(
        self, engine: AsyncEngine, gateway: Gateway, tokens: TokenLog, *, capture_content: bool = False,
        news: News | None = None,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._means = Means(engine, gateway, tokens, capture_content, news)

    @activity.defn(name="agent")
    async def agent(self, request: StepRequest) -> StepResult:
        """Do an agent step, or return the result of the attempt that already finished it.

        Also called from within other activities, and without one.
        """
        began = asyncio.get_running_loop().time()
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, AgentStep)
            agent = context.definition.agents[step.agent]
            # As late as can be: what is paused from now on may still ask once.
            steering = await control.state(connection, context.run.id)
            if steering.paused:
                return StepResult(execution="", status=PAUSED)
            model = model_of(request, agent, step, steering)
            worker = replace(worker_of(context.definition, step), requested_model=model)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return begun.done
            bounded = await budgets.bounded(connection, context.run.id)
            if bounded and begun.attempt > 1:
                await budgets.release_abandoned(connection, request)
            hints = await vectors.recalled(connection, request) if step.recall else []
        answers = Answers(
            self._means, request, context, step, agent, worker, begun, hints, bounded, began, steering
        )
        with span(
            f"{telemetry.INVOKE_AGENT} {step.agent}",
            request.traceparent,
            {
                telemetry.OPERATION: telemetry.INVOKE_AGENT,
                telemetry.AGENT_NAME: step.agent,
                telemetry.CONVERSATION_ID: context.run.temporal_workflow_id,
                telemetry.STEP: request.step,
                telemetry.ITERATION: request.iteration,
                telemetry.ATTEMPT: begun.attempt,
                telemetry.REQUEST_MODEL: model,
            },
        ) as current:
            async with heartbeats() if activity.in_activity() else contextlib.nullcontext():
                return await answers.run(current)
