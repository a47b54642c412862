"""Better examples for a prompt: from scored collaborations, measured on others, and then put on trial."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, Final

from temporalio import activity

from activities.agent import prompts
from activities.agent.judge import (
    VERDICT,
    Comparison,
    ScoredAnswer,
    compare,
    question,
    split,
    to_hold_out,
    to_learn_from,
    verdict,
    wanted_quality,
)
from activities.agent.resources import Resources
from activities.heartbeats import heartbeats
from activities.improve.model_calls import Asker
from activities.runs.context import load
from db.definitions import catalogue
from db.engine import transaction
from db.prompts import prompts as stored
from db.prompts import trials, uses
from db.prompts.prompts import StoredPromptVersion
from db.prompts.trials import ChosenPrompt
from db.prompts.uses import PromptUse
from gateway import optimize
from gateway.request import Message
from schema.errors import FacilitairError, ProviderError, Refused
from schema.language.catalogue import Catalogue
from schema.language.prompts import Example
from schema.language.steps import Agent, AgentStep
from schema.language.templates import as_text
from schema.temporal.steps import StepRequest
from schema.temporal.upkeep import OptimizationResult, OptimizePrompt

MAX_ANSWER_TOKENS: Final = 2_048
MAX_VERDICT_TOKENS: Final = 300
MAX_CONCURRENT_CALLS: Final = 4
JUDGE_ROLE: Final = "reviewer"


class OptimizeActivity:
    def __init__(self, means: Resources) -> None:
        self._means = means

    @activity.defn(name="optimize_prompt")
    async def optimize_prompt(self, request: OptimizePrompt) -> OptimizationResult:
        """Store a version with examples and put it on trial. Another attempt begins anew on the same budget,
        unless the one before has stored its version."""
        async with heartbeats():
            engine = self._means.engine
            async with transaction(engine) as connection:
                if done := await uses.optimized(connection, request.tenant, request.name, request.id):
                    return OptimizationResult(**done)
                kind = request.simulated
                uses.require_enough(
                    await uses.count(connection, request.tenant, request.name, simulated=kind), request.name
                )
                await trials.require_none(connection, request.tenant, request.name)
                present = await stored.find(connection, request.tenant, request.name, simulated=kind)
                used = await uses.newest(
                    connection, request.tenant, request.name, request.limit, simulated=kind
                )
                known = await catalogue.of_tenant(connection, request.tenant)
            await asyncio.to_thread(optimize.dspy)
            asker = Asker(
                self._means, request.tenant, known, request.actor, request.id, Decimal(request.budget_usd)
            )
            model = request.model or Counter(one.model for one in used).most_common(1)[0][0]
            judge = request.judge or known.role(JUDGE_ROLE).model
            found = await _collected(self._means, request.tenant, used)
            search = ExampleSearch(asker, present, known, model, judge)
            to = self._means.gateway.destinations
            # A prompt that the simulator answers or judges has simulated examples, too.
            made_up = kind or any(
                to.simulates(one, known.providers, request.tenant) for one in (model, judge)
            )
            request = replace(request, simulated=made_up)
            return await self._try(request, present, search, found)

    async def _try(
        self,
        request: OptimizePrompt,
        present: StoredPromptVersion,
        search: "ExampleSearch",
        found: list[ScoredAnswer],
    ) -> OptimizationResult:
        train, held_out = split(found)
        examples = await search.examples(train)
        comparison = await search.compare(examples, to_hold_out(held_out))
        content = present.content.model_copy(update={"examples": examples})
        note = (
            f"{len(examples)} examples found by DSPy; {comparison.tasks} held-out tasks judged by "
            f"{search.judge}: {comparison.present:.3f} before, {comparison.candidate:.3f} with them"
        )
        async with transaction(self._means.engine) as connection:
            await stored.take_turn(connection, request.tenant, request.name)
            # An attempt whose worker seemed dead may have gone on, and be the first.
            if first := await uses.optimized(connection, request.tenant, request.name, request.id):
                return OptimizationResult(**first)
            version, _ = await stored.save(
                connection,
                request.tenant,
                request.name,
                content,
                request.actor,
                note=note,
                origin="optimizer",
                simulated=request.simulated,
            )
            settings = trials.TrialConfig(version.number)
            trial = await trials.start(
                connection, request.tenant, request.name, settings, request.actor, simulated=request.simulated
            )
            done = OptimizationResult(
                version=version.number,
                trial=str(trial.id),
                examples=len(examples),
                scored=len(found),
                held_out=comparison.tasks,
                present=comparison.present,
                candidate=comparison.candidate,
                model=search.model,
                judge=search.judge,
            )
            await uses.note_optimized(
                connection, request.tenant, request.name, request.id, request.actor, asdict(done)
            )
        return done


class ExampleSearch:
    """One look for examples."""

    def __init__(
        self, asker: Asker, present: StoredPromptVersion, catalogue: Catalogue, model: str, judge: str
    ) -> None:
        self.model, self.judge = model, judge
        self._asker, self._present, self._catalogue = asker, present, catalogue
        self._judge_system = catalogue.role(JUDGE_ROLE).system
        self._places = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._failed: ProviderError | None = None
        self._refused: FacilitairError | None = None
        """Why no further call can be made."""

    async def examples(self, train: Sequence[ScoredAnswer]) -> list[Example]:
        """Raises Refused where no answer is good enough to be shown."""
        wanted = wanted_quality(train)
        known = to_learn_from(train)
        schemas = {one.task: one.schema for one in known}
        loop = asyncio.get_running_loop()

        def ask(messages: Sequence[Message]) -> str:
            schema = schemas.get(messages[-1].content, "")
            return asyncio.run_coroutine_threadsafe(self._asked(messages, schema), loop).result()

        def accept(task: str, answer: str) -> bool:
            quality = asyncio.run_coroutine_threadsafe(self._judged(task, answer), loop).result()
            return quality is not None and quality >= wanted

        pairs = [Example(input=one.task, output=one.answer) for one in known]
        reasons = bool(self._present.content.when_complex)
        try:
            found = await asyncio.to_thread(
                optimize.bootstrap, pairs, self._system, ask, accept, reasons=reasons
            )
        except asyncio.CancelledError:
            # Its thread cannot be ended, but what it asks for can be refused.
            self._refused = Refused("cancelled", "the search was cancelled while it ran.")
            raise
        except Exception:
            # DSPy's own error for too many of ours says nothing that these do not say better.
            if error := self._refused or self._failed:
                raise error from None
            raise
        if self._refused:
            raise self._refused
        if not found or found == self._present.content.examples:
            raise Refused(
                "not_better",
                f"found no answer that {self.judge} scores at least {wanted:.3f}, the average of what "
                "there is; expected some to show. Nothing was stored.",
            )
        return found

    async def compare(self, examples: list[Example], held_out: Sequence[ScoredAnswer]) -> Comparison:
        content = self._present.content
        with_them = content.model_copy(update={"examples": examples})
        pairs = await asyncio.gather(
            *(
                asyncio.gather(self._quality(content.examples, one), self._quality(with_them.examples, one))
                for one in held_out
            )
        )
        if self._refused:
            raise self._refused
        return compare([(one, other) for one, other in pairs])

    async def _quality(self, examples: list[Example], task: ScoredAnswer) -> float | None:
        """None where the model or the judge failed."""
        content = self._present.content.model_copy(update={"examples": examples})
        shown = prompts.examples(ChosenPrompt(content, self._present.ref))
        system = self._system(task.task)
        messages = [*([Message("system", system)] if system else []), *shown, Message("user", task.task)]
        try:
            return await self._judged(task.task, await self._asked(messages, task.schema))
        except (ProviderError, Refused):
            return None

    async def _asked(self, messages: Sequence[Message], schema: str) -> str:
        return await self._ask(
            self.model, messages, json.loads(schema) if schema else None, MAX_ANSWER_TOKENS
        )

    async def _judged(self, task: str, answer: str) -> float | None:
        asked = question(self._judge_system, task, answer)
        return verdict(await self._ask(self.judge, asked, VERDICT, MAX_VERDICT_TOKENS))

    async def _ask(
        self, model: str, messages: Sequence[Message], schema: Mapping[str, Any] | None, most: int
    ) -> str:
        # DSPy and gather go on after an error: what cannot go on must not cost anything any more.
        if self._refused:
            raise self._refused
        async with self._places:
            try:
                return await self._asker.ask(model, messages, schema=schema, max_output_tokens=most)
            except ProviderError as error:
                self._failed = error
                if not error.retryable:
                    self._refused = error
                raise
            except FacilitairError as error:
                self._refused = error
                raise

    def _system(self, task: str) -> str:
        step = AgentStep(kind="agent", agent="a", prompt="")
        chosen = ChosenPrompt(self._present.content, self._present.ref)
        said = prompts.system(step, Agent(model=self.model), [], self._catalogue, chosen, task)
        return said[0].content if said else ""


async def _collected(means: Resources, tenant: str, used: Sequence[PromptUse]) -> list[ScoredAnswer]:
    """Collect tasks and answers of scored steps, rendered again from their stored runs."""
    found: list[ScoredAnswer] = []
    for one in used:
        frame = one.path.removesuffix(one.step).removesuffix(".")
        request = StepRequest(str(one.collaboration), tenant, one.step, "", frame=frame)
        async with transaction(means.engine) as connection:
            context = await load(connection, request)
        step = context.step
        # What listens to others live was asked more than its prompt.
        if not isinstance(step, AgentStep) or step.emits or context.compiled.streams.read_by(one.step):
            continue
        try:
            task = prompts.asked(step, context.scope)
        except FacilitairError:
            continue
        schema = json.dumps(step.output_schema) if step.output_schema else ""
        if task.strip() and (answer := as_text(one.output)):
            found.append(ScoredAnswer(task, answer, one.quality, schema))
    return found
