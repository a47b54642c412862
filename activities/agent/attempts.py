"""One attempt at an agent step after the other: call, check, record. `loop.py` decides what follows each."""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from opentelemetry.trace import Span
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.agent import judge as agent_judge
from activities.agent import readers, tool_rounds, verification
from activities.agent.call import call
from activities.agent.conversation import Conversation
from activities.agent.deadline import Deadline
from activities.agent.live_conversation import ListeningConversation, ListeningPlace
from activities.agent.money import Bill, Purse, outcome_of
from activities.agent.output import AnswerReader, OutputInvalid
from activities.agent.request import RequestBuilder, max_tokens
from activities.agent.resources import Resources
from activities.agent.retries import next_try_seconds
from activities.agent.shared_answer import SharedAnswer
from activities.agent.verification import AnswerCut, Draft, RoutingRuleState, Verification
from activities.guard import describe, given_up
from activities.routing.fallbacks import Choices
from activities.runs.context import StepContext
from activities.runs.feedback import FRESH_SECONDS, POLL_SECONDS, SteeringChanged, model_of
from db.engine import persist, transaction
from db.live import turns
from db.router import rules as decisions
from db.runs import control, executions
from db.runs.control import Control
from db.runs.executions import Assignment, AttemptOutcome, Claim
from gateway.destinations import Destination
from gateway.finish_reasons import meaning_of, refusal
from gateway.request import Completion, Message, ModelRequest
from schema import telemetry
from schema.cel.expressions import Json
from schema.errors import ProviderError
from schema.language.steps import AgentStep, Verify
from schema.language.templates import as_text
from schema.temporal.runs import PAUSED
from schema.temporal.steps import StepRequest, StepResult

T = TypeVar("T")

