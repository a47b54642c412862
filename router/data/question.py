"""The question that a step puts to the router: one text and one category."""

from typing import Final

from router.data.task import analyze_task

PROMPT_CHARACTERS: Final = 500
"""Characters of the step's own prompt: it tells the steps of one run apart, the task tells runs apart."""


def category(role: str | None, agent: str, task: str) -> str:
    """Return the category of a step, such as `reviewer/backend`: its role, or its agent's name, and the
    task's domain."""
    return f"{role or agent}/{analyze_task(task).domain}"


def text(task: str, prompt: str) -> str:
    """The run's task, and the beginning of the step's prompt as its definition holds it (no values)."""
    return f"{task}\n{prompt[:PROMPT_CHARACTERS]}"
