"""One agent's view of another that is still speaking."""

import re
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db.live import tokens
from db.live.turns import SpeakingAttempt
from db.runs import executions
from schema.cel.expressions import Json
from schema.language.definition import StreamEdge
from schema.language.templates import as_text

# Looked for from the first of several full stops only: a line of nothing else would take quadratic time.
_SENTENCE: Final = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*\s")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")
_FENCE: Final = re.compile(r"^[ \t]*```[^\n]*(?:\n|$)", re.MULTILINE)


def finished(text: str, part: str | None) -> int:
    """Count the characters of a growing text that belong to finished parts."""
    match part:
        case "sentence":
            return max((found.end() for found in _SENTENCE.finditer(text)), default=0)
        case "paragraph":
            return max((found.end() for found in _PARAGRAPH.finditer(text)), default=0)
        case "code_block":
            # A fence opens, the next one closes; one without its line's end may still be growing.
            fences = [found.end() for found in _FENCE.finditer(text)]
            return fences[1::2][-1] if len(fences) > 1 else 0
    return len(text)


@dataclass
class SpokenPart:
    """The text of one execution so far."""

    execution: UUID
    text: str = ""
    count: int = 0
    """Number of tokens."""


@dataclass
class Voice:
    """A step that is read live: its answer, and of a peer also what it says before."""

    edge: StreamEdge
    paths: list[str]
    """Paths in the order in which they are spoken; the answer's own path is last."""
    is_peer: bool = False
    parts: dict[str, SpokenPart] = field(default_factory=dict)
    told: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Path → (execution, characters) that the listener has been told."""
    over: bool = False
    output: Json = None
    """The step's output, once it is over."""
    stands_in: bool = False
    """Whether the output differs from what was said: a value for a failure, or one kept from elsewhere."""
    done: set[str] = field(default_factory=set)
    """Paths of which all was read."""
    failed: set[str] = field(default_factory=set)
    """Paths whose newest attempt failed: what it said is not read, and another may come."""

    @property
    def name(self) -> str:
        return self.edge.source

    async def listen(
        self, connection: AsyncConnection, run: UUID, newest: dict[str, SpeakingAttempt]
    ) -> None:
        """Read what was said since."""
        for path in self.paths:
            speaking = newest.get(path)
            if speaking is None or path in self.done:
                continue
            if path not in self.parts or self.parts[path].execution != speaking.execution:
                self.parts[path] = SpokenPart(speaking.execution)
            await self._read(connection, self.parts[path])
            if speaking.status in executions.FINISHED:
                self.done.add(path)
                if path == self.paths[-1]:
                    await self._end(connection, run, speaking)
            if speaking.status in ("running", *executions.FINISHED):
                self.failed.discard(path)
            else:
                self.failed.add(path)

    async def _read(self, connection: AsyncConnection, part: SpokenPart) -> None:
        while True:
            said = await tokens.said(connection, part.execution, part.count)
            part.text += said.text
            part.count += said.count
            if said.count < tokens.MAX_TOKENS:
                return

    async def _end(self, connection: AsyncConnection, run: UUID, speaking: SpeakingAttempt) -> None:
        self.over = True
        part = self.parts[speaking.path]
        known = (await executions.known(connection, run, [speaking.path]))[speaking.path]
        self.output = known.output
        if speaking.error_code is not None or not part.text:
            self.stands_in = True
            part.text = as_text(known.output)

    def ready(self) -> dict[str, int]:
        """Path → how many characters can be told by now: finished parts, and all of what is finished."""
        return {
            path: len(part.text) if path in self.done else finished(part.text, self.edge.start)
            for path, part in self.parts.items()
            if path not in self.failed
        }

    def has_begun(self) -> bool:
        """Tell whether the first part is finished."""
        return self.over or any(self.ready().values())

    def replaced(self) -> bool:
        """Tell whether earlier text has become void: another attempt speaks, or none does yet."""
        return any(
            count and (path in self.failed or str(self.parts[path].execution) != execution)
            for path, (execution, count) in self.told.items()
            if path in self.parts
        ) or (self.stands_in and any(count for _, count in self.told.values()))

    def news(self) -> str:
        """Return the text that can be passed on and was not."""
        found: list[str] = []
        for path, end in self.ready().items():
            execution, count = self.told.get(path, ("", 0))
            part = self.parts[path]
            found.append(part.text[count if execution == str(part.execution) else 0 : end])
        return "\n\n".join(one.strip() for one in found if one.strip())

    def so_far(self) -> str:
        """Return all text that can be passed on."""
        texts = (self.parts[path].text[:end] for path, end in self.ready().items())
        return "\n\n".join(one.strip() for one in texts if one.strip()) if self.is_peer else "".join(texts)

    def so_far_or_output(self) -> Json:
        return self.output if self.over else self.so_far()

    def tell(self) -> dict[str, tuple[str, int]]:
        """Note that everything that can be told now is."""
        self.told = {path: (str(self.parts[path].execution), end) for path, end in self.ready().items()}
        return self.told