MIN_CALL_SECONDS: Final = 5.0
"""Shortest time for which a write of a paid result is retried, even at the end of the step's time."""
PERMIT_TIMEOUT_SECONDS: Final = 5.0
"""Longest wait for a permit while a fallback model is available."""


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Attempts:
    """Attempts at one agent step, from its claim to its end.

    Each attempt has a row, a call, a cost and tokens of its own. A turn (a reaction to work in progress) and
    a verdict (a verifier's judgement) are attempts with another purpose, made by `replace`.
    """

    means: Resources
    context: StepContext
    step: AgentStep
    request: StepRequest
    assignment: Assignment
    claim: Claim
    """The present attempt."""
    conversation: Conversation
    choices: Choices
    deadline: Deadline
    purse: Purse
    shared: SharedAnswer
    rule: RoutingRuleState = field(default_factory=RoutingRuleState)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """Rounds of tools in order, made by this activity or by one whose worker died."""
    readers: list[str] = field(default_factory=list)
    """Steps that are sent what the agent says."""
    bill: Bill | None = None
    """The present attempt's call."""
    read_at: float = field(default_factory=_now)
    """Loop time at which people's steering was last read."""

    def follow(self, steering: Control) -> None:
        """Ask as people want it by now."""
        if self.conversation.begun and self.conversation.differs(steering):
            # The answer is no longer one to the first prompt alone, which is what an equal step would ask.
            self.shared.leave()
        self.read_at = _now()
        self.conversation.follow(steering)
        if "max_output_tokens" in steering.changes_of(self.step.agent):
            self.rule.limit = None  # people know better than the router, here too
        agent = self.context.definition.agents[self.step.agent]
        first = model_of(self.request, agent, self.step, steering, self.context.catalogue)
        if first != self.choices.first:
            self.choices = Choices(first, self.conversation.agent.fallback)
        self.assignment = replace(self.assignment, requested_model=self.choices.model)

    async def answer(self, current: Span) -> StepResult | None:
        """Make one attempt and record its end; return the step's result, None after a round of tools."""
        self.bill = None
        try:
            if not self.conversation.begun:
                await self._begin(current)
                if not self._draft and (taken := await self._take_shared()):
                    return taken
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
            output, repaired = await self._reader.read(completion)
            outcome = replace(outcome_of(output, completion), repaired=repaired)
            if plan := self._verification:
                await self._verify(plan, self._as_draft(outcome), bill)

            async def finish(connection: AsyncConnection) -> StepResult | None:
                done = await self._complete(connection, outcome)
                if done:
                    usable = self._is_usable(bill, completion)
                    await self.shared.end(connection, self.claim.execution, usable=usable)
                await bill.close(connection)
                return done

            result = await self._keep(finish)
        except asyncio.CancelledError as error:
            await self._close(error, "cancelled", "the step was cancelled while it ran")
            raise
        except Exception as error:
            await self._close(error, *describe(error))
            raise
        _describe(current, completion, self.claim, outcome)
        return _held(result)

    async def _begin(self, current: Span) -> None:
        """Begin with the prompt; a live reader begins with its conversation with the steps that it reads."""
        means = self.means
        sent = await readers.of_step(
            means.engine, self.context, self.request, simulated=self.assignment.simulated
        )
        self.readers = sent.readers
        if not self.context.compiled.streams.read_by(self.request.step):
            self.conversation.ask(self.context.scope)
        else:

            async def react(
                number: int, dialogue: list[Message], heard: Mapping[str, tuple[str, int]], anew: bool
            ) -> str:
                return await self._turn(current, number, dialogue, heard, anew)

            run, scope = self.context.run.id, self.context.scope
            place = ListeningPlace(means.engine, run, self.request, self.step, sent.heard, scope)
            dialogue = await ListeningConversation(place, react, means.news).dialogue()
            self.deadline.restart()
            async with transaction(means.engine) as connection:
                await self._look_up(connection)
            self.conversation.begin(dialogue)
        for number, made in enumerate(self.rounds, 1):
            self.conversation.hear(await self._answered(number, made))

    async def _turn(
        self,
        current: Span,
        number: int,
        dialogue: list[Message],
        heard: Mapping[str, tuple[str, int]],
        anew: bool,
    ) -> str:
        """Ask the agent for its reaction to work in progress, as an execution of its own."""
        # It is text, whatever the answer in the end must be.
        plain = {"output_schema": None, "emits": None, "reflect": None, "cache": None}
        turn = replace(
            self,
            step=self.step.model_copy(update=plain),
            request=replace(self.request, purpose=f"turn{number}"),
            conversation=copy.copy(self.conversation),
            rule=RoutingRuleState(),
            rounds=[],
        )
        self.deadline.restart()
        async with transaction(self.means.engine) as connection:
            await turn._look_up(connection)
            turn.conversation.begin(dialogue)
            turn.claim = await executions.claim(connection, turn.request, turn.assignment)
            if not turn.claim.done:
                await turns.note(connection, turn.claim.execution, dialogue[-1].content, heard, anew=anew)
        if not turn.claim.done:
            await turn.answer(current)
        async with transaction(self.means.engine) as connection:
            path = turn.request.path
            return (await turns.finished(connection, self.context.run.id, [path]))[path].reaction

    async def _keep_round(self, bill: Bill, completion: Completion) -> None:
        """Record the attempt as a round of tools, paid for once, and tell the model their results."""
        number = len(self.rounds) + 1
        if number > self.conversation.agent.max_tool_rounds:
            raise OutputInvalid(["no more tools may be called; give the answer now."], completion.text)
        request = replace(self.request, purpose=tool_rounds.purpose(number))
        made = tool_rounds.record(completion)

        async def finish(connection: AsyncConnection) -> StepResult | None:
            await executions.move(connection, self.claim, request.path)
            outcome = outcome_of(made, completion)
            event = tool_rounds.called(made, request, str(self.claim.execution), self.assignment.agent)
            done = await executions.complete(connection, request, self.assignment, self.claim, outcome, event)
            await bill.close(connection)
            return done

        _held(await self._keep(finish))
        self.bill = None
        self.rounds.append(made)
        # It counts no longer among the attempts at the step itself.
        self.claim = replace(self.claim, attempt=self.claim.attempt - 1)
        self.conversation.hear(await self._answered(number, made))

    async def _answered(self, number: int, made: dict[str, Any]) -> dict[str, Any]:
        """Return a round with its tools' results, which are recorded with it."""
        answered = await tool_rounds.answered(made, self._builder.tools(), self.means.run_tool)
        if answered != made:
            request = replace(self.request, purpose=tool_rounds.purpose(number))
            event = tool_rounds.returned(answered, request)
            # The tools have run, and may have been paid for.
            await self._keep(lambda connection: executions.set_results(connection, request, answered, event))
        return answered

    async def _look_up(self, connection: AsyncConnection) -> None:
        """Follow people's steering. Raises SteeringChanged while they want nothing to begin."""
        steering = await control.state(connection, self.context.run.id)
        if steering.paused:
            raise SteeringChanged
        self.follow(steering)

    async def claim_next(self) -> StepResult | None:
        """Begin the next attempt; return a result if another activity has finished the step meanwhile.

        Waits while the run is paused; before Temporal's time ends the step returns PAUSED instead.
        """
        while True:
            async with transaction(self.means.engine) as connection:
                steering = await control.state(connection, self.context.run.id)
                if not steering.paused:
                    self.follow(steering)
                    return await self._claim(connection)
            if _now() > self.deadline.half_time:
                return StepResult(execution="", status=PAUSED)
            await asyncio.sleep(POLL_SECONDS)

    async def _claim(self, connection: AsyncConnection) -> StepResult | None:
        claim = await executions.claim(connection, self.request, self.assignment)
        if claim.done:
            return claim.done
        if claim.attempt != self.claim.attempt + 1:
            # Temporal had given this activity up and begun another, whose attempt must go on.
            raise given_up()
        await self.shared.hand_on(connection, self.claim.execution, claim.execution)
        self.claim = claim
        return None

    async def failure(self) -> ProviderError:
        """Return the error of the step for now, once it is recorded until when its next attempt waits."""
        error = self.choices.verdict()
        if pause := next_try_seconds(error):
            await self._keep(lambda connection: executions.wait(connection, self.request, pause))
        return error

    async def _complete(self, connection: AsyncConnection, outcome: AttemptOutcome) -> StepResult | None:
        return await executions.complete(connection, self.request, self.assignment, self.claim, outcome)

    async def _close(self, error: BaseException, code: str, message: str) -> None:
        """Record that the attempt failed, with what its call cost as far as that is known."""
        self.means.tokens.drop(self.claim.execution)
        bill = self.bill
        if bill and isinstance(error, ProviderError):
            await self.purse.ask_after(bill, error)
        paid = bill.paid() if bill else None

        async def fail(connection: AsyncConnection) -> None:
            await executions.fail(connection, self.request, self.claim, code, message, paid)
            if bill:
                await bill.close(connection, error)

        await self._keep(fail)

    async def _keep(self, write: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Write a paid result; a worker whose connection went stale does not throw it away."""

        async def once() -> T:
            async with transaction(self.means.engine) as connection:
                return await write(connection)

        return await persist(once, max(self.deadline.seconds_left(), MIN_CALL_SECONDS))

    async def _flush(self) -> None:
        """Wait until everything said is in Postgres; its end is written afterwards."""
        execution = self.claim.execution
        patience = max(self.deadline.seconds_left(), MIN_CALL_SECONDS)
        await persist(lambda: self.means.tokens.flush(execution), patience)

    def _is_cut(self, completion: Completion) -> bool:
        """Tell whether the answer broke off at the router's limit, which must not count against it."""
        own = self.conversation.agent.max_output_tokens
        return completion.finish_reason == "length" and self.rule.cuts(own)

    @property
    def _verification(self) -> Verification | None:
        """The verification of the next answer: once, and never if people chose the model."""
        plan = self.rule.verification
        judged = plan is not None and plan.accepted is not False and self.choices.first == plan.cheap
        return plan if judged else None

    @property
    def _draft(self) -> Draft | None:
        """The answer of an earlier attempt, which is not asked for twice."""
        plan = self._verification
        return plan.draft if plan else None

    def _as_draft(self, outcome: AttemptOutcome) -> Draft:
        said = (outcome.output, outcome.model, outcome.provider, outcome.simulated)
        return Draft(str(self.claim.execution), *said)

    async def _take_draft(self, draft: Draft) -> StepResult:
        """Finish with an answer that an earlier attempt left, if the verifier takes it."""
        assert self._verification
        await self._verify(self._verification, draft, None)

        async def finish(connection: AsyncConnection) -> StepResult | None:
            done = await self._complete(connection, draft.outcome())
            await self.shared.end(connection, self.claim.execution, usable=False)
            return done

        return _held(await self._keep(finish))

    async def _verify(self, plan: Verification, draft: Draft, bill: Bill | None) -> None:
        """Have an answer judged, in an execution of its own. Raises AnswerRejected.

        `bill` belongs to the answer if it is new: it is closed and the answer kept before the verifier is
        asked, so that another worker need not ask for it again.
        """
        if plan.accepted:
            return
        verifier = plan.verifier
        assert verifier.requested_model
        step = verification.step_of(self.step, verifier.agent)
        verdict = replace(
            self,
            step=step,
            request=replace(self.request, purpose=verification.PURPOSE),
            assignment=verifier,
            conversation=self.conversation.judged_by(plan.agent(), step, as_text(draft.answer)),
            choices=Choices(verifier.requested_model, []),
            purse=replace(self.purse, purpose=verification.PURPOSE),
            rule=RoutingRuleState(),
            rounds=[],
            readers=[],
            bill=None,
        )

        async def begin(connection: AsyncConnection) -> Claim:
            claim = await executions.claim(connection, verdict.request, verdict.assignment)
            if claim.done:
                raise given_up()
            await executions.set_input(connection, claim.execution, verification.kept(draft))
            if bill and (paid := bill.paid()):
                await decisions.book(connection, self.claim.execution, paid)
                await bill.close(connection)
            return claim

        verdict.claim = await self._keep(begin)
        plan.draft = draft
        plan.judge(await verdict._score(plan.rule))

    async def _score(self, rule: Verify) -> float | None:
        """As the verifier, score an answer; None if it gives no score, and the run goes on."""
        try:
            bill, completion = await self._ask()
            await self._flush()
            score = agent_judge.verdict(completion.text)
            outcome = outcome_of(verification.verdict(score, rule), completion)

            async def finish(connection: AsyncConnection) -> StepResult | None:
                done = await self._complete(connection, outcome)
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
        _held(done)
        return score

    async def _take_shared(self) -> StepResult | None:
        """Finish with the outcome of an equal execution, if there is one and it still fits."""
        if self.shared.ttl_seconds is None or self.request.purpose:
            return None
        builder, plan = self._builder, self._verification
        to = self._destination(builder.build(0.0))
        verify: list[Json] | None = [plan.rule.by, plan.rule.accept, plan.strong] if plan else None
        taken = await self.shared.take(builder.decides(to, verify), self.claim.execution, self.deadline)
        if taken is None or await self._reader.faults(taken.output):
            return None
        async with transaction(self.means.engine) as connection:
            result = await self._complete(connection, taken)
        return _held(result)

    def _is_usable(self, bill: Bill, completion: Completion) -> bool:
        """Tell whether equal steps may take the answer: of the first model, and not cut, refused or empty."""
        cut = completion.finish_reason == "length" and self.conversation.agent.max_output_tokens is None
        whole = not cut and meaning_of(completion.finish_reason) in ("good", "cut")
        return bill.asked.model == self.choices.first and whole

    @property
    def _reader(self) -> AnswerReader:
        return AnswerReader(self.step, self.context.scope, self.context.catalogue)

    @property
    def _builder(self) -> RequestBuilder:
        model, catalogue = self.assignment.requested_model, self.context.catalogue
        assert model is not None
        return RequestBuilder(
            self.step, self.request, self.conversation, catalogue, self.rule, model, len(self.rounds)
        )

    async def _ask(self) -> tuple[Bill, Completion]:
        """Make the call; return it with its completion. Raises ProviderError."""
        until = self.deadline.half_time
        asked = self._builder.build(self.deadline.seconds_left())
        asked = await self.purse.open(self.claim.execution, self.request, self.assignment, asked, until)
        bill = self.bill = Bill(asked)
        to = self._destination(asked)
        if self.choices.more:
            until = min(until, _now() + PERMIT_TIMEOUT_SECONDS)
        async with self.means.traffic.passage(
            to,
            tokens=max_tokens(self.means.gateway, asked, to),
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
                self.claim.attempt,
                self._say,
                capture_content=self.means.capture_content,
            )
            passage.used(bill.completion.usage)
        return bill, bill.completion

    def _destination(self, asked: ModelRequest) -> Destination:
        return self.means.gateway.destination(asked.model, asked.providers, asked.tenant)

    async def _still_holds(self) -> None:
        """Raise SteeringChanged if people said something while the call was being prepared for long."""
        if _now() - self.read_at < FRESH_SECONDS:
            return
        async with transaction(self.means.engine) as connection:
            steering = await control.state(connection, self.context.run.id)
        if steering.paused or self.conversation.differs(steering):
            raise SteeringChanged

    async def _say(self, seq: int, text: str) -> None:
        request = self.request
        await self.means.tokens.append(
            request.tenant, request.collaboration, self.claim.execution, seq, text, self.readers
        )

    def _call_seconds(self) -> float:
        left = self.deadline.seconds_left()
        # An answer in one piece says nothing before its end: some time must be left for who is asked next.
        return left / 2 if self.choices.more and not self.conversation.agent.stream else left


def _held(result: T | None) -> T:
    """Return the recorded result. Raises if the attempt had been given up, and another one goes on."""
    if result is None:
        raise given_up()
    return result


def _describe(current: Span, completion: Completion, claim: Claim, outcome: AttemptOutcome) -> None:
    """Set the seed's attributes (S3-31) on the agent's span."""
    current.set_attributes(
        {
            telemetry.SEED_MODEL: completion.model,
            telemetry.SEED_INPUT_TOKENS: completion.input_tokens,
            telemetry.SEED_OUTPUT_TOKENS: completion.output_tokens,
            telemetry.SEED_LATENCY_MS: int((time.time() - claim.started_at.timestamp()) * 1000),
            telemetry.COST_USD: float(completion.cost_usd),
            telemetry.SIMULATED: completion.simulated,
        }
    )
    if isinstance(outcome.output, dict) and isinstance(outcome.output.get("found_issues"), bool):
        current.set_attribute(telemetry.SEED_FOUND_ISSUES, outcome.output["found_issues"])
