"""An agent's answer to its step, and further ones while it is not what it must be."""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from opentelemetry.trace import Span
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.agent import judge as agent_judge
from activities.agent import readers, tool_rounds, verification
from activities.agent.call import call
from activities.agent.conversation import Conversation
from activities.agent.live_conversation import ListeningConversation, ListeningPlace
from activities.agent.money import DEFAULT_MAX_OUTPUT_TOKENS, Bill, Purse
from activities.agent.resources import Resources
from activities.agent.retries import next_try_seconds
from activities.agent.verification import AnswerCut, AnswerRejected, Draft, RoutingRuleState
from activities.guard import describe, given_up
from activities.routing.fallbacks import Choices
from activities.runs.context import StepContext
from activities.runs.feedback import FRESH_SECONDS, POLL_SECONDS, SteeringChanged, model_of
from activities.values import checked_output, storable
from db.engine import persist, transaction
from db.live import turns
from db.router import rules as decisions
from db.runs import cache, control, executions, in_flight
from db.runs.control import Control
from db.runs.executions import Assignment, Claim, Outcome
from gateway.destinations import Destination
from gateway.finish_reasons import meaning_of, refusal
from gateway.request import Completion, Message, ModelRequest, Timeouts
from schema import telemetry
from schema.cel.expressions import Json
from schema.errors import ProviderError, StepError
from schema.language.steps import AgentStep, Verify, seconds
from schema.language.templates import as_text
from schema.rules import answers, planning
from schema.temporal.runs import PAUSED
from schema.temporal.steps import StepRequest, StepResult

T = TypeVar("T")

MIN_CALL_SECONDS: Final = 5.0
"""A write of what was paid for is tried again for as long, even at the end of the step's time."""
TURN_SECONDS: Final = 5.0
"""So long a call waits for its turn with a provider while another model is left to be asked."""


class OutputInvalid(StepError):
    """The model's answer is not what the step promises. Final once the step's own further answers are used
    up: asked from the start the agent would only cost the same again."""

    def __init__(self, faults: list[str], answer: str) -> None:
        shown = "; ".join(faults[:3])
        super().__init__("output_invalid", f"the model's answer does not fit: {shown}")
        self.faults = faults
        self.answer = answer


