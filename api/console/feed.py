"""Feed a run's events to a page that watches it.

A page is sent more only once it has drawn what it got: a slow page gets the same later in larger pieces, and
costs nothing meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, assert_never

from schema.live import (
    PeopleAsked,
    PeopleDecided,
    PlacedEvent,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
    ToolsCalled,
    ToolsReturned,
)

if TYPE_CHECKING:  # with NiceGUI, which its tests do not need
    from api.console.layout import Frame

PACE_SECONDS: Final = 0.1
"""At most ten times a second is a page told anything."""
_MAX_CHARS: Final = 200_000
_DRAW_TIMEOUT_SECONDS: Final = 20.0

FeedEntry = list[Any]


class RunFeed:
    def __init__(self, frame: "Frame") -> None:
        self._frame = frame
        self._seen = asyncio.Event()
        self._number = 0
        frame.on("seen", self._has_seen)

    async def _has_seen(self, facts: dict[str, Any]) -> None:
        if facts["number"] == self._number:
            self._seen.set()

    async def send(self, lives: AsyncIterator[list[PlacedEvent]]) -> None:
        """Tell the page until there is nothing more to tell."""
        async for some in lives:
            for piece in pieces(merged(some)):
                self._seen.clear()
                self._number += 1
                self._frame.call("run.feed", self._number, piece)
                await asyncio.sleep(PACE_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAW_TIMEOUT_SECONDS):
                        await self._seen.wait()


def merged(lives: list[PlacedEvent]) -> list[FeedEntry]:
    """As the page reads it; tokens of one execution that follow each other are one."""
    told: list[FeedEntry] = []
    last: dict[str, FeedEntry] = {}
    for live in lives:
        event = live.event
        if isinstance(event, ToolsCalled | ToolsReturned):
            continue  # the page reads a round with its step
        if isinstance(event, TokensCame):
            if (open := last.get(event.execution)) is not None:
                open[2] += event.text
                open[3] += event.count
            else:
                last[event.execution] = ["t", event.execution, event.text, event.count]
                told.append(last[event.execution])
            continue
        if isinstance(event, StepEnded):
            last.pop(event.execution, None)
        told.append(_told(event, round(live.at.timestamp() * 1000)))
    return told


def _told(
    event: RunBegan | StepBegan | StepEnded | PeopleAsked | PeopleDecided | Steered | RunEnded, at: int
) -> FeedEntry:
    match event:
        case RunBegan():
            return ["run", at, event.name, event.version, event.task, event.kept]
        case StepBegan():
            return [
                "b",
                at,
                event.execution,
                event.path,
                event.step,
                event.kind,
                event.attempt,
                event.agent,
                event.model,
            ]
        case StepEnded():
            return [
                "e",
                at,
                event.execution,
                event.path,
                event.step,
                event.kind,
                event.attempt,
                event.agent,
                event.model,
                event.status,
                event.input_tokens,
                event.output_tokens,
                event.cost_usd,
                event.latency_ms,
                event.error_code,
                event.simulated,
            ]
        case PeopleAsked():
            return ["asked", at, event.task_id, event.path, event.title]
        case PeopleDecided():
            return ["decided", at, event.task_id, event.path, event.actor, event.action, event.closed]
        case Steered():
            return ["steered", at, event.action, event.actor, event.detail]
        case RunEnded():
            return [
                "end",
                at,
                event.status,
                event.sub_state,
                event.error_code,
                event.cost_usd,
                event.tokens,
                event.simulated,
            ]
        case _:
            assert_never(event)


def pieces(told: list[FeedEntry]) -> list[list[FeedEntry]]:
    """Not more at once than a page draws without a pause."""
    found: list[list[FeedEntry]] = [[]]
    chars = 0
    for one in told:
        size = len(one[2]) if one[0] == "t" else 100
        if chars + size > _MAX_CHARS and found[-1]:
            found.append([])
            chars = 0
        found[-1].append(one)
        chars += size
    return [piece for piece in found if piece]
