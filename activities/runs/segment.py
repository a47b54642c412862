"""Steps that share one activity: walked as the workflow would, each recorded before the next starts.

A crashed segment is run again and goes on behind what is recorded. A failed attempt is recorded too, and ends
the segment with an error that Temporal tries again after the step's own pause: retries stay Temporal's.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.guard import describe, translate
from activities.heartbeats import heartbeats
from activities.runs import frames
from activities.runs.context import facts_of, item_fact, known_facts, run_facts, scope, worker_of
from activities.runs.feedback import until_resumed
from activities.runs.frames import IterationResult
from activities.runs.in_process import InProcess
from activities.values import as_promised, checked_output, output_fault, storable
from db.engine import transaction
from db.runs import executions
from db.runs.collaborations import Run
from db.runs.executions import FinishedExecution
from db.runs.journal import Journal, JournalEntry
from plan.compile import CompiledDefinition
from plan.progress import COMPLETED, SKIPPED, FrameProgress
from plan.walk import WalkSuspended, inner, repeated, walk
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language.dependencies import later_expressions, step_expressions, steps_read
from schema.language.steps import AgentStep, LoopStep, MapStep, Step, SwitchStep, ToolStep, TransformStep
from schema.language.templates import render
from schema.language.tools import TOOLS
from schema.temporal.plan import PlanStep
from schema.temporal.runs import PAUSED
from schema.temporal.steps import (
    RepetitionState,
    SegmentRequest,
    SegmentResult,
    StepEnd,
    StepRequest,
    StepResult,
)

AgentRunner = Callable[[StepRequest], Awaitable[StepResult]]
Tool = Callable[[str, dict[str, Any]], Awaitable[Json]]


class Tools(Protocol):
    """The built-in tools, `activities.tools.activity`."""

    async def run(self, name: str, args: dict[str, Any]) -> Json: ...
    async def tool(self, request: StepRequest) -> StepResult: ...


class RetryLater(WalkSuspended):
    """A step failed and may be tried again."""

    def __init__(self, code: str, message: str, after_seconds: float) -> None:
        super().__init__(message)
        self.code, self.message, self.after_seconds = code, message, after_seconds


class SegmentActivity:
    def __init__(self, engine: AsyncEngine, journal: Journal, tools: Tools, agent: AgentRunner) -> None:
        self._engine = engine
        self._journal = journal
        self._tools = tools
        self._agent = agent

    @activity.defn(name="segment")
    async def segment(self, request: SegmentRequest) -> SegmentResult:
        """Run quick steps; a local activity."""
        return SegmentResult(await self.run(request))

    @activity.defn(name="tool")
    async def tool(self, request: StepRequest) -> StepResult:
        """Do one tool step, or find the result of an earlier attempt. One that is quick needs no row while it
        runs, and is recorded together with those of other runs."""
        _, found = await self._facts(request.collaboration)
        step = found.steps[request.step]
        assert isinstance(step, ToolStep) and step.tool is not None
        if step.cache or not TOOLS[step.tool].quick:
            return await self._tools.tool(request)
        chain, here = await self._load(request, request.frame, [request.step])
        chain.scopes[request.frame] = here
        known = chain.known.get(request.path)
        if known is None:
            with _retried_by_temporal():
                await chain.do(found.plan_steps[request.step], request.frame)
        return StepResult(execution=request.path, status=known.status if known else COMPLETED)

    @activity.defn(name="chain")
    async def chain(self, request: SegmentRequest) -> SegmentResult:
        """Run steps that may take long; an ordinary activity, told by its heartbeats to stop."""
        async with heartbeats():
            return SegmentResult(await self.run(request))

    async def begin(
        self, request: SegmentRequest, run: Run, found: CompiledDefinition
    ) -> tuple[list[StepEnd], dict[str, Any]]:
        """(how each member and gate ended, what expressions see then) for a run that has done nothing yet."""
        here: dict[str, Any] = {"input": run.input, "steps": {}, "run": run_facts(run)}
        base = StepRequest(request.collaboration, request.tenant, "", request.traceparent)
        return await self._walk(request, _Chain(self, base, run, found, {}, {}), here), here

    async def run(self, request: SegmentRequest) -> list[StepEnd]:
        """Run the segment's steps; return the end of each member and gate."""
        base = StepRequest(request.collaboration, request.tenant, "", request.traceparent)
        chain, here = await self._load(base, request.frame, [*request.members, *request.gates])
        return await self._walk(request, chain, here)

    async def _walk(self, request: SegmentRequest, chain: "_Chain", here: dict[str, Any]) -> list[StepEnd]:
        chain.gates = frozenset(request.gates)
        chain.scopes[request.frame] = here
        owner, _ = repeated(request.frame)
        names = [*request.members, *request.gates]
        progress = FrameProgress(chain.found.plans[owner], request.ended, only=set(names))
        with _retried_by_temporal(), self._journal.crowd.joined():
            await walk(chain, progress, request.frame)
        return [progress.ended.get(name) or chain.opened[name] for name in names]

    async def _facts(self, collaboration: str) -> tuple[Run, CompiledDefinition]:
        if facts := known_facts(collaboration):
            return facts
        async with transaction(self._engine) as connection:
            return await facts_of(connection, collaboration)

    async def _load(
        self, base: StepRequest, frame: str, names: Sequence[str]
    ) -> tuple["_Chain", dict[str, Any]]:
        """The port for some steps of a frame, and what their expressions see.

        The steps' own outputs are known only as far as an earlier attempt had got.
        """
        run, found = await self._facts(base.collaboration)
        sources = [source for name in names for source in _all_sources(found.steps[name])]
        paths = [inner(frame, name) for name in names]
        read = list(steps_read(sources))
        # A body reads what is around it, and of a map or loop there is more to know than its own row.
        if frame or any(name in found.plans for name in read):
            async with transaction(self._engine) as connection:
                here = await scope(connection, run, found, sources, frame)
                known, attempts = await executions.states(connection, run.id, paths)
        else:
            known, attempts = await self._journal.states(run.id, {*paths, *read})
            steps = {name: known[name].facts() for name in read if name in known}
            here = {"input": run.input, "steps": steps, "run": run_facts(run)}
        return _Chain(self, base, run, found, known, attempts), here


