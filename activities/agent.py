"""One agent step: render the prompt, call the model, stream the tokens out, record what it came to."""

import asyncio
import contextlib
import json
import time
from typing import Any

from opentelemetry.trace import Span
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.context import StepContext, load, worker_of
from activities.guard import describe
from activities.heartbeats import heartbeats
from activities.record import checked_output, storable
from activities.spans import span
from activities.tokens import TokenLog
from db import executions, vectors
from db.engine import transaction
from db.executions import Claim, Outcome, Worker
from gateway.client import Completion, Gateway, Message, ModelRequest
from schema import json_schemas, telemetry
from schema.catalogue import ROLE_DEFAULTS
from schema.errors import StepError
from schema.messages import StepRequest, StepResult
from schema.steps import Agent, AgentStep, Route, seconds
from schema.templates import as_text, render


class OutputInvalid(StepError):
    """The model's answer breaks the step's output_schema. Another attempt may do better."""

    retryable = True


class AgentActivity:
    def __init__(
        self, engine: AsyncEngine, gateway: Gateway, tokens: TokenLog, *, capture_content: bool = False
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._tokens = tokens
        self._capture_content = capture_content

    @activity.defn(name="agent")
    async def agent(self, request: StepRequest) -> StepResult:
        """Do an agent step, or return the result of the attempt that already finished it."""
        async with transaction(self._engine) as connection:
            context = await load(connection, request)
            step = context.step
            assert isinstance(step, AgentStep)
            agent = context.definition.agents[step.agent]
            model = request.model or _model_of(agent)
            worker = Worker("agent", step.agent, worker_of(context.definition, step).role, model)
            begun = await executions.claim(connection, request, worker)
            if begun.done:
                return begun.done
            hints = await vectors.recalled(connection, request) if step.recall else []
        call = _Call(self, request, context, step, agent, worker, begun)
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
            async with heartbeats():
                return await call.run(model, hints, current)


class _Call:
    """One attempt at one agent step."""

    def __init__(
        self, activity: AgentActivity, request: StepRequest, context: StepContext, step: AgentStep,
        agent: Agent, worker: Worker, begun: Claim,
    ) -> None:  # fmt: skip
        self.engine = activity._engine
        self.gateway = activity._gateway
        self.tokens = activity._tokens
        self.capture_content = activity._capture_content
        self.request, self.context, self.step = request, context, step
        self.agent, self.worker, self.begun = agent, worker, begun
        self.paid: Outcome | None = None

    async def run(self, model: str, hints: list[dict[str, Any]], current: Span) -> StepResult:
        try:
            completion = await self._ask(model, self._messages(hints))
            self.paid = _outcome(None, completion)
            output = checked_output(storable(self._parse(completion.text)))
            outcome = _outcome(output, completion)
            await self.tokens.flush()
            async with transaction(self.engine) as connection:
                result = await executions.complete(connection, self.request, self.worker, self.begun, outcome)
        except asyncio.CancelledError:
            await self._close("cancelled", "the step was cancelled while it ran")
            raise
        except Exception as error:
            await self._close(*describe(error))
            raise
        _describe(current, completion, self.begun, outcome)
        if result is None:
            raise StepError("attempt_abandoned", "a later attempt had already taken this step over")
        return result

    async def _close(self, code: str, message: str) -> None:
        self.tokens.drop(self.begun.execution)
        async with transaction(self.engine) as connection:
            await executions.fail(connection, self.request, self.begun, code, message, self.paid)

    def _messages(self, hints: list[dict[str, Any]]) -> list[Message]:
        system = self.agent.system or (ROLE_DEFAULTS[self.agent.role].system if self.agent.role else "")
        if hints:
            system = f"{system}\n\n{_hint_text(hints)}"
        prompt = as_text(render(self.step.prompt, self.context.scope))
        messages = [Message("system", system)] if system.strip() else []
        return [*messages, Message("user", prompt)]

    async def _ask(self, model: str, messages: list[Message]) -> Completion:
        destination = self.gateway.destination(model)
        with span(
            f"{telemetry.CHAT} {model}",
            None,
            {
                telemetry.OPERATION: telemetry.CHAT,
                telemetry.PROVIDER: destination.provider,
                telemetry.REQUEST_MODEL: model,
            },
            kind="client",
        ) as current:
            if self.capture_content:
                shown = [{"role": message.role, "content": message.content} for message in messages]
                current.set_attribute(telemetry.INPUT_MESSAGES, json.dumps(shown))
            completion = await self._stream(model, messages)
            current.set_attributes(
                {
                    telemetry.RESPONSE_MODEL: completion.model,
                    telemetry.RESPONSE_ID: completion.response_id,
                    telemetry.FINISH_REASONS: [completion.finish_reason],
                    telemetry.INPUT_TOKENS: completion.input_tokens,
                    telemetry.OUTPUT_TOKENS: completion.output_tokens,
                    telemetry.COST_USD: float(completion.cost_usd),
                    telemetry.SIMULATED: completion.simulated,
                }
            )
            if completion.first_token_ms is not None:
                current.set_attribute(telemetry.TIME_TO_FIRST_CHUNK, completion.first_token_ms / 1000)
            if self.capture_content:
                current.set_attribute(telemetry.OUTPUT_MESSAGES, completion.text)
            return completion

    async def _stream(self, model: str, messages: list[Message]) -> Completion:
        request = self.request
        readers = [edge.target for edge in self.context.definition.stream if edge.source == request.step]
        limit = seconds(self.step.timeout or self.context.definition.defaults.timeout)
        asked = ModelRequest(
            model=model,
            messages=messages,
            response_schema=self.step.output_schema,
            max_output_tokens=self.agent.max_output_tokens,
            temperature=self.agent.temperature,
            # A little less than Temporal allows, so that it is we who name the reason.
            timeout_seconds=max(limit * 0.95, limit - 1),
            call_key=f"{request.collaboration}/{request.step}/{request.iteration}",
        )
        seq = 0
        async with contextlib.aclosing(self.gateway.stream(asked)) as answer:
            async for item in answer:
                if isinstance(item, Completion):
                    return item
                await self.tokens.append(request.tenant, self.begun.execution, seq, item, readers)
                seq += 1
        raise AssertionError("the gateway's stream ends with a Completion")

    def _parse(self, text: str) -> Any:
        schema = self.step.output_schema
        if schema is None:
            return text
        try:
            value = json.loads(text)
        except ValueError as error:
            raise OutputInvalid(
                "output_invalid", f"the model's answer is not JSON ({error}); it begins {text[:80]!r}."
            ) from None
        if wrong := json_schemas.violations(schema, value):
            raise OutputInvalid(
                "output_invalid", f"the model's answer does not fit: {wrong[0][0] or '/'}: {wrong[0][1]}."
            )
        return value


def _model_of(agent: Agent) -> str:
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


def _outcome(output: Any, completion: Completion) -> Outcome:
    return Outcome(
        output=output, model=completion.model, provider=completion.provider,
        input_tokens=completion.input_tokens, output_tokens=completion.output_tokens,
        cost_usd=completion.cost_usd, first_token_ms=completion.first_token_ms,
        simulated=completion.simulated,
    )  # fmt: skip


def _describe(current: Span, completion: Completion, begun: Claim, outcome: Outcome) -> None:
    """The seed's attributes (S3-31) on the agent's span."""
    current.set_attributes(
        {
            telemetry.SEED_MODEL: completion.model,
            telemetry.SEED_INPUT_TOKENS: completion.input_tokens,
            telemetry.SEED_OUTPUT_TOKENS: completion.output_tokens,
            telemetry.SEED_LATENCY_MS: int((time.time() - begun.started_at.timestamp()) * 1000),
            telemetry.COST_USD: float(completion.cost_usd),
            telemetry.SIMULATED: completion.simulated,
        }
    )
    if isinstance(outcome.output, dict) and isinstance(outcome.output.get("found_issues"), bool):
        current.set_attribute(telemetry.SEED_FOUND_ISSUES, outcome.output["found_issues"])