class Answers:
    """One agent step from its claim to its end: an answer, and further ones while it is not what it must be,
    while models fail, and while the model calls tools.

    Each answer is an attempt with a row, a call, a cost and tokens of its own.
    """

    def __init__(
        self,
        means: Resources,
        request: StepRequest,
        context: StepContext,
        step: AgentStep,
        worker: Assignment,
        begun: Claim,
        conversation: Conversation,
        kept_rounds: list[dict[str, Any]],
        began: float,
        steering: Control,
        rule: RoutingRuleState,
    ) -> None:
        self.means, self.engine = means, means.engine
        self.request, self.context, self.step = request, context, step
        self.worker, self.begun, self.conversation = worker, begun, conversation
        self.kept_rounds = kept_rounds
        """Of tools, in order: made by this activity, or by one whose worker died."""
        self.rule = rule
        self.purse = Purse(means.engine, means.gateway, means.reconciler, step)
        self.began = began
        self.key: str | None = None
        """What an equal step's answer is kept under, where this one may be."""
        self.readers: list[str] = []
        """The steps that are sent what the agent says."""
        self.bill: Bill | None = None
        """Of the present attempt's call."""
        assert worker.requested_model
        self.choices = Choices(worker.requested_model, conversation.agent.fallback)
        self._follow(steering)

    async def run(self, current: Span) -> StepResult:
        further = answers.rules_of(self.step).max
        while True:
            try:
                if done := await self._attempt(current):
                    return done
            except OutputInvalid as wrong:
                if not further:
                    raise
                further -= 1
                self.conversation.reply_to(wrong.answer, wrong.faults)
            except ProviderError as failed:
                if not self.choices.next(failed):
                    raise await self._verdict() from None
            except AnswerCut:
                self.rule.limit = None
            except AnswerRejected:
                assert self.rule.verification
                self.request = replace(self.request, model=self.rule.verification.strong)
            except SteeringChanged:
                pass
            if done := await self._claim_next():
                return done

    async def _attempt(self, current: Span) -> StepResult | None:
        """Make one attempt; return the step's result, or None if the conversation goes on."""
        self.bill = None
        try:
            if not self.conversation.begun:
                await self._begin(current)
                if not self._draft and (kept := await self._take()):
                    return kept
            if draft := self._draft:
                return await self._take_draft(draft)
            bill, completion = await self._ask()
            await self._flush()
            if self._is_cut(completion):
                raise AnswerCut(completion.output_tokens)
            if self.choices.more and (refused := refusal(completion.model, completion.finish_reason)):
                raise refused
            if completion.tool_calls:
                await self._keep_round(bill, completion)
                return None
            output, repaired = await self._output(completion)
            outcome = replace(_outcome(output, completion), repaired=repaired)
            if self._verifies:
                await self._verify(self._as_draft(outcome), bill)

            async def finish(connection: AsyncConnection) -> StepResult | None:
                done = await executions.complete(connection, self.request, self.worker, self.begun, outcome)
                if done:
                    await self._land(connection, bill, completion)
                await bill.close(connection)
                return done

            result = await self._keep(finish)
        except asyncio.CancelledError as error:
            await self._close(error, "cancelled", "the step was cancelled while it ran")
            raise
        except Exception as error:
            await self._close(error, *describe(error))
            raise
        _describe(current, completion, self.begun, outcome)
        if result is None:
            raise given_up()
        return result

    # -- what is said --------------------------------------------------------------------------------------

    async def _begin(self, current: Span) -> None:
        """The prompt; of a step that reads others live, its conversation with them."""
        streams = self.context.compiled.streams
        sent = await readers.of_step(self.engine, self.context, self.request, simulated=self.worker.simulated)
        self.readers = sent.readers
        if not streams.read_by(self.request.step):
            self.conversation.ask(self.context.scope)
        else:

            async def ask(
                number: int, dialogue: list[Message], heard: Mapping[str, tuple[str, int]], anew: bool
            ) -> str:
                return await self._turn(current, number, dialogue, heard, anew)

            run, scope = self.context.run.id, self.context.scope
            place = ListeningPlace(self.engine, run, self.request, self.step, sent.heard, scope)
            dialogue = await ListeningConversation(place, ask, self.means.news).dialogue()
            # Waiting for others takes nothing from the time that the answer may take.
            self.began = asyncio.get_running_loop().time()
            async with transaction(self.engine) as connection:
                await self._look_up(connection)
            self.conversation.begin(dialogue)
        for number, kept in enumerate(self.kept_rounds, 1):
            self.conversation.hear(await self._answered(number, kept))

    async def _turn(
        self,
        current: Span,
        number: int,
        dialogue: list[Message],
        heard: Mapping[str, tuple[str, int]],
        anew: bool,
    ) -> str:
        """Ask the agent for its reaction to work in progress, as an execution of its own."""
        turn = copy.copy(self)
        turn.conversation = copy.copy(self.conversation)
        turn.request = replace(self.request, purpose=f"turn{number}")
        turn.rule = RoutingRuleState()
        # It is text, whatever the answer in the end must be.
        turn.step = self.step.model_copy(
            update={"output_schema": None, "emits": None, "reflect": None, "cache": None}
        )
        turn.kept_rounds = []
        self.began = turn.began = asyncio.get_running_loop().time()
        async with transaction(self.engine) as connection:
            await turn._look_up(connection)
            turn.conversation.begin(dialogue)
            turn.begun = await executions.claim(connection, turn.request, turn.worker)
            if not turn.begun.done:
                await turns.note(connection, turn.begun.execution, dialogue[-1].content, heard, anew=anew)
        if not turn.begun.done:
            await turn._attempt(current)
        async with transaction(self.engine) as connection:
            path = turn.request.path
            return (await turns.finished(connection, self.context.run.id, [path]))[path].reaction

    async def _keep_round(self, bill: Bill, completion: Completion) -> None:
        """Let the attempt stand as a round of tools, paid for once, and tell the model what they came to."""
        number = len(self.kept_rounds) + 1
        if number > self.conversation.agent.max_tool_rounds:
            raise OutputInvalid(["no more tools may be called; give the answer now."], completion.text)
        request = replace(self.request, purpose=tool_rounds.purpose(number))
        kept = tool_rounds.record(completion)

        async def finish(connection: AsyncConnection) -> StepResult | None:
            await executions.move(connection, self.begun, request.path)
            outcome = _outcome(kept, completion)
            told = tool_rounds.called(kept, request, str(self.begun.execution), self.worker.agent)
            done = await executions.complete(connection, request, self.worker, self.begun, outcome, told)
            await bill.close(connection)
            return done

        if await self._keep(finish) is None:
            raise given_up()
        self.bill = None
        self.kept_rounds.append(kept)
        # It counts no longer among the attempts at the step itself.
        self.begun = replace(self.begun, attempt=self.begun.attempt - 1)
        self.conversation.hear(await self._answered(number, kept))

    # -- attempts ------------------------------------------------------------------------------------------

    async def _look_up(self, connection: AsyncConnection) -> None:
        """Ask as people want it by now; raises Steered while they want nothing to begin."""
        steering = await control.state(connection, self.context.run.id)
        if steering.paused:
            raise SteeringChanged
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
        if self.key:
            before, after = self.begun.execution, begun.execution
            await in_flight.hand_on(connection, self.request.tenant, self.key, before, after)
        self.begun = begun
        return None

    async def _verdict(self) -> ProviderError:
        """Return the error of the step for now, once it is recorded until when its next attempt waits."""
        error = self.choices.verdict()
        if seconds := next_try_seconds(error):
            await self._keep(lambda connection: executions.wait(connection, self.request, seconds))
        return error

    def _follow(self, steering: Control) -> None:
        """Ask as people want it by now."""
        if self.conversation.begun and self.conversation.differs(steering):
            # What it comes to is no answer to the first prompt alone, which is what an equal step would ask.
            self.key = None
        self.read_at = asyncio.get_running_loop().time()
        self.conversation.follow(steering)
        if "max_output_tokens" in steering.changes_of(self.step.agent):
            self.rule.limit = None  # people know better than the router, here too
        agent = self.context.definition.agents[self.step.agent]
        first = model_of(self.request, agent, self.step, steering, self.context.catalogue)
        if first != self.choices.first:
            self.choices = Choices(first, self.conversation.agent.fallback)
        self.worker = replace(self.worker, requested_model=self.choices.model)

    async def _close(self, error: BaseException, code: str, message: str) -> None:
        self.means.tokens.drop(self.begun.execution)
        bill = self.bill
        if bill and isinstance(error, ProviderError):
            await self.purse.ask_after(bill, error)
        paid = bill.paid() if bill else None

        async def fail(connection: AsyncConnection) -> None:
            await executions.fail(connection, self.request, self.begun, code, message, paid)
            if bill:
                await bill.close(connection, error)

        await self._keep(fail)

    async def _keep(self, write: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Write down what was paid for; a worker whose connection went stale does not throw it away."""

        async def once() -> T:
            async with transaction(self.engine) as connection:
                return await write(connection)

        return await persist(once, max(self._seconds_left(), MIN_CALL_SECONDS))

    async def _flush(self) -> None:
        """Wait until everything said is in Postgres; its end is written afterwards."""
        said = self.begun.execution
        await persist(lambda: self.means.tokens.flush(said), max(self._seconds_left(), MIN_CALL_SECONDS))

    # -- what the routing rule asks of an answer -----------------------------------------------------------

    def _is_cut(self, completion: Completion) -> bool:
        """Tell whether the answer broke off at the router's limit, which must not count against it."""
        own = self.conversation.agent.max_output_tokens
        return completion.finish_reason == "length" and self.rule.cuts(own)

    @property
    def _verifies(self) -> bool:
        """Tell whether the next answer is judged: once, and never if people chose the model."""
        plan = self.rule.verification
        return plan is not None and plan.accepted is not False and self.choices.first == plan.cheap

    @property
    def _draft(self) -> Draft | None:
        """The answer of an earlier attempt, which is not asked for twice."""
        return self.rule.verification.draft if self._verifies and self.rule.verification else None

    def _as_draft(self, outcome: Outcome) -> Draft:
        said = (outcome.output, outcome.model, outcome.provider, outcome.simulated)
        return Draft(str(self.begun.execution), *said)

    async def _take_draft(self, draft: Draft) -> StepResult:
        """Finish with an answer that an earlier attempt left, if the verifier takes it."""
        await self._verify(draft, None)

        async def finish(connection: AsyncConnection) -> StepResult | None:
            outcome = draft.outcome()
            done = await executions.complete(connection, self.request, self.worker, self.begun, outcome)
            if self.key:
                await in_flight.release(connection, self.request.tenant, self.key, self.begun.execution)
            return done

        result = await self._keep(finish)
        if result is None:
            raise given_up()
        return result

    async def _verify(self, draft: Draft, bill: Bill | None) -> None:
        """Have an answer judged, in an execution of its own; raises AnswerRejected.

        `bill` is of the answer itself where it is new: it is closed and the answer kept before the verifier
        is asked, so that another worker need not ask for it again.
        """
        plan = self.rule.verification
        assert plan is not None
        if plan.accepted:
            return
        judge = copy.copy(self)
        judge.rule, judge.readers, judge.kept_rounds, judge.bill = RoutingRuleState(), [], [], None
        judge.request = replace(self.request, purpose=verification.PURPOSE)
        judge.worker = plan.verifier
        judge.step = verification.step_of(self.step, judge.worker.agent)
        judge.conversation = self.conversation.judged_by(plan.agent(), judge.step, as_text(draft.answer))
        judge.purse = replace(self.purse, purpose=verification.PURPOSE)
        assert judge.worker.requested_model
        judge.choices = Choices(judge.worker.requested_model, [])

        async def begin(connection: AsyncConnection) -> Claim:
            begun = await executions.claim(connection, judge.request, judge.worker)
            if begun.done:
                raise given_up()
            await executions.set_input(connection, begun.execution, verification.kept(draft))
            if bill and (paid := bill.paid()):
                await decisions.book(connection, self.begun.execution, paid)
                await bill.close(connection)
            return begun

        judge.begun = await self._keep(begin)
        plan.draft = draft
        plan.judge(await judge._score(plan.rule))

    async def _score(self, rule: Verify) -> float | None:
        """As the verifier: what the answer is worth; None where there is no saying, and the run goes on."""
        try:
            bill, completion = await self._ask()
            await self._flush()
            score = agent_judge.verdict(completion.text)
            outcome = _outcome(verification.verdict(score, rule), completion)

            async def finish(connection: AsyncConnection) -> StepResult | None:
                done = await executions.complete(connection, self.request, self.worker, self.begun, outcome)
                await bill.close(connection)
                return done

            done = await self._keep(finish)
        except asyncio.CancelledError as error:
            await self._close(error, "cancelled", "the step was cancelled while it ran")
            raise
        except Exception as error:
            await self._close(error, *describe(error))
            if not isinstance(error, ProviderError):
                raise
            return None
        if done is None:
            raise given_up()
        return score

    # -- what an answer must be ----------------------------------------------------------------------------

    async def _output(self, completion: Completion) -> tuple[Json, bool]:
        """The output that an answer holds, and whether it had to be mended; raises OutputInvalid with
        everything that is wrong with it."""
        try:
            output = storable(answers.read(self.step, completion.text))
            found = await self._faults(output)
        except answers.NotReadable as error:
            if mended := await self._mended(completion):
                return mended[0], True
            found = [str(error)]
        if found:
            if completion.finish_reason == "length":
                tokens = completion.output_tokens
                found.insert(0, f"it broke off at the limit of {tokens:,} tokens; answer more briefly.")
            elif meaning_of(completion.finish_reason) == "refused":
                found.insert(0, f"it was broken off with {completion.finish_reason}.")
            raise OutputInvalid(found, completion.text)
        return checked_output(output), False

    async def _mended(self, completion: Completion) -> tuple[Json] | None:
        """Return the value that a whole answer close to JSON stands for, if the step accepts that."""
        if completion.finish_reason != "stop":
            return None
        try:
            output = await asyncio.to_thread(answers.mended, self.step, completion.text)
            output = checked_output(storable(output))
        except (answers.NotReadable, StepError):
            return None
        return None if await self._faults(output) else (output,)

    async def _faults(self, output: Json) -> list[str]:
        known = (self.step, output, self.context.scope, self.context.catalogue)
        if self.step.emits:
            # Checking a long definition takes a second, and the loop has other steps' tokens to write.
            return await asyncio.to_thread(answers.faults, *known)
        return answers.faults(*known)

    # -- answers of equal steps ----------------------------------------------------------------------------

    async def _take(self) -> StepResult | None:
        """Finish with what an equal execution came to, if there is one and it is still what is expected."""
        kept_for = self.step.cache or self.context.definition.defaults.cache
        if kept_for is None or self.request.purpose:
            return None
        key = self.key = cache.key_of(self._all_that_decides())
        loop = asyncio.get_running_loop()
        kept = await self.means.flights.take(
            self.request.tenant,
            key,
            seconds(kept_for.ttl),
            self.begun.execution,
            # The other half of the time is for a call of one's own.
            until=self.began + self._limit() / 2,
            lead_seconds=max(1.0, self.began + self._limit() - loop.time()),
        )
        if kept is None or await self._faults(kept.output):
            return None
        async with transaction(self.engine) as connection:
            result = await executions.complete(connection, self.request, self.worker, self.begun, kept)
        if result is None:
            raise given_up()
        return result

    async def _land(self, connection: AsyncConnection, bill: Bill, completion: Completion) -> None:
        """Let equal steps take an answer of the model that was asked, unless it is cut, refused or empty."""
        if self.key is None:
            return
        cut = completion.finish_reason == "length" and self.conversation.agent.max_output_tokens is None
        whole = not cut and meaning_of(completion.finish_reason) in ("good", "cut")
        equal = bill.asked.model == self.choices.first and whole
        end = in_flight.land if equal else in_flight.release
        await end(connection, self.request.tenant, self.key, self.begun.execution)

    def _all_that_decides(self) -> dict[str, Json]:
        asked = self._request()
        to = self._destination(asked)
        return {
            "kind": "agent",
            "model": asked.model,
            # An answer that was made up by the simulator is never taken for a provider's, nor the reverse.
            "answers": [to.provider, to.model, to.simulated],
            "messages": [[message.role, message.content] for message in asked.messages],
            "tools": [tool.name for tool in asked.tools],
            "temperature": asked.temperature,
            # No answer counts that the router's own limit cut.
            "max_output_tokens": self.conversation.agent.max_output_tokens,
            "output_schema": self.step.output_schema,
            "emits": self.step.emits,
            "expect": [one.that for one in answers.rules_of(self.step).expect],
            **self._verification(),
        }

    def _verification(self) -> dict[str, Json]:
        if not self._verifies or (plan := self.rule.verification) is None:
            return {}
        return {"verify": [plan.rule.by, plan.rule.accept, plan.strong]}

    # -- the call ------------------------------------------------------------------------------------------

    async def _ask(self) -> tuple[Bill, Completion]:
        """The answer, and the call that it came from."""
        # The other half of the time is for the call itself.
        until = self.began + self._limit() / 2
        asked = await self.purse.open(self.begun.execution, self.request, self.worker, self._request(), until)
        bill = self.bill = Bill(asked)
        to = self._destination(asked)
        if self.choices.more:
            until = min(until, asyncio.get_running_loop().time() + TURN_SECONDS)
        async with self.means.traffic.passage(
            to,
            tokens=self._most_tokens(asked, to),
            until=until,
            tenant=self.request.tenant,
            priority=self.step.priority or self.context.definition.defaults.priority,
        ) as passage:
            try:
                await self._still_holds()
            except BaseException:
                passage.unused()
                raise
            bill.sent = True
            asked = replace(asked, timeouts=replace(asked.timeouts, total=self._call_seconds()))
            bill.completion = await call(
                self.means.gateway,
                to,
                asked,
                self.begun.attempt,
                self._say,
                capture_content=self.means.capture_content,
            )
            passage.used(bill.completion.usage)
        return bill, bill.completion

    def _request(self) -> ModelRequest:
        assert self.worker.requested_model is not None
        request, agent = self.request, self.conversation.agent
        first, stall = agent.first_token_timeout, agent.stall_timeout
        return ModelRequest(
            model=self.worker.requested_model,
            messages=self.conversation.as_sent(),
            response_schema=self.step.output_schema or (planning.ANSWER if self.step.emits else None),
            tools=tool_rounds.specs(self._tools()),
            may_call=len(self.kept_rounds) < agent.max_tool_rounds,
            max_output_tokens=self.rule.most_tokens(agent.max_output_tokens),
            temperature=agent.temperature,
            timeouts=Timeouts(
                total=self._seconds_left(),
                first_token=seconds(first) if first else None,
                stall=seconds(stall) if stall else None,
            ),
            stream=agent.stream,
            call_key=f"{request.collaboration}/{request.path}/{request.iteration}",
            tenant=request.tenant,
            providers=self.context.catalogue.providers,
        )

    def _tools(self) -> tuple[str, ...]:
        return () if self.request.purpose else self.context.catalogue.tools_of(self.conversation.agent)

    async def _answered(self, number: int, kept: dict[str, Any]) -> dict[str, Any]:
        """A round with what its tools came to, kept with it."""
        answered = await tool_rounds.answered(kept, self._tools(), self.means.run_tool)
        if answered != kept:
            request = replace(self.request, purpose=tool_rounds.purpose(number))
            told = tool_rounds.returned(answered, request)
            # The tools have run, and may have been paid for.
            await self._keep(lambda connection: executions.set_results(connection, request, answered, told))
        return answered

    def _destination(self, asked: ModelRequest) -> Destination:
        return self.means.gateway.destination(asked.model, asked.providers, asked.tenant)

    def _most_tokens(self, asked: ModelRequest, to: Destination) -> int:
        """Return the most that the call can take of a token limit, 0 without one."""
        if to.tokens_per_minute is None:
            return 0
        most = asked.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS
        return self.means.gateway.worst_case(replace(asked, max_output_tokens=most)).tokens

    async def _still_holds(self) -> None:
        """Raises Steered where people said something while the call was being prepared for long."""
        if asyncio.get_running_loop().time() - self.read_at < FRESH_SECONDS:
            return
        async with transaction(self.engine) as connection:
            steering = await control.state(connection, self.context.run.id)
        if steering.paused or self.conversation.differs(steering):
            raise SteeringChanged

    async def _say(self, seq: int, text: str) -> None:
        request = self.request
        await self.means.tokens.append(
            request.tenant, request.collaboration, self.begun.execution, seq, text, self.readers
        )

    def _call_seconds(self) -> float:
        left = self._seconds_left()
        # An answer in one piece says nothing before its end: some time must be left for who is asked next.
        return left / 2 if self.choices.more and not self.conversation.agent.stream else left

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
        output=output,
        model=completion.model,
        provider=completion.provider,
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        cost_usd=completion.cost_usd,
        first_token_ms=completion.first_token_ms,
        simulated=completion.simulated,
        finish_reason=completion.finish_reason,
    )


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
