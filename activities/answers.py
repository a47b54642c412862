"""An agent's answer to its step, and further ones while it is not what it must be."""

import asyncio
import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.trace import Span
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities import prompts
from activities.call import call
from activities.context import StepContext
from activities.guard import describe, given_up
from activities.listening import Listening, Place
from activities.news import News
from activities.spending import DEFAULT_MAX_OUTPUT_TOKENS, Purse
from activities.steering import FRESH_SECONDS, POLL_SECONDS, Steered, agent_of, model_of, told
from activities.tokens import TokenLog
from activities.values import checked_output, storable
from db import budgets, cache, control, executions, turns
from db.budgets import Amount
from db.control import Control
from db.engine import transaction
from db.executions import Claim, Outcome, Worker
from gateway.client import Completion, Gateway, Message, ModelRequest
from schema import planning, reflection, telemetry
from schema.errors import StepError
from schema.expressions import Json
from schema.messages import PAUSED, StepRequest, StepResult
from schema.steps import Agent, AgentStep, seconds


@dataclass(frozen=True)
class Means:
    """What agents work with, the same for all of a worker."""

    engine: AsyncEngine
    gateway: Gateway
    tokens: TokenLog
    capture_content: bool = False
    news: News | None = None


class OutputInvalid(StepError):
    """The model's answer is not what the step promises. Final once the step's own further answers are used
    up: asked from the start the agent would only cost the same again."""

    def __init__(self, faults: list[str], answer: str) -> None:
        shown = "; ".join(faults[:3])
        super().__init__("output_invalid", f"the model's answer does not fit: {shown}")
        self.faults = faults
        self.answer = answer


