"""An agent who reads others while they speak: it reacts to what is there, is told what comes, and answers in
the end. Every reaction before the answer is a turn, an execution of its own.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.live_source import Voice
from activities.agent.notifications import News, wait
from db.engine import transaction
from db.live import turns
from gateway.request import Message
from schema.language.dependencies import steps_read
from schema.language.steps import AgentStep
from schema.language.streams import Streams, most_turns
from schema.language.templates import as_text, expressions, render
from schema.temporal.steps import StepRequest

SILENCE_SECONDS: Final = 30.0
"""Longest wait for a peer's next words; then the agent answers without them."""
AGREED: Final = "agreed"

_READING: Final = (
    "You are reading work in progress: {names} is not finished. React to what is there, briefly, and do not "
    "guess at what is missing. You are shown more as it comes, and asked for your answer when it is complete."
)
_DEBATE: Final = (
    "{names} answer the same question at this moment, and read you as you read them. Say what you think, "
    "briefly; you are shown what they say and can react. When nothing is left to add, say exactly AGREED. "
    "You are asked for your answer in the end."
)
_MORE: Final = "This has come since."
_COMPLETE: Final = "It is complete now. Give your answer to the whole, as you were asked at the beginning."
_DECIDE: Final = "The exchange is over. Give your answer now, as you were asked at the beginning."

Ask = Callable[[int, list[Message], Mapping[str, tuple[str, int]], bool], Awaitable[str]]
"""(number of the turn, the conversation, what is heard in it, whether it begins with this) → the reaction."""


@dataclass(frozen=True, slots=True)
class ListeningPlace:
    """The listening step's place in its run."""

    engine: AsyncEngine
    run: UUID
    request: StepRequest
    step: AgentStep
    streams: Streams
    scope: Mapping[str, Any]


