"""Walk a plan: frames, maps, loops and caught errors.

Shared by the workflow and, for steps in one activity, by that activity; a port does the work of a step. Uses
asyncio only in ways that Temporal replays deterministically: no clock, no `asyncio.wait`.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Protocol

from plan.progress import FrameProgress
from schema.errors import StepError
from schema.temporal.plan import PlanStep
from schema.temporal.steps import ItemResult, RepetitionState, StepEnd

Work = Coroutine[Any, Any, Sequence[StepEnd]]


class WalkSuspended(Exception):
    """Raised to suspend a walk: running work ends, nothing new begins, and the rest is done later."""


class Port(Protocol):
    """The port through which walking a plan reaches its surroundings."""

    def draining(self) -> bool:
        """Tell whether nothing new should begin."""

    def begin(self, progress: FrameProgress, frame: str) -> list[Work]:
        """Return work for everything that can go on now; each returns the ends of its steps."""

    async def do(self, step: PlanStep, frame: str) -> StepEnd:
        """Do one step that has no body; raises StepError when it failed for good."""

    async def open(self, step: PlanStep, frame: str) -> RepetitionState: ...
    async def enter(self, step: PlanStep, frame: str, index: int) -> None:
        """Prepare for one repetition of a body."""

    async def end_item(
        self, step: PlanStep, frame: str, index: int, error: StepError | None
    ) -> ItemResult: ...
    async def close(self, step: PlanStep, frame: str) -> StepEnd: ...
    async def fail(self, step: PlanStep, frame: str, error: StepError) -> None:
        """Note that a map or loop that had begun failed for good."""

    async def caught(self, step: PlanStep, frame: str, rule: int, error: StepError) -> StepEnd: ...


async def walk(port: Port, progress: FrameProgress, frame: str) -> None:
    """Run a frame to its end. Raises the first StepError that nobody caught, with all else cancelled; raises
    Later when something asked for that."""
    running: dict[asyncio.Task[Sequence[StepEnd]], None] = {}
    finished: deque[asyncio.Task[Sequence[StepEnd]]] = deque()
    awake = asyncio.Event()
    later: WalkSuspended | None = None

    def note(task: asyncio.Task[Sequence[StepEnd]]) -> None:
        finished.append(task)
        awake.set()

    try:
        while True:
            if later is None and not port.draining():
                for work in port.begin(progress, frame):
                    task = asyncio.create_task(work)
                    task.add_done_callback(note)
                    running[task] = None
            if not running:
                break
            await awake.wait()
            awake.clear()
            while finished:
                task = finished.popleft()
                del running[task]
                try:
                    for ended in task.result():
                        progress.end(ended)
                except WalkSuspended as error:
                    later = error
    except (Exception, asyncio.CancelledError):
        await stop(list(running))
        raise
    if later is not None:
        raise later
    if not progress.done and port.draining():
        raise WalkSuspended


async def stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have let go."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def one(port: Port, step: PlanStep, frame: str) -> Sequence[StepEnd]:
    """Run one step to its end, whatever its kind; an error that the step catches is one way to end."""
    work = port.do(step, frame) if step.body is None else _repeat(port, step, frame)
    return [await rescued(port, step, frame, work)]


async def rescued(port: Port, step: PlanStep, frame: str, work: Coroutine[Any, Any, StepEnd]) -> StepEnd:
    """Do the work for a step and return its end, with the step's own `catch` applied."""
    try:
        return await work
    except StepError as error:
        error.at(inner(frame, step.id))
        for at, rule in enumerate(step.catches):
            if error.code in rule.errors or "*" in rule.errors:
                return await port.caught(step, frame, at, error)
        raise


async def _repeat(port: Port, step: PlanStep, frame: str) -> StepEnd:
    opened = await port.open(step, frame)
    if opened.ended:
        return opened.ended
    try:
        await (_map if step.kind == "map" else _loop)(port, step, frame, opened)
        return await port.close(step, frame)
    except StepError as error:
        await port.fail(step, frame, error.at(inner(frame, step.id)))
        raise


async def _map(port: Port, step: PlanStep, frame: str, opened: RepetitionState) -> None:
    """A window over the items: as many workers as may run at a time, each taking the next item."""
    left = _left(opened)
    failed = opened.failed
    allowed = step.max_failed * (opened.count if step.failed_share else 1)
    later: list[WalkSuspended] = []

    async def work() -> None:
        nonlocal failed
        for index in left:
            if later or port.draining():
                later.append(WalkSuspended())
                return
            fault: StepError | None = None
            try:
                await item(port, step, frame, index)
            except StepError as error:
                fault = error
                failed += 1
                if failed > allowed:
                    raise StepError(error.code, f"item {index}: {error.message}", step=error.step) from error
            except WalkSuspended as error:
                later.append(error)
                return
            await port.end_item(step, frame, index, fault)

    width = min(step.concurrency, opened.count)
    await together([work() for _ in range(width)])
    if later:
        raise later[0]


async def _loop(port: Port, step: PlanStep, frame: str, opened: RepetitionState) -> None:
    for index in range(opened.next, step.max_iterations):
        if port.draining():
            raise WalkSuspended
        await item(port, step, frame, index)
        if (await port.end_item(step, frame, index, None)).last:
            return


async def item(port: Port, step: PlanStep, frame: str, index: int) -> None:
    """One repetition of a body."""
    assert step.body is not None
    await port.enter(step, frame, index)
    await walk(port, FrameProgress(step.body), f"{inner(frame, step.id)}[{index}]")


def inner(frame: str, step: str) -> str:
    """The path of a step of a frame."""
    return f"{frame}.{step}" if frame else step


def repeated(frame: str) -> tuple[str, int]:
    """(the map or loop whose body a frame runs, which repetition it is); of the whole run ("", 0)."""
    owner, _, index = frame.rpartition(".")[2].partition("[")
    return owner, int(index.rstrip("]") or 0)


def _left(opened: RepetitionState) -> Iterator[int]:
    """The items that have not ended."""
    at = 0
    for first, end in zip(opened.done[::2], opened.done[1::2], strict=True):
        yield from range(at, first)
        at = end
    yield from range(at, opened.count)


async def together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; when one fails, the others are cancelled and its error raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except (Exception, asyncio.CancelledError):
        await stop(tasks)
        raise
