"""Built-in tools on texts: pure, quick, no I/O."""

import difflib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

from schema.errors import StepError
from schema.language import fences
from schema.values.foreign_json import NotJson, read_json

_MAX_LINES: Final = 20_000
_MAX_COMPARISONS: Final = 500_000
"""Bound on comparisons of equal lines with each other; one takes about 100 ns."""
_CONTEXT: Final = 3
MAX_BLOCKS: Final = 10_000


def diff(before: str, after: str) -> dict[str, Any]:
    """The unified difference of two texts."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(old) + len(new) > _MAX_LINES:
        raise StepError(
            "tool_failed", f"found {len(old) + len(new):,} lines to compare; expected at most {_MAX_LINES:,}."
        )
    lines = list(_unified(old, new))
    return {
        "diff": "".join(line if line.endswith("\n") else line + "\n" for line in lines),
        "added": sum(line.startswith("+") and not line.startswith("+++") for line in lines),
        "removed": sum(line.startswith("-") and not line.startswith("---") for line in lines),
    }


class _BoundedMatcher(difflib.SequenceMatcher[str]):
    """Looks for what two texts share, and gives up when lines that occur often make it compare too much."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        super().__init__(None, old, new)
        places = self.b2j  # type: ignore[attr-defined]  # line → where it stands in the new text
        self._until = [0, *accumulate(1 + len(places.get(line, ())) for line in old)]
        self._left = _MAX_COMPARISONS

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        last = len(self._until) - 1 if ahi is None else ahi
        self._left -= self._until[last] - self._until[alo]
        if self._left < 0:
            raise StepError(
                "tool_failed",
                f"found texts whose lines repeat so often that comparing them takes more than "
                f"{_MAX_COMPARISONS:,} comparisons; expected fewer. Compare parts of them.",
            )
        return super().find_longest_match(alo, ahi, blo, bhi)


def _unified(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """The lines of `difflib.unified_diff`, whose own matcher has no bound."""
    for number, group in enumerate(_BoundedMatcher(old, new).get_grouped_opcodes(_CONTEXT)):
        if number == 0:
            yield "--- before\n"
            yield "+++ after\n"
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n"
        for tag, begin, end, new_begin, new_end in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[begin:end])
                continue
            yield from (f"-{line}" for line in old[begin:end])
            yield from (f"+{line}" for line in new[new_begin:new_end])


def _range(begin: int, end: int) -> str:
    """Lines as a unified difference names them; of none the line before."""
    length = end - begin
    return f"{begin + 1}" if length == 1 else f"{begin + (length > 0)},{length}"


def code_blocks(text: str) -> dict[str, Any]:
    """The fenced code blocks of a Markdown text; `code` is all of them together."""
    found = fences.blocks(text, most=MAX_BLOCKS + 1)
    if len(found) > MAX_BLOCKS:
        raise StepError("tool_failed", f"found more than {MAX_BLOCKS:,} code blocks; expected fewer.")
    blocks = [{"language": one.language.lower(), "code": one.code} for one in found]
    return {"blocks": blocks, "code": "\n".join(block["code"] for block in blocks)}


def parse_json(text: str) -> dict[str, Any]:
    """The JSON value in a text, fenced or bare."""
    fenced = fences.blocks(text, most=1)
    candidate = fenced[0].code if fenced else text
    try:
        return {"value": read_json(candidate)}
    except NotJson as error:
        raise StepError(
            "tool_failed", f"found no JSON in the text ({error}); it begins {text[:80]!r}."
        ) from None
