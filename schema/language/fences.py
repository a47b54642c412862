"""Read fenced blocks of Markdown in one pass over their text: models write it, and nobody bounds how."""

import re
from dataclasses import dataclass
from typing import Final

_FENCE: Final = "```"
_LANGUAGE: Final = re.compile(r"[\w+#.-]*")
_ONLY_LANGUAGE: Final = re.compile(r"[`~]*[ \t]*[\w+#./-]*\s*")


@dataclass(frozen=True, slots=True)
class FencedBlock:
    language: str
    code: str


def blocks(text: str, most: int | None = None) -> list[FencedBlock]:
    """Return the fenced blocks of a text, at most `most`; one that is never closed is none."""
    found: list[FencedBlock] = []
    lines = text.split("\n")
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith(_FENCE):
            continue
        if opened is None:
            opened = number
        elif line.rstrip(" \t") == _FENCE:
            language = _LANGUAGE.match(lines[opened], len(_FENCE))
            code = "".join(f"{inside}\n" for inside in lines[opened + 1 : number])
            found.append(FencedBlock(language.group() if language else "", code))
            opened = None
            if len(found) == most:
                break
    return found


def unfenced(text: str) -> str:
    """Return what stands in the one fence that is the whole text; without such a fence, the text."""
    head, newline, rest = text.strip().partition("\n")
    mark = head[:1]
    inside = rest.rstrip(mark) if mark and mark in "`~" else rest
    if not newline or not head.startswith(3 * mark) or len(rest) - len(inside) < len(_FENCE):
        return text
    return inside.rstrip() if _ONLY_LANGUAGE.fullmatch(head) else text
