"""Collect a document's problems, up to a number that is still useful and cheap."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from schema.cel.expressions import ExpressionInvalid, Json
from schema.errors import Problem

MAX_PROBLEMS: Final = 100
MAX_HINTS: Final = 20
"""Looking for the nearest name is the dearest part of a problem."""
MAX_REFUSED_CHARS: Final = 8_000
"""Characters of refused expressions, after which the rest of the document goes unread."""


class EnoughProblems(Exception):
    """Looking further is pointless: what was found so far is the answer."""


@dataclass
class Problems:
    """The problems of one document in the order in which they were found."""

    all: list[Problem] = field(default_factory=list)
    _hints: int = 0
    _refused_chars: int = 0

    def add(self, code: str, pointer: str, found: str, expected: str, fix: str) -> None:
        self.all.append(Problem(code, pointer, found, expected, fix))
        if len(self.all) >= MAX_PROBLEMS:
            raise EnoughProblems

    def add_refused(self, pointer: str, source: str, error: ExpressionInvalid) -> None:
        self.add(error.code, pointer, error.found, error.expected, error.fix)
        self._refused_chars += len(source)
        if self._refused_chars > MAX_REFUSED_CHARS:
            raise EnoughProblems

    def hint(self, word: str, known: Iterable[str]) -> str:
        """The fix for a misspelt name."""
        self._hints += 1
        return nearest(word, known) if self._hints <= MAX_HINTS else "Correct the name."


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word[:64], names[:200], n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}." if names else "There are none."


def show(value: Json) -> str:
    """A value as a problem quotes it: short, and of a list or an object only that it is one."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "…")
    if isinstance(value, (bool, int, float)):
        return str(value).lower()[:80]
    return kind_of(value)


def kind_of(value: Json) -> str:
    """Return the kind of a JSON value, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
