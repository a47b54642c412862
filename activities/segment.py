"""Steps that share one activity: walked as the workflow would, each recorded before the next starts.

A crashed segment is run again and goes on behind what is recorded. A failed attempt is recorded too, and ends
the segment with an error that Temporal tries again after the step's own pause: retries stay Temporal's.
"""

import asyncio
from collections import ChainMap, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import frames
from activities.context import definition_of, item_fact, run_facts, run_of, scope, worker_of
from activities.guard import describe, translate
from activities.heartbeats import heartbeats
from activities.values import checked_output, output_fault, storable
from db import executions
from db.collaborations import Run
from db.engine import transaction
from db.executions import Known
from db.journal import Entry, Journal
from schema.compile import Compiled, later_expressions, step_expressions
from schema.errors import StepError
from schema.expressions import Json
from schema.messages import (
    Ended,
    ItemEnded,
    Opened,
    PlanStep,
    SegmentRequest,
    SegmentResult,
    StepRequest,
    StepResult,
)
from schema.steps import AgentStep, LoopStep, MapStep, Step, SwitchStep, ToolStep, TransformStep
from schema.templates import render
from workflows.interpreter import Later, Work, inner, one, rescued, walk
from workflows.plan import COMPLETED, OPEN, SKIPPED, Progress

Agent = Callable[[StepRequest], Awaitable[StepResult]]
Tool = Callable[[str, dict[str, Any]], Awaitable[Json]]


class Retry(Later):
    """A step failed and may be tried again."""

    def __init__(self, step: str, code: str, message: str, after_seconds: float) -> None:
        super().__init__(message)
        self.step, self.code, self.message, self.after_seconds = step, code, message, after_seconds


class SegmentActivity:
    def __init__(self, engine: AsyncEngine, journal: Journal, tool: Tool, agent: Agent) -> None:
        self._engine = engine
        self._journal = journal
        self._tool = tool
        self._agent = agent

    @activity.defn(name="segment")
    async def segment(self, request: SegmentRequest) -> SegmentResult:
        """Run quick steps; a local activity."""
        return SegmentResult(await self.run(request))

    @activity.defn(name="chain")
    async def chain(self, request: SegmentRequest) -> SegmentResult:
        """Run steps that may take long; an ordinary activity, told by its heartbeats to stop."""
        async with heartbeats():
            return SegmentResult(await self.run(request))

    async def begin(
        self, request: SegmentRequest, run: Run, found: Compiled
    ) -> tuple[list[Ended], dict[str, Any]]:
        """(how each member and gate ended, what expressions see then) for a run that has done nothing yet."""
        here: dict[str, Any] = {"input": run.input, "steps": {}, "run": run_facts(run)}
        return await self._walk(request, _Chain(self, _base(request), run, found, {}, {}), here), here

    async def run(self, request: SegmentRequest) -> list[Ended]:
        """How each member and gate ended."""
        chain, here = await self._load(request)
        return await self._walk(request, chain, here)

    async def _walk(self, request: SegmentRequest, chain: "_Chain", here: dict[str, Any]) -> list[Ended]:
        chain.gates = frozenset(request.gates)
        chain.scopes[request.frame] = here
        owner = request.frame.rpartition(".")[2].partition("[")[0]
        names = [*request.members, *request.gates]
        progress = Progress(chain.found.plans[owner], request.ended, only=set(names))
        try:
            await walk(chain, progress, request.frame)
        except Retry as error:
            raise ApplicationError(
                error.message, type=error.code, next_retry_delay=timedelta(seconds=error.after_seconds)
            ) from error
        return [progress.ended.get(name) or chain.opened[name] for name in names]

    async def _load(self, request: SegmentRequest) -> tuple["_Chain", dict[str, Any]]:
        async with transaction(self._engine) as connection:
            run = await run_of(connection, request.collaboration)
            found = await definition_of(connection, run)
            names = [*request.members, *request.gates]
            sources = [source for name in names for source in _all_sources(found.steps[name])]
            # What the segment makes itself is known only where an earlier attempt at it made it.
            here = await scope(connection, run, found, sources, request.frame)
            paths = [inner(request.frame, name) for name in names]
            known, attempts = await executions.states(connection, run.id, paths)
        return _Chain(self, _base(request), run, found, known, attempts), here


