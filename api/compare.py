"""The difference of two definitions, and the picture of a plan."""

from collections.abc import Iterable, Mapping

from api.models import BreakingChange, Change, DefinitionDiff, PartChange
from schema import diff
from schema.expressions import Json
from schema.messages import Plan

Side = tuple[int, Json, Mapping[str, int]]
"""A version's number, its document and its pins."""


def definitions(name: str, before: Side, after: Side) -> DefinitionDiff:
    """The difference of two versions."""
    (old_number, old, old_pins), (new_number, new, new_pins) = before, after
    found = diff.difference(old, new)
    return DefinitionDiff(
        name=name,
        before=old_number,
        after=new_number,
        steps=[_part(one) for one in found.steps],
        agents=[_part(one) for one in found.agents],
        input=_changes(found.input),
        rest=_changes(found.rest),
        pins=_changes(diff.changes(dict(old_pins), dict(new_pins))),
        breaking=[BreakingChange(**vars(one)) for one in found.breaking],
        changes=_changes(diff.changes(old, new)),
        text=diff.unified(old, new, f"{name}@{old_number}", f"{name}@{new_number}"),
    )


def _changes(found: Iterable[diff.FieldChange]) -> list[Change]:
    return [Change(**vars(one)) for one in found]


def _part(found: diff.PartChange) -> PartChange:
    return PartChange(id=found.id, change=found.change, kind=found.kind, fields=_changes(found.fields))


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
