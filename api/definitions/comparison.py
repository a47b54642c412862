"""The difference of two definitions, and the picture of a plan."""

from collections.abc import Iterable, Mapping

from api.http.shared_models import BreakingChange, Change, DefinitionDiff, PartChange
from schema.cel.expressions import Json
from schema.language import diff

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


def _part(found: diff.ChangedPart) -> PartChange:
    return PartChange(id=found.id, change=found.change, kind=found.kind, fields=_changes(found.fields))
