"""Bound how large the automaton of a regular expression becomes, without compiling it.

CEL's library compiles a pattern anew for every match, and RE2's time per character grows with the automaton.
"""

import re
from typing import Final

MAX_CHARS: Final = 2_000
"""Longest pattern that is examined; no expression holds a longer one."""
UNKNOWN: Final = 100_000
"""States of a pattern that cannot be looked at."""

_ATOM: Final = re.compile(
    r"""(?P<repeat>\{(?P<least>\d{1,4})(?:,(?P<most>\d{0,4}))?\})
    | \\[pP](?:\{[^{}]{0,40}\}|.) | \\x\{[0-9a-fA-F]{1,8}\}
    | (?P<class>\[\^?\]?(?:\\.|\[:\^?[a-z]{1,10}:\]|[^\]\\])*\])
    | \\. | (?P<open>\((?:\?P?<[^>]{0,100}>|\?[a-zA-Z-]{0,10}:?)?) | (?P<close>\)) | .""",
    re.DOTALL | re.VERBOSE,
)
_ANY: Final = 16
"""States of a class of characters in UTF-8, such as `.` and `[^a]`."""
_PROPERTY: Final = 1_800
r"""A Unicode property, such as `\pL`."""


def states(pattern: str) -> int:
    """Return an upper bound on the states of the automaton that a pattern needs."""
    if len(pattern) > MAX_CHARS:
        return UNKNOWN
    sums, last = [0], 0
    for atom in _ATOM.finditer(pattern):
        if atom["repeat"]:
            last *= max(int(atom["least"]), int(atom["most"] or 0), 1)
        elif atom["close"]:
            inside = sums.pop() + last
            last = inside + 2
            if not sums:
                sums = [0]
        else:
            sums[-1] += last
            last = _weight(atom)
            if atom["open"]:
                sums.append(0)
                last = 0
    total = sum(sums) + last
    return 4 * total if "(?i" in pattern or re.search(r"\(\?[a-z]*i", pattern) else total


def _weight(atom: re.Match[str]) -> int:
    text = atom.group()
    if text[:2] in ("\\p", "\\P"):
        return _PROPERTY
    if atom["class"]:
        properties = text.count("\\p") + text.count("\\P")
        if text.isascii() and "\\" not in text and text[1] != "^":
            return 2
        return _ANY + 4 * len(text) + _PROPERTY * properties
    if text == "." or text in ("\\D", "\\S", "\\W"):
        return _ANY
    return 1 if text.isascii() else 4
