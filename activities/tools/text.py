"""Built-in tools on texts: pure, quick, no I/O."""

import difflib
import re
from typing import Any, Final

from schema.errors import StepError
from schema.foreign_json import NotJson, read_json

_FENCE: Final = re.compile(r"^```([\w+#.-]*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_MAX_LINES: Final = 20_000


def diff(before: str, after: str) -> dict[str, Any]:
    """The unified difference of two texts."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(old) + len(new) > _MAX_LINES:
        raise StepError(
            "tool_failed", f"found {len(old) + len(new):,} lines to compare; expected at most {_MAX_LINES:,}."
        )
    lines = list(difflib.unified_diff(old, new, "before", "after"))
    return {
        "diff": "".join(line if line.endswith("\n") else line + "\n" for line in lines),
        "added": sum(line.startswith("+") and not line.startswith("+++") for line in lines),
        "removed": sum(line.startswith("-") and not line.startswith("---") for line in lines),
    }


def code_blocks(text: str) -> dict[str, Any]:
    """The fenced code blocks of a Markdown text; `code` is all of them together."""
    blocks = [{"language": match[1].lower(), "code": match[2]} for match in _FENCE.finditer(text)]
    return {"blocks": blocks, "code": "\n".join(block["code"] for block in blocks)}


def parse_json(text: str) -> dict[str, Any]:
    """The JSON value in a text, fenced or bare."""
    fenced = _FENCE.search(text)
    candidate = fenced[2] if fenced else text
    try:
        return {"value": read_json(candidate)}
    except NotJson as error:
        raise StepError(
            "tool_failed", f"found no JSON in the text ({error}); it begins {text[:80]!r}."
        ) from None