class Answers:
    """One agent step from its claim to its end: an answer, and further ones while it is not what it must be.

    Each answer is an attempt with a row, a cost and tokens of its own.
    """

    def __init__(
        self, means: Means, request: StepRequest, context: StepContext, step: AgentStep,
        agent: Agent, worker: Worker, begun: Claim, hints: list[dict[str, Any]], bounded: bool, began: float,
        steering: Control,
    ) -> None:  # fmt: skip
        self.engine = means.engine
        self.gateway = means.gateway
        self.tokens = means.tokens
        self.capture_content = means.capture_content
        self.news = means.news
        self.request, self.context, self.step, self.defined = request, context, step, agent
        self.worker, self.begun, self.hints = worker, begun, hints
        self.purse = Purse(self.engine, self.gateway, context.run.id) if bounded else None
        self.began = began
        self.messages: list[Message] = []
        self.told = 0
        """How much of the feedback stands in `messages`; what came since goes to the end of the last one."""
        self.cache_key: str | None = None
        self.paid: Outcome | None = None
        self._follow(steering)

    async def run(self, current: Span) -> StepResult:
        further = reflection.rules_of(self.step).max
        while True:
            try:
                return await self._attempt(current)
            except OutputInvalid as wrong:
                if not further:
                    raise
                further -= 1
                self._reply_to(wrong)
            except Steered:
                pass
            if done := await self._claim_next():
                return done

    async def _attempt(self, current: Span) -> StepResult:
        self.paid = None
        try:
            if not self.messages:
                self.messages = await self._first_messages(current)
                if self.step.cache and (kept := await self._take_from_cache()):
                    return kept
            completion, used = await self._ask()
            self.paid = _outcome(None, completion)
            output = await self._output(completion)
            outcome = replace(self.paid, output=output)
            await self.tokens.flush()
            async with transaction(self.engine) as connection:
                result = await executions.complete(connection, self.request, self.worker, self.begun, outcome)
                await self._settle(connection)
                # A cheaper model's answer is not what an equal step asks for.
                if result and self.cache_key and used == self.worker.requested_model:
                    await cache.store(connection, self.request.tenant, self.cache_key, self.begun.execution)
        except asyncio.CancelledError:
            await self._close("cancelled", "the step was cancelled while it ran")
            raise
        except Exception as error:
            await self._close(*describe(error))
            raise
        _describe(current, completion, self.begun, outcome)
        if result is None:
            raise given_up()
        return result

    async def _first_messages(self, current: Span) -> list[Message]:
        """The prompt; of a step that reads others live, its conversation with them."""
        streams = self.context.compiled.streams
        if not streams.read_by(self.request.step):
            return prompts.messages(self.step, self.agent, self.hints, self.context.scope)

        async def ask(
            number: int, dialogue: list[Message], heard: Mapping[str, tuple[str, int]], anew: bool
        ) -> str:
            return await self._turn(current, number, dialogue, heard, anew)

        place = Place(self.engine, self.context.run.id, self.request, self.step, streams, self.context.scope)
        dialogue = await Listening(place, ask, self.news).dialogue()
        # Waiting for others takes nothing from the time that the answer may take.
        self.began = asyncio.get_running_loop().time()
        async with transaction(self.engine) as connection:
            await self._look_up(connection)
        return [*prompts.system(self.step, self.agent, self.hints), *dialogue]

    async def _turn(
        self, current: Span, number: int, dialogue: list[Message], heard: Mapping[str, tuple[str, int]],
        anew: bool,
    ) -> str:  # fmt: skip
        """What the agent says to work in progress: an execution of its own."""
        turn = copy.copy(self)
        turn.request = replace(self.request, purpose=f"turn{number}")
        # It is text, whatever the answer in the end must be.
        turn.step = self.step.model_copy(
            update={"output_schema": None, "emits": None, "reflect": None, "cache": None}
        )
        self.began = turn.began = asyncio.get_running_loop().time()
        async with transaction(self.engine) as connection:
            await turn._look_up(connection)
            turn.messages = [*prompts.system(turn.step, turn.agent, self.hints), *dialogue]
            turn.begun = await executions.claim(connection, turn.request, turn.worker)
            if not turn.begun.done:
                await turns.note(connection, turn.begun.execution, dialogue[-1].content, heard, anew=anew)
            if turn.begun.attempt > 1:
                await budgets.release_abandoned(connection, turn.request)
        if not turn.begun.done:
            await turn._attempt(current)
        async with transaction(self.engine) as connection:
            path = turn.request.path
            return (await turns.finished(connection, self.context.run.id, [path]))[path].reaction

    async def _look_up(self, connection: AsyncConnection) -> None:
        """Ask as people want it by now; raises Steered while they want nothing to begin."""
        steering = await control.state(connection, self.context.run.id)
        if steering.paused:
            raise Steered
        self._follow(steering)

    async def _claim_next(self) -> StepResult | None:
        """Begin the attempt for a further answer, or come to what another one has finished meanwhile.

        Waits while the run is paused; before Temporal's patience ends it comes to PAUSED instead.
        """
        while True:
            async with transaction(self.engine) as connection:
                steering = await control.state(connection, self.context.run.id)
                if not steering.paused:
                    self._follow(steering)
                    return await self._claim(connection)
            if asyncio.get_running_loop().time() > self.began + self._limit() / 2:
                return StepResult(execution="", status=PAUSED)
            await asyncio.sleep(POLL_SECONDS)

    async def _claim(self, connection: AsyncConnection) -> StepResult | None:
        begun = await executions.claim(connection, self.request, self.worker)
        if begun.done:
            return begun.done
        if begun.attempt != self.begun.attempt + 1:
            # Temporal had given this activity up and begun another, whose attempt must go on.
            raise given_up()
        self.begun = begun
        return None

    def _follow(self, steering: Control) -> None:
        """Ask as people want it by now."""
        if self.messages and self._asks_otherwise(steering):
            # What it comes to is no answer to the first prompt alone, which is what an equal step would ask.
            self.cache_key = None
        self.read_at = asyncio.get_running_loop().time()
        self.steering, self.agent = steering, agent_of(self.defined, self.step, steering)
        model = model_of(self.request, self.defined, self.step, steering)
        self.worker = replace(self.worker, requested_model=model)
        if self.messages:
            spoken = (message for message in self.messages if message.role != "system")
            self.messages = [*prompts.system(self.step, self.agent, self.hints), *spoken]

    def _asks_otherwise(self, steering: Control) -> bool:
        """Whether people said anything since that concerns this step."""
        name = self.step.agent
        return (
            steering.changes_of(name) != self.steering.changes_of(name)
            or self._feedback(steering) != self._feedback(self.steering)
        )  # fmt: skip

    def _feedback(self, steering: Control) -> list[str]:
        return told(self.request.step, self.step.agent, steering)

    def _conversation(self) -> list[Message]:
        return prompts.with_feedback(self.messages, self._feedback(self.steering)[self.told :])

    async def _still_holds(self) -> None:
        """Raises Steered where people said something while the call was being prepared for long."""
        if asyncio.get_running_loop().time() - self.read_at < FRESH_SECONDS:
            return
        async with transaction(self.engine) as connection:
            steering = await control.state(connection, self.context.run.id)
        if steering.paused or self._asks_otherwise(steering):
            raise Steered

    def _reply_to(self, wrong: OutputInvalid) -> None:
        """Go on with the conversation: the answer, and what is wrong with it."""
        json_wanted = self.step.output_schema is not None or self.step.emits is not None
        reply = reflection.feedback(wrong.faults, json_wanted=json_wanted)
        # Some providers refuse an empty message.
        answer = storable(wrong.answer) if wrong.answer.strip() else "(no answer)"
        self.messages = [*self._conversation(), Message("assistant", answer), Message("user", reply)]
        self.told = len(self._feedback(self.steering))

    async def _close(self, code: str, message: str) -> None:
        self.tokens.drop(self.begun.execution)
        async with transaction(self.engine) as connection:
            await executions.fail(connection, self.request, self.begun, code, message, self.paid)
            await self._settle(connection)

    async def _settle(self, connection: AsyncConnection) -> None:
        """Give back what the attempt had reserved and book what it cost, with the row that says so."""
        if self.purse is None:
            return
        spent = budgets.NOTHING
        if self.paid:
            spent = Amount(self.paid.cost_usd, self.paid.input_tokens + self.paid.output_tokens)
        await budgets.settle(connection, self.context.run.id, self.begun.execution, spent)

    async def _output(self, completion: Completion) -> Json:
        """The output that an answer holds; raises OutputInvalid with everything that is wrong with it."""
        try:
            output = storable(reflection.read(self.step, completion.text))
            found = await self._faults(output)
        except reflection.NotReadable as error:
            found = [str(error)]
        if found:
            if completion.finish_reason == "length":
                tokens = completion.output_tokens
                found.insert(0, f"it broke off at the limit of {tokens:,} tokens; answer more briefly.")
            raise OutputInvalid(found, completion.text)
        return checked_output(output)

    async def _faults(self, output: Json) -> list[str]:
        if self.step.emits:
            # Checking a long definition takes a second, and the loop has other steps' tokens to write.
            return await asyncio.to_thread(reflection.faults, self.step, output, self.context.scope)
        return reflection.faults(self.step, output, self.context.scope)

    async def _take_from_cache(self) -> StepResult | None:
        """Finish with what an equal execution came to, if there is one and it is still what is expected."""
        assert self.step.cache is not None
        self.cache_key = cache.key_of(self._all_that_decides())
        age = seconds(self.step.cache.ttl)
        async with transaction(self.engine) as connection:
            kept = await cache.find(connection, self.request.tenant, self.cache_key, age)
            if kept is None or await self._faults(kept.output):
                return None
            result = await executions.complete(connection, self.request, self.worker, self.begun, kept)
        if result is None:
            raise given_up()
        return result

    def _all_that_decides(self) -> dict[str, Json]:
        asked = self._request()
        destination = self.gateway.destination(asked.model)
        return {
            "kind": "agent",
            "model": asked.model,
            # An answer that was made up by the simulator is never taken for a provider's, nor the reverse.
            "answers": [destination.provider, destination.model, destination.simulated],
            "messages": [[message.role, message.content] for message in asked.messages],
            "temperature": asked.temperature,
            "max_output_tokens": asked.max_output_tokens,
            "output_schema": self.step.output_schema,
            "emits": self.step.emits,
            "expect": [one.that for one in reflection.rules_of(self.step).expect],
        }

    def _request(self) -> ModelRequest:
        assert self.worker.requested_model is not None
        request = self.request
        return ModelRequest(
            model=self.worker.requested_model,
            messages=self._conversation(),
            response_schema=self.step.output_schema or (planning.ANSWER if self.step.emits else None),
            max_output_tokens=self.agent.max_output_tokens
            or (DEFAULT_MAX_OUTPUT_TOKENS if self.purse else None),
            temperature=self.agent.temperature,
            timeout_seconds=self._seconds_left(),
            call_key=f"{request.collaboration}/{request.path}/{request.iteration}",
        )

    async def _ask(self) -> tuple[Completion, str]:
        """The answer, and the model that was asked for it in the end."""
        asked = self._request()
        if self.purse:
            # The other half of the time is for the call itself.
            asked = await self.purse.reserve(self.begun.execution, asked, self.began + self._limit() / 2)
            asked = replace(asked, timeout_seconds=self._seconds_left())
        await self._still_holds()
        completion = await call(
            self.gateway, asked, self.begun.attempt, self._say, capture_content=self.capture_content
        )
        return completion, asked.model

    async def _say(self, seq: int, text: str) -> None:
        request = self.request
        readers = [edge.target for edge in self.context.definition.stream if edge.source == request.step]
        await self.tokens.append(
            request.tenant, request.collaboration, self.begun.execution, seq, text, readers
        )

    def _limit(self) -> float:
        """Seconds that Temporal allows the activity, further answers included."""
        return seconds(self.step.timeout or self.context.definition.defaults.timeout)

    def _seconds_left(self) -> float:
        limit = self._limit()
        # A little less than Temporal allows, so that it is we who name the reason.
        ours = max(limit * 0.95, limit - 1)
        return max(ours - (asyncio.get_running_loop().time() - self.began), 0.0)


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