def _base(request: SegmentRequest) -> StepRequest:
    return StepRequest(request.collaboration, request.tenant, "", request.traceparent)


@dataclass
class _Chain:
    """The port through which a plan is walked inside one activity."""

    activity: SegmentActivity
    base: StepRequest
    run: Run
    found: Compiled
    known: dict[str, Known]
    """path → what an earlier attempt at the segment recorded."""
    attempts: dict[str, int]
    gates: frozenset[str] = frozenset()
    scopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """frame → what its expressions see."""
    opened: dict[str, Ended] = field(default_factory=dict)
    lists: dict[str, list[Json]] = field(default_factory=dict)
    results: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """path of a map or loop → index → what `items[i]` holds."""
    carries: dict[str, Json] = field(default_factory=dict)
    posted: dict[str, deque[asyncio.Future[Any]]] = field(default_factory=dict)
    resumed: set[str] = field(default_factory=set)
    """Maps and loops that an earlier attempt had begun."""
    started: dict[str, datetime] = field(default_factory=dict)

    # -- walking -------------------------------------------------------------------------------------------

    def draining(self) -> bool:
        return False

    def begin(self, progress: Progress, frame: str) -> list[Work]:
        return [self._begin(step, may_run, frame) for step, may_run in progress.take()]

    async def _begin(self, step: PlanStep, may_run: bool, frame: str) -> Sequence[Ended]:
        if done := self.known.get(inner(frame, step.id)):
            self._see(frame, step.id, done.facts())
            return [Ended(step.id, done.status, done.branch or "")]
        if not may_run:
            return [await self._skip(step, frame)]
        ended = await rescued(self, step, frame, self._decide(step, frame))
        if ended.status == OPEN:
            if step.id not in self.gates:
                return await one(self, step, frame)
            self.opened[step.id] = ended
            return []
        return [ended]

    async def _decide(self, step: PlanStep, frame: str) -> Ended:
        """Whether the step's condition holds."""
        when = self.found.steps[step.id].when
        if when is None or frames.holds(when, self.scopes[frame]):
            return Ended(step.id, OPEN)
        return await self._skip(step, frame)

    async def _skip(self, step: PlanStep, frame: str) -> Ended:
        await self._record(step.id, frame, SKIPPED, _now())
        self._see(frame, step.id, {"status": SKIPPED, "model": ""})
        return Ended(step.id, SKIPPED)

    async def do(self, step: PlanStep, frame: str) -> Ended:
        definition = self.found.steps[step.id]
        began = _now()
        match definition:
            case TransformStep():
                return await self._complete(
                    step.id, frame, began, checked_output(render(definition.value, self.scopes[frame]))
                )
            case SwitchStep():
                branch = frames.branch(definition, self.scopes[frame])
                return await self._complete(step.id, frame, began, branch, branch)
            case ToolStep():
                try:
                    output = await self._call(step, definition, frame)
                except Exception as error:
                    raise await self._failed(step, frame, began, error) from error
                return await self._complete(step.id, frame, began, output)
            case AgentStep():
                return await self._ask(step, frame)
        raise AssertionError(f"a step of kind {step.kind} cannot be chained")

    async def _call(self, step: PlanStep, definition: ToolStep, frame: str) -> Json:
        assert definition.tool is not None
        args = render(definition.args, self.scopes[frame])
        async with asyncio.timeout(step.timeout_seconds):
            output = checked_output(storable(await self.activity._tool(definition.tool, args)))
        if fault := output_fault(definition, output):
            raise StepError("output_invalid", fault)
        return output

    async def _ask(self, step: PlanStep, frame: str) -> Ended:
        """An agent's step keeps its own books: tokens, attempts, costs."""
        request = self._request(step.id, frame)
        try:
            async with asyncio.timeout(step.timeout_seconds):
                await self.activity._agent(request)
        except Exception as error:
            self.attempts[request.path] = self.attempts.get(request.path, 0) + 1
            raise self._verdict(step, request.path, error) from error
        async with transaction(self.activity._engine) as connection:
            known = await executions.known(connection, self.run.id, [request.path])
        self._see(frame, step.id, known[request.path].facts())
        return Ended(step.id, COMPLETED)

    async def _failed(self, step: PlanStep, frame: str, began: datetime, error: Exception) -> Exception:
        """Record a failed attempt; comes to what is to be raised for it."""
        if isinstance(error, Later):
            return error
        code, message = _described(error)
        path = inner(frame, step.id)
        self.attempts[path] = self.attempts.get(path, 0) + 1
        await self.activity._journal.record(
            replace(
                self._entry(step.id, frame, "failed", began),
                attempt=self.attempts[path], error_code=code, error_message=storable(message)[:2_000],
            )
        )  # fmt: skip
        return self._verdict(step, path, error)

    def _verdict(self, step: PlanStep, path: str, error: Exception) -> Exception:
        code, message = _described(error)
        rule, attempt = step.retry, self.attempts[path]
        retryable = isinstance(error, TimeoutError) or not getattr(translate(error), "non_retryable", True)
        if not retryable or code in rule.never or attempt >= rule.max_attempts:
            return StepError(code, message)
        pause = rule.initial_seconds * rule.backoff ** (attempt - 1)
        return Retry(step.id, code, message, min(pause, max(rule.max_seconds, rule.initial_seconds)))

    # -- maps and loops ------------------------------------------------------------------------------------

    async def open(self, step: PlanStep, frame: str) -> Opened:
        definition, path = self.found.steps[step.id], inner(frame, step.id)
        self.started[path] = _now()
        self.results[path] = {}
        if path in self.attempts:
            return await self._reopen(definition, path)
        value = frames.opening(definition, self.scopes[frame])
        entry = replace(self._entry(step.id, frame, "running", self.started[path]), input=value)
        self._post(path, entry)
        return self._over(definition, path, value)

    async def _reopen(self, definition: Step, path: str) -> Opened:
        """Go on behind the items that an earlier attempt at the segment recorded."""
        self.resumed.add(path)
        async with transaction(self.activity._engine) as connection:
            value, _ = await executions.input_and_output(connection, self.run.id, path)
            rows = await executions.items(connection, self.run.id, path)
        for row in rows:
            fact = item_fact(row.status, row.output, row.error_code, row.error_message)
            self.results[path][row.index] = fact
        opened = self._over(definition, path, value)
        if rows and isinstance(definition, LoopStep):
            async with transaction(self.activity._engine) as connection:
                last = f"{path}[{rows[-1].index}]"
                self.carries[path], _ = await executions.input_and_output(connection, self.run.id, last)
        return frames.resumed(definition, opened.count, rows)

    def _over(self, definition: Step, path: str, value: Json) -> Opened:
        if isinstance(definition, MapStep):
            self.lists[path] = value
            return Opened(count=len(value))
        self.carries[path] = value
        return Opened()

    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        """Make the scope of a repetition: what is around it, and what repeats."""
        path = inner(frame, step.id)
        if path in self.resumed:
            names = [f"{path}[{index}].{name}" for name in self.found.plan_names(step.id)]
            async with transaction(self.activity._engine) as connection:
                known, attempts = await executions.states(connection, self.run.id, names)
            self.known |= known
            self.attempts |= attempts
        outer = self.scopes[frame]
        here: dict[str, Any] = {**outer, "steps": ChainMap({}, outer["steps"])}
        if step.kind == "map":
            here |= {"item": self.lists[path][index], "index": index}
        else:
            before = self.results[path].get(index - 1)
            here["iter"] = {
                "index": index, "carry": self.carries[path],
                "previous": before.get("output") if before else None,
            }  # fmt: skip
        self.scopes[f"{path}[{index}]"] = here

    async def end_item(self, step: PlanStep, frame: str, index: int, error: StepError | None) -> ItemEnded:
        definition, path = self.found.steps[step.id], inner(frame, step.id)
        here = self.scopes.pop(f"{path}[{index}]")
        entry = replace(
            self._entry(step.id, frame, COMPLETED, _now()), path=f"{path}[{index}]", kind="item",
            agent="item", iteration=index,
        )  # fmt: skip
        if error:
            message = storable(error.message)[:2_000]
            failed = replace(entry, status="failed", error_code=error.code, error_message=message)
            self._post(path, failed)
            self.results[path][index] = item_fact("failed", None, error.code, error.message)
            return ItemEnded()
        turn = frames.turn(definition, here, index)
        await self.activity._journal.record(
            replace(entry, output=turn.output, input=turn.carry, branch=turn.mark)
        )
        if isinstance(definition, LoopStep):
            self.carries[path] = turn.carry
            self.results[path].pop(index - 1, None)
        self.results[path][index] = item_fact(COMPLETED, turn.output, None, None)
        if turn.error:
            raise turn.error
        return ItemEnded(turn.last)

    async def close(self, step: PlanStep, frame: str) -> Ended:
        path = inner(frame, step.id)
        await asyncio.gather(*self.posted.pop(path, ()))
        results, began = self.results.pop(path), self.started.pop(path)
        items = [results[index] for index in sorted(results)]
        output: Json = [item.get("output") for item in items]
        if step.kind == "loop":
            output = items[-1].get("output") if items else None
        self.lists.pop(path, None)
        self.carries.pop(path, None)
        ended = await self._complete(step.id, frame, began, checked_output(output), begun=True)
        extra = {"items": items} if step.kind == "map" else {"iterations": max(results, default=-1) + 1}
        self.scopes[frame]["steps"][step.id] |= extra
        return ended

    async def caught(self, step: PlanStep, frame: str, rule: int, error: StepError) -> Ended:
        definition = self.found.steps[step.id]
        then = definition.catch[rule].then or ""
        value = None if then else checked_output(render(definition.catch[rule].value, self.scopes[frame]))
        request = self._request(step.id, frame)
        async with transaction(self.activity._engine) as connection:
            await executions.catch(
                connection, request, worker_of(self.found.definition, definition), then=then, output=value,
                code=error.code, message=storable(error.message),
            )  # fmt: skip
        ended = Ended(step.id, "caught", f"!{then}") if then else Ended(step.id, COMPLETED)
        known = Known(ended.status, value, "", ended.branch or None, error.code, error.message)
        self._see(frame, step.id, known.facts())
        return ended

    def _post(self, path: str, entry: Entry) -> None:
        """Record an item or iteration without waiting: were it lost, a worker that takes over would find its
        steps and make it again. A map or loop does not end before all of them are durable."""
        kept = self.posted.setdefault(path, deque())
        while kept and kept[0].done() and kept[0].exception() is None:
            kept.popleft()
        kept.append(self.activity._journal.post(entry))

    # -- recording -----------------------------------------------------------------------------------------

    async def _complete(
        self, name: str, frame: str, began: datetime, output: Json, branch: str = "", *, begun: bool = False
    ) -> Ended:
        entry = replace(
            self._entry(name, frame, COMPLETED, began), output=output, branch=branch or None, begun=begun
        )
        await self.activity._journal.record(entry)
        self._see(frame, name, Known(COMPLETED, output, "", branch or None, None, None).facts())
        return Ended(name, COMPLETED, branch)

    async def _record(self, name: str, frame: str, status: str, began: datetime) -> None:
        await self.activity._journal.record(self._entry(name, frame, status, began))

    def _entry(self, name: str, frame: str, status: str, began: datetime) -> Entry:
        path = inner(frame, name)
        worker = worker_of(self.found.definition, self.found.steps[name])
        return Entry(
            self.base.collaboration, self.base.tenant, self.base.traceparent, path, name, worker.kind,
            _index(frame), self.attempts.get(path, 0) + 1, worker.agent, status, began, _now(),
        )  # fmt: skip

    def _request(self, name: str, frame: str) -> StepRequest:
        return replace(self.base, step=name, frame=frame, iteration=_index(frame))

    def _see(self, frame: str, name: str, facts: dict[str, Any]) -> None:
        self.scopes[frame]["steps"][name] = facts


def _index(frame: str) -> int:
    return int(frame.rpartition("[")[2].rstrip("]")) if frame else 0


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