class ListeningConversation:
    """The conversation of one step with what it reads live."""

    def __init__(self, place: ListeningPlace, ask: Ask, news: News | None) -> None:
        self._place, self._ask, self._news = place, ask, news
        streams, own = place.streams, place.request.step
        self._sources = [Voice(edge, [self._path(edge.source)]) for edge in streams.sources.get(own, ())]
        self._peers = [
            Voice(edge, [*self._turns_of(edge.source), self._path(edge.source)], is_peer=True)
            for edge in streams.peers.get(own, ())
        ]
        self._most = most_turns(streams.read_by(own))
        self._dialogue: list[Message] = []
        self._here = self._number = 0
        """Turns of this conversation, and in all."""
        self._agreed = False
        self._last_words = 0
        self._silent_since = asyncio.get_running_loop().time()

    async def dialogue(self) -> list[Message]:
        """Return the messages that ask for the final answer once every source has ended, without a system
        message."""
        await self._restore()
        run = self._place.request.collaboration
        with self._news.of(run) if self._news else contextlib.nullcontext(asyncio.Event()) as event:
            while True:
                event.clear()
                await self._look()
                if self._is_void():
                    self._dialogue, self._here = [], 0
                    for voice in self._voices:
                        voice.told = {}
                elif self._may_answer():
                    return self._final()
                elif self._has_turn():
                    await self._turn()
                    continue
                else:
                    await wait(event)

    @property
    def _voices(self) -> list[Voice]:
        return [*self._sources, *self._peers]

    def _path(self, step: str) -> str:
        return replace(self._place.request, step=step, purpose="").path

    def _turns_of(self, step: str) -> list[str]:
        most = 2 * most_turns(self._place.streams.read_by(step))
        return [f"{self._path(step)}~turn{number}" for number in range(1, most + 1)]

    async def _restore(self) -> None:
        """Go on behind the turns that were finished, and close one that was left behind."""
        place = self._place
        paths = self._turns_of(place.request.step)
        async with transaction(place.engine) as connection:
            await turns.abandon(connection, place.run, paths)
            found = await turns.finished(connection, place.run, paths)
        for path in paths:
            if path not in found:
                break
            self._note(found[path])

    def _note(self, turn: turns.AgentTurn) -> None:
        if turn.anew:
            self._dialogue, self._here = [], 0
        # Some providers refuse an empty message.
        reaction = turn.reaction if turn.reaction.strip() else "(no answer)"
        self._dialogue += [Message("user", turn.message), Message("assistant", reaction)]
        self._here += 1
        self._number += 1
        self._agreed = bool(self._peers) and re.sub(r"\W", "", turn.reaction).lower() == AGREED
        for voice in self._voices:
            voice.told = {path: turn.heard[path] for path in voice.paths if path in turn.heard}

    async def _look(self) -> None:
        place = self._place
        paths = [path for voice in self._voices if not voice.over for path in voice.paths]
        async with transaction(place.engine) as connection:
            newest = await turns.newest(connection, place.run, paths)
            for voice in self._voices:
                await voice.listen(connection, place.run, newest)
        words = sum(part.count for voice in self._peers for part in voice.parts.values())
        if words != self._last_words:
            self._last_words, self._silent_since = words, asyncio.get_running_loop().time()

    def _replaced(self, policy: str) -> list[Voice]:
        """The sources that were tried again since they were read, of those with such a policy."""
        return [one for one in self._sources if one.edge.on_retry == policy and one.replaced()]

    def _is_void(self) -> bool:
        """Tell whether to begin again, now that there is something to begin with."""
        return any(voice.has_begun() for voice in self._replaced("restart"))

    def _turns_left(self) -> bool:
        within = self._here < self._most and self._number < 2 * self._most
        return within and not self._agreed and not self._replaced("wait")

    def _may_answer(self) -> bool:
        if not all(voice.over for voice in self._sources):
            return False
        if all(voice.over for voice in self._peers):
            return True
        silent = asyncio.get_running_loop().time() - self._silent_since > SILENCE_SECONDS
        return not self._turns_left() or (self._here > 0 and silent)

    def _has_turn(self) -> bool:
        """Tell whether there is something new to react to."""
        if not self._turns_left() or self._replaced("restart"):
            return False
        if not self._here:
            return all(voice.has_begun() for voice in self._sources)
        return any(voice.news() for voice in self._voices if voice.is_peer or not voice.replaced())

    async def _turn(self) -> None:
        anew = not self._dialogue
        heard: dict[str, tuple[str, int]] = {}
        message = self._beginning() if anew else f"{_MORE}\n\n{self._told_since()}"
        for voice in self._voices:
            # The first word of one who debates is its own.
            heard |= voice.told if anew and voice.is_peer else voice.tell()
        asked = [*self._dialogue, Message("user", message)]
        reaction = await self._ask(self._number + 1, asked, heard, anew)
        self._note(turns.AgentTurn(message, heard, anew, reaction))
        self._silent_since = asyncio.get_running_loop().time()

    def _beginning(self) -> str:
        parts = [self._prompt(), "---"]
        if unfinished := [voice.name for voice in self._sources if not voice.over]:
            parts.append(_READING.format(names=" and ".join(unfinished)))
        if self._peers:
            parts.append(_DEBATE.format(names=" and ".join(voice.name for voice in self._peers)))
        return "\n\n".join(parts)

    def _prompt(self) -> str:
        """The step's own, with what there is of those it reads; below it, where it does not name them."""
        step, scope = self._place.step, self._place.scope
        read = {voice.name: voice.so_far_or_output() for voice in self._sources}
        running = {"status": "running", "model": "", "finish_reason": ""}
        facts = {name: {**running, "output": output} for name, output in read.items()}
        text = as_text(render(step.prompt, {**scope, "steps": {**scope["steps"], **facts}}))
        named = steps_read(source for _, source in expressions(step.prompt))
        shown = [f"## {name}\n{as_text(output)}" for name, output in read.items() if name not in named]
        return "\n\n".join([text, *shown])

    def _told_since(self) -> str:
        """Return the text that is new; if a source began anew, its whole text once it has ended."""
        found: list[str] = []
        for voice in self._voices:
            again = voice.replaced() and not voice.is_peer
            if again and voice.over:
                found.append(f"## {voice.name}, which was written again: all of it\n{voice.so_far()}")
            elif not again and (news := voice.news()):
                found.append(f"## {voice.name}\n{news}")
        return "\n\n".join(found)

    def _final(self) -> list[Message]:
        if not self._dialogue:
            return [Message("user", self._prompt())]
        last = f"{self._told_since()}\n\n{_DECIDE if self._peers else _COMPLETE}".strip()
        return [*self._dialogue, Message("user", last)]
