"""Classify the kind of work in a text by its words alone, the same way every time (S2-12)."""

import re
from typing import Final

from schema.language.prompts import TaskType

_READ_CHARACTERS: Final = 4_000
"""A task says in its beginning what is wanted; what follows is usually what it is about."""

# What is asked for stands before the rest: "review this function" is a review, though it speaks of code.
_VERBS: Final[tuple[tuple[TaskType, str], ...]] = (
    ("review", r"review|critiqu\w*|judge|assess|proofread|find (?:the |any |all )?(?:bugs?|faults?|issues?)"),
    ("test", r"(?:write|add|create|generate|extend)\s+(?:\w+\s+){0,3}tests?|test (?:this|that|the|it)\b"),
    (
        "document",
        r"document|describe|summari[sz]e|(?:write|add|create|draft)\s+(?:\w+\s+){0,3}"
        r"(?:documentation|docs|docstrings?|readme|changelog|tutorial|guide|manual|release notes)",
    ),
    (
        "design",
        r"design|architect|(?:write|create|draft|propose|plan)\s+(?:\w+\s+){0,3}"
        r"(?:architecture|design|schema|data model|roadmap|plan)",
    ),
    ("analysis", r"analy[sz]e|compare|investigate|explain|research|evaluate|estimate|why (?:is|does|do|are)"),
    (
        "code",
        r"implement|code|program|refactor|fix|repair|debug|port|optimi[sz]e|"
        r"(?:write|build|create|develop|add|make)\s+(?:\w+\s+){0,4}(?:function|class|script|program|code|module|"
        r"api|endpoint|service|app|application|query|parser|cli|library|algorithm|component|page|server|bot)",
    ),
)
_PATTERNS: Final = tuple((kind, re.compile(rf"\b(?:{words})\b", re.IGNORECASE)) for kind, words in _VERBS)

_BY_ROLE: Final[dict[str, TaskType]] = {
    "architect": "design",
    "coder": "code",
    "optimizer": "code",
    "refiner": "code",
    "reviewer": "review",
    "tester": "test",
    "documenter": "document",
}


def task_type(text: str, role: str | None = None) -> TaskType:
    """Return the first kind of work that the text names; if it names none, the role's usual one."""
    text = text[:_READ_CHARACTERS]
    found = [
        (match.start(), order, kind)
        for order, (kind, pattern) in enumerate(_PATTERNS)
        if (match := pattern.search(text))
    ]
    return min(found)[2] if found else _BY_ROLE.get(role or "", "other")