@contextlib.contextmanager
def _retried_by_temporal() -> Iterator[None]:
    try:
        yield
    except RetryLater as error:
        raise ApplicationError(
            error.message, type=error.code, next_retry_delay=timedelta(seconds=error.after_seconds)
        ) from error


class _Chain(InProcess):
    """The port through which a plan is walked inside one activity."""

    def __init__(
        self,
        activity: SegmentActivity,
        base: StepRequest,
        run: Run,
        found: CompiledDefinition,
        known: dict[str, FinishedExecution],
        attempts: dict[str, int],
    ) -> None:
        super().__init__(found)
        self.activity, self.base, self.run = activity, base, run
        self.known = known
        """path → what an earlier attempt at the segment recorded."""
        self.attempts = attempts
        self.gates: frozenset[str] = frozenset()
        self.opened: dict[str, StepEnd] = {}
        self.posted: dict[str, deque[asyncio.Future[Any]]] = {}
        self.resumed: set[str] = set()
        """Maps and loops that an earlier attempt had begun."""
        self.started: dict[str, datetime] = {}

    async def _begin(self, step: PlanStep, may_run: bool, frame: str) -> Sequence[StepEnd]:
        if done := self.known.get(inner(frame, step.id)):
            self.scopes[frame]["steps"][step.id] = done.facts()
            return [StepEnd(step.id, done.status, done.branch or "")]
        return await super()._begin(step, may_run, frame)

    async def _go_on(self, step: PlanStep, frame: str, opened: StepEnd) -> Sequence[StepEnd]:
        if step.id not in self.gates:
            return await super()._go_on(step, frame, opened)
        self.opened[step.id] = opened
        return []

    async def note_skipped(self, step: PlanStep, frame: str) -> None:
        await self.activity._journal.record(self._entry(step.id, frame, SKIPPED, _now()))

    async def do(self, step: PlanStep, frame: str) -> StepEnd:
        definition, began = self.found.steps[step.id], _now()
        if isinstance(definition, AgentStep):
            return await self._ask(step, frame)
        try:
            output = await self._result(step, definition, frame)
        except Exception as error:
            raise await self._failed(step, frame, began, error) from error
        branch = str(output) if isinstance(definition, SwitchStep) else ""
        return await self._complete(step.id, frame, began, output, branch)

    async def _result(self, step: PlanStep, definition: Step, frame: str) -> Json:
        match definition:
            case TransformStep():
                return checked_output(render(definition.value, self.scopes[frame]))
            case SwitchStep():
                return frames.branch(definition, self.scopes[frame])
            case ToolStep():
                return await self._call(step, definition, frame)
        raise AssertionError(f"a step of kind {step.kind} cannot be chained")

    async def _decide(self, step: PlanStep, frame: str) -> StepEnd:
        began = _now()
        try:
            return await super()._decide(step, frame)
        except StepError as error:
            raise await self._failed(step, frame, began, error) from error

    async def _call(self, step: PlanStep, definition: ToolStep, frame: str) -> Json:
        assert definition.tool is not None
        args = render(definition.args, self.scopes[frame])
        async with asyncio.timeout(step.timeout_seconds):
            made = await self.activity._tools.run(definition.tool, args)
        output = as_promised(definition, storable(checked_output(made)))
        if fault := output_fault(definition, output):
            raise StepError("output_invalid", fault)
        return output

    async def _ask(self, step: PlanStep, frame: str) -> StepEnd:
        """An agent's step keeps its own books: tokens, attempts, costs."""
        request = self._request(step.id, frame)
        try:
            while await self._is_paused(step, request):
                await until_resumed(self.activity._engine, self.run.id)
        except Exception as error:
            async with transaction(self.activity._engine) as connection:
                _, attempts = await executions.states(connection, self.run.id, [request.path])
            self.attempts[request.path] = attempts.get(request.path, 1)
            verdict = self._verdict(step, request.path, error, *_described(error))
            if isinstance(verdict, RetryLater):
                async with transaction(self.activity._engine) as connection:
                    await executions.wait(connection, request, verdict.after_seconds)
            raise verdict from error
        async with transaction(self.activity._engine) as connection:
            known = await executions.known(connection, self.run.id, [request.path])
        self.scopes[frame]["steps"][step.id] = known[request.path].facts()
        return StepEnd(step.id, COMPLETED)

    async def _is_paused(self, step: PlanStep, request: StepRequest) -> bool:
        """Do an agent's step; whether it was not begun, since the run is paused."""
        async with asyncio.timeout(step.timeout_seconds):
            return (await self.activity._agent(request)).status == PAUSED

    async def _failed(self, step: PlanStep, frame: str, began: datetime, error: Exception) -> Exception:
        """Record a failed attempt; return the error to raise for it."""
        if isinstance(error, WalkSuspended):
            return error
        code, message = _described(error)
        path = inner(frame, step.id)
        # What is computed fails the same way when a segment is done again, and was recorded then.
        if path not in self.attempts or step.kind == "tool":
            self.attempts[path] = self.attempts.get(path, 0) + 1
            entry = replace(
                self._entry(step.id, frame, "failed", began),
                attempt=self.attempts[path],
                error_code=code,
                error_message=storable(message)[:2_000],
            )
            await self.activity._journal.record(entry)
        return self._verdict(step, path, error, code, message)

    def _verdict(self, step: PlanStep, path: str, error: Exception, code: str, message: str) -> Exception:
        rule, attempt = step.retry, self.attempts[path]
        retryable = isinstance(error, TimeoutError) or not getattr(translate(error), "non_retryable", True)
        if not retryable or code in rule.never or attempt >= rule.max_attempts:
            return StepError(code, message)
        pause = rule.initial_seconds * rule.backoff ** (attempt - 1)
        return RetryLater(code, message, min(pause, max(rule.max_seconds, rule.initial_seconds)))

    async def open(self, step: PlanStep, frame: str) -> RepetitionState:
        path = inner(frame, step.id)
        began = self.started[path] = _now()
        if path in self.attempts and await self._is_running(path):
            return await self._reopen(step, frame)
        try:
            return await super().open(step, frame)
        except StepError as error:
            raise await self._failed(step, frame, began, error) from error

    async def note_opened(self, step: PlanStep, frame: str, value: Json) -> None:
        path = inner(frame, step.id)
        self._post(path, replace(self._entry(step.id, frame, "running", self.started[path]), input=value))

    async def _is_running(self, path: str) -> bool:
        """Tell whether an earlier attempt at the segment has begun the map or loop."""
        async with transaction(self.activity._engine) as connection:
            return await executions.is_running(connection, self.run.id, path)

    async def _reopen(self, step: PlanStep, frame: str) -> RepetitionState:
        """Go on behind the items that an earlier attempt at the segment recorded."""
        definition, path = self.found.steps[step.id], inner(frame, step.id)
        self.resumed.add(path)
        async with transaction(self.activity._engine) as connection:
            value, _ = await executions.input_and_output(connection, self.run.id, path)
            rows = await executions.items(connection, self.run.id, path)
        opened = self.over(step, frame, value)
        for row in rows:
            fact = item_fact(row.status, row.output, row.error_code, row.error_message)
            self.results[path][row.index] = fact
        if rows and isinstance(definition, LoopStep):
            async with transaction(self.activity._engine) as connection:
                last = f"{path}[{rows[-1].index}]"
                self.carries[path], _ = await executions.input_and_output(connection, self.run.id, last)
        return frames.resumed(definition, opened.count, rows)

    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        path = inner(frame, step.id)
        if path in self.resumed:
            names = [f"{path}[{index}].{name}" for name in self.found.plan_names(step.id)]
            async with transaction(self.activity._engine) as connection:
                known, attempts = await executions.states(connection, self.run.id, names)
            self.known |= known
            self.attempts |= attempts
        await super().enter(step, frame, index)

    async def note_item(
        self, step: PlanStep, frame: str, index: int, turn: IterationResult | None, error: StepError | None
    ) -> None:
        path = inner(frame, step.id)
        entry = replace(
            self._entry(step.id, frame, COMPLETED, _now()),
            path=f"{path}[{index}]",
            kind="item",
            agent="item",
            iteration=index,
        )
        if error:
            message = storable(error.message)[:2_000]
            self._post(path, replace(entry, status="failed", error_code=error.code, error_message=message))
            if self._left_within(at := f"{path}[{index}]"):
                await self._close_running(at, error)
        elif turn:
            self._post(path, replace(entry, output=turn.output, input=turn.carry, branch=turn.mark))

    async def note_closed(self, step: PlanStep, frame: str, output: Json) -> None:
        path = inner(frame, step.id)
        await asyncio.gather(*self.posted.pop(path, ()))
        entry = self._entry(step.id, frame, COMPLETED, self.started.pop(path))
        await self.activity._journal.record(replace(entry, output=output, begun=True))

    async def note_caught(self, step: PlanStep, frame: str, then: str, value: Json, error: StepError) -> None:
        worker = worker_of(self.found.definition, self.found.steps[step.id])
        # Its beginning may still be on its way, and is what is to be marked.
        await asyncio.gather(*self.posted.pop(inner(frame, step.id), ()))
        async with transaction(self.activity._engine) as connection:
            await executions.catch(
                connection,
                self._request(step.id, frame),
                worker,
                then=then,
                output=value,
                code=error.code,
                message=storable(error.message),
                step=error.step,
            )

    async def fail(self, step: PlanStep, frame: str, error: StepError) -> None:
        await super().fail(step, frame, error)
        await self._close_running(inner(frame, step.id), error)

    async def _close_running(self, at: str, error: StepError) -> None:
        """Close what an error leaves behind at a path and within it, once its beginning has been recorded."""
        for path in self._left_within(at):
            await asyncio.gather(*self.posted.pop(path))
        async with transaction(self.activity._engine) as connection:
            await executions.close_running(
                connection, self.base, at, code=error.code, message=storable(error.message), step=error.step
            )

    def _left_within(self, at: str) -> list[str]:
        """The paths of maps and loops that have begun at a path or within it and not ended."""
        return [path for path in self.posted if path == at or path.startswith((f"{at}.", f"{at}["))]

    def _post(self, path: str, entry: JournalEntry) -> None:
        """Record an item or iteration without waiting: were it lost, a worker that takes over would find its
        steps and make it again. A map or loop does not end before all of them are durable."""
        kept = self.posted.setdefault(path, deque())
        while kept and kept[0].done() and kept[0].exception() is None:
            kept.popleft()
        kept.append(self.activity._journal.post(entry))

    async def _complete(
        self, name: str, frame: str, began: datetime, output: Json, branch: str = ""
    ) -> StepEnd:
        entry = replace(self._entry(name, frame, COMPLETED, began), output=output, branch=branch or None)
        await self.activity._journal.record(entry)
        self.see(frame, name, COMPLETED, output=output, **({"branch": branch} if branch else {}))
        return StepEnd(name, COMPLETED, branch)

    def _entry(self, name: str, frame: str, status: str, began: datetime) -> JournalEntry:
        path = inner(frame, name)
        worker = worker_of(self.found.definition, self.found.steps[name])
        return JournalEntry(
            self.base.collaboration,
            self.base.tenant,
            self.base.traceparent,
            path,
            name,
            worker.kind,
            repeated(frame)[1],
            self.attempts.get(path, 0) + 1,
            worker.agent,
            status,
            began,
            _now(),
        )

    def _request(self, name: str, frame: str) -> StepRequest:
        return replace(self.base, step=name, frame=frame, iteration=repeated(frame)[1])


def _now() -> datetime:
    return datetime.now(UTC)


def _described(error: Exception) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return "timeout", "found no end in time; give the step more time or less to do."
    return describe(error)


def _all_sources(step: Step) -> list[str]:
    """Every expression that running the step may evaluate, bodies included."""
    found = [source for _, source in (*step_expressions(step), *later_expressions(step))]
    if isinstance(step, (MapStep, LoopStep)):
        for inside in step.body.steps.values():
            found += _all_sources(inside)
    return found
