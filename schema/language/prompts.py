"""Prompts as data: what a stored version holds."""

from typing import Literal

from pydantic import Field

from schema.language.steps import Shape

TaskType = Literal["code", "review", "test", "document", "design", "analysis", "other"]
"""Kinds of work that a prompt can tell apart (S2-12)."""


class Example(Shape):
    """A question and a good answer to it."""

    input: str = Field(max_length=20_000)
    output: str = Field(max_length=20_000)


class PromptContent(Shape):
    """A system prompt that may depend on the task (S2-11, S2-12)."""

    system: str = Field(max_length=100_000, description="Who the agent is and how it works.")
    by_task: dict[TaskType, str] = Field(
        default_factory=dict, description="Follows `system` where the task is of that type."
    )
    when_complex: str = Field(
        default="",
        max_length=20_000,
        description="Follows where the task is complex: the place for a chain of thought.",
    )
    examples: list[Example] = Field(
        default_factory=list, max_length=8, description="Shown before the task, as earlier answers."
    )
