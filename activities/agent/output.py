"""Read the output of a step from its agent's answer, and say what is wrong with it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activities.values import checked_output, storable
from gateway.finish_reasons import meaning_of
from gateway.request import Completion
from schema.cel.expressions import Json
from schema.errors import StepError
from schema.language.catalogue import Catalogue
from schema.language.steps import AgentStep
from schema.rules import answers


class OutputInvalid(StepError):
    """The model's answer is not what the step promises. Final once the step's own further answers are used
    up: asked from the start the agent would only cost the same again."""

    def __init__(self, faults: list[str], answer: str) -> None:
        shown = "; ".join(faults[:3])
        super().__init__("output_invalid", f"the model's answer does not fit: {shown}")
        self.faults = faults
        self.answer = answer


@dataclass(frozen=True)
class AnswerReader:
    """Reads answers to one step against its schema and expectations."""

    step: AgentStep
    scope: Mapping[str, Any]
    catalogue: Catalogue

    async def read(self, completion: Completion) -> tuple[Json, bool]:
        """Return the output and whether it had to be repaired. Raises OutputInvalid with every fault."""
        try:
            output = storable(answers.read(self.step, completion.text))
            found = await self.faults(output)
        except answers.NotReadable as error:
            if repaired := await self._repaired(completion):
                return repaired[0], True
            found = [str(error)]
        if found:
            if completion.finish_reason == "length":
                tokens = completion.output_tokens
                found.insert(0, f"it broke off at the limit of {tokens:,} tokens; answer more briefly.")
            elif meaning_of(completion.finish_reason) == "refused":
                found.insert(0, f"it was broken off with {completion.finish_reason}.")
            raise OutputInvalid(found, completion.text)
        return checked_output(output), False

    async def faults(self, output: Json) -> list[str]:
        """Return what is wrong with an output; empty if it fits."""
        known = (self.step, output, self.scope, self.catalogue)
        if self.step.emits:
            # Checking a long definition takes a second, and the loop has other steps' tokens to write.
            return await asyncio.to_thread(answers.faults, *known)
        return answers.faults(*known)

    async def _repaired(self, completion: Completion) -> tuple[Json] | None:
        """Return the value that a whole answer close to JSON stands for, if the step accepts that."""
        if completion.finish_reason != "stop":
            return None
        try:
            output = await asyncio.to_thread(answers.mended, self.step, completion.text)
            output = checked_output(storable(output))
        except (answers.NotReadable, StepError):
            return None
        return None if await self.faults(output) else (output,)
