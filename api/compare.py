"""The difference of two JSON documents, and the picture of a plan."""

import difflib
import json
from collections.abc import Iterator
from typing import Any

from api.models import Change
from schema.messages import Plan
from schema.templates import escape


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """What would turn one document into the other; lists are compared place by place.

    Recursion is safe: documents have at most `document.MAX_DEPTH` levels.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = f"{path}/{escape(key)}"
            if key not in after:
                yield Change(op="remove", path=place, before=before[key])
            elif key not in before:
                yield Change(op="add", path=place, after=after[key])
            else:
                yield from changes(before[key], after[key], place)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            place = f"{path}/{index}"
            if index >= len(after):
                yield Change(op="remove", path=place, before=before[index])
            elif index >= len(before):
                yield Change(op="add", path=place, after=after[index])
            else:
                yield from changes(before[index], after[index], place)
    elif type(before) is not type(after) or before != after:
        yield Change(op="replace", path=path, before=before, after=after)


def unified(before: Any, after: Any, before_name: str, after_name: str) -> str:
    old, new = (json.dumps(value, indent=2, ensure_ascii=False).splitlines() for value in (before, after))
    return "\n".join(difflib.unified_diff(old, new, before_name, after_name, lineterm=""))


def mermaid(plan: Plan) -> str:
    """A flowchart; dotted edges only wait, for either end."""
    lines = ["flowchart TD"]
    for step in plan.steps:
        shape = ("{{", "}}") if step.conditional else ("[", "]")
        # Prefixed: Mermaid keeps words such as `end` for itself.
        lines.append(f'  s_{step.id}{shape[0]}"{_label(step.summary)}"{shape[1]}')
    for step in plan.steps:
        lines += [f"  s_{need} --> s_{step.id}" for need in step.needs]
        lines += [f"  s_{wait} -.-> s_{step.id}" for wait in step.waits]
    return "\n".join(lines)


def _label(text: str) -> str:
    return "".join(f"#{ord(char)};" if char in '"#<>&\n`' else char for char in text)
