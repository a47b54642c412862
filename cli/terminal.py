"""The one console of all commands: whatever it prints cannot steer the terminal that shows it.

Models, other people and servers wrote most of what commands print. An escape sequence in it could rewrite
what an approver has just read, set the window's title or fill the clipboard.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# C0 and C1 (tab and line feed are harmless), marks that turn the direction of text around, separators that
# some terminals take for a line's end, halves of surrogate pairs, and letters that nobody can see.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Text without what would steer a terminal. What is left of an escape sequence can be seen, and so told
    from what an honest author wrote."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub("", text)


def json_text(value: Any) -> str:
    """JSON for programs, whole: what would steer a terminal stands in it as an escape of JSON's own."""
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return _UNSAFE.sub(lambda found: _escape(found[0]), text)


def _escape(one: str) -> str:
    return json.dumps(one)[1:-1] if one != "\x7f" else "\\u007f"


class Terminal(Console):
    """Cleans everything, on a terminal and in a pipe alike: what goes into a file is shown by a pager later.
    `--json` is for those who need each character. Square brackets and colons mean nothing but themselves."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Controls are rich's own: a text never becomes one.
            yield segment if segment.control else Segment(clean(segment.text), segment.style)
