"""Compare two definitions by step, agent and input field rather than by line."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from schema.cel.expressions import Json
from schema.language.templates import escape

Op = Literal["add", "remove", "replace", "move"]


@dataclass(frozen=True)
class FieldChange:
    """One difference, as JSON Patch would name it, with what was there before."""

    op: Op
    path: str
    """RFC 6901 JSON pointer; of what was removed in the older document, else in the newer one."""
    before: Json = None
    after: Json = None


@dataclass(frozen=True)
class ChangedPart:
    """A step or an agent that is new, gone or different."""

    id: str
    change: Literal["added", "removed", "changed"]
    kind: str
    """The step's kind; `agent` for agents."""
    fields: list[FieldChange] = field(default_factory=list)
    """Changed fields of a changed part."""


@dataclass(frozen=True)
class InputBreak:
    """An input that fitted the older version and does not fit the newer one."""

    path: str
    """JSON pointer into the newer document."""
    reason: str


@dataclass(frozen=True)
class Difference:
    steps: list[ChangedPart]
    agents: list[ChangedPart]
    input: list[FieldChange]
    rest: list[FieldChange]
    """Changes of everything else: description, defaults, budget, stream, output."""
    breaking: list[InputBreak]

    @property
    def empty(self) -> bool:
        return not (self.steps or self.agents or self.input or self.rest)


_COMPARED_APART: Final = ("steps", "agents", "input", "$schema")


def difference(before: Json, after: Json) -> Difference:
    """The difference of two valid definitions as JSON."""
    return Difference(
        steps=_parts(_steps(before), _steps(after)),
        agents=_parts(_agents(before), _agents(after)),
        input=list(changes(_input(before), _input(after), "/input")),
        rest=list(changes(_rest(before), _rest(after))),
        breaking=list(_breaking(_input(before), _input(after), "/input")),
    )


@dataclass(frozen=True)
class _Part:
    path: str
    kind: str
    value: Json


def _agents(definition: Json) -> dict[str, _Part]:
    return {
        name: _Part(f"/agents/{escape(name)}", "agent", agent)
        for name, agent in definition.get("agents", {}).items()
    }


def _steps(definition: Json) -> dict[str, _Part]:
    """Every step by id, those of bodies included; a map or loop without its body's steps."""
    found: dict[str, _Part] = {}
    stack = [("/steps", definition["steps"])]
    while stack:
        pointer, steps = stack.pop()
        for name, step in steps.items():
            path, own = f"{pointer}/{name}", step
            if isinstance(body := step.get("body"), dict):
                own = step | {"body": {key: value for key, value in body.items() if key != "steps"}}
                stack.append((f"{path}/body/steps", body["steps"]))
            found[name] = _Part(path, step["kind"], own)
    return found


def _input(definition: Json) -> Json:
    return definition.get("input", {"type": "object"})


def _rest(definition: Json) -> dict[str, Json]:
    return {key: value for key, value in definition.items() if key not in _COMPARED_APART}


def _parts(before: dict[str, _Part], after: dict[str, _Part]) -> list[ChangedPart]:
    """In the order of the older document, then what is new in the order of the newer one."""
    found: list[ChangedPart] = []
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            found.append(ChangedPart(name, "removed", old.kind))
            continue
        fields = list(changes(old.value, new.value, new.path))
        if old.path != new.path:
            fields.insert(0, FieldChange("move", new.path, old.path, new.path))
        if fields:
            found.append(ChangedPart(name, "changed", new.kind, fields))
    added = [ChangedPart(name, "added", new.kind) for name, new in after.items() if name not in before]
    return found + added


def changes(before: Json, after: Json, path: str = "") -> Iterator[FieldChange]:
    """Yield the changes that turn one value into the other; lists are compared index by index.

    Recursion is safe: documents have at most `document.MAX_DEPTH` levels.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = f"{path}/{escape(key)}"
            if key not in after:
                yield FieldChange("remove", place, before=before[key])
            elif key not in before:
                yield FieldChange("add", place, after=after[key])
            else:
                yield from changes(before[key], after[key], place)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            place = f"{path}/{index}"
            if index >= len(after):
                yield FieldChange("remove", place, before=before[index])
            elif index >= len(before):
                yield FieldChange("add", place, after=after[index])
            else:
                yield from changes(before[index], after[index], place)
    elif type(before) is not type(after) or before != after:
        yield FieldChange("replace", path, before, after)


_ALL_TYPES: Final = frozenset({"null", "boolean", "number", "integer", "string", "array", "object"})


def _breaking(before: Any, after: Any, path: str) -> Iterator[InputBreak]:
    """Fields that became required, and types and choices that became fewer. Only what is written in place is
    compared: `$ref`, `anyOf` and their like are not followed."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return
    gone = _types(before) - _types(after)
    if gone:
        names = ", ".join(sorted(gone))
        yield InputBreak(f"{path}/type", f"{names} is no longer accepted")
    if "enum" in after:
        lost = [one for one in before["enum"] if one not in after["enum"]] if "enum" in before else None
        if lost is None or lost:
            shown = "other values are" if lost is None else f"{json.dumps(lost[0])} is"
            yield InputBreak(f"{path}/enum", f"{shown} no longer accepted")
    old_fields, new_fields = _fields(before), _fields(after)
    for name in after.get("required", []):
        rule = new_fields.get(name)
        has_default = path == "/input" and isinstance(rule, dict) and "default" in rule
        if name not in before.get("required", []) and not has_default:
            yield InputBreak(f"{path}/required", f"the field {name!r} must be given")
    for name, rule in old_fields.items():
        place = f"{path}/properties/{escape(name)}"
        if name in new_fields:
            yield from _breaking(rule, new_fields[name], place)
        elif after.get("additionalProperties") is False:
            yield InputBreak(place, f"the field {name!r} is no longer accepted")
    if "items" in before and "items" in after:
        yield from _breaking(before["items"], after["items"], f"{path}/items")


def _types(schema: dict[str, Any]) -> frozenset[str]:
    given = schema.get("type")
    named = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else _ALL_TYPES
    # Every integer is a number too.
    return frozenset(named | {"integer"}) if "number" in named else frozenset(named)


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def unified(before: Json, after: Json, before_name: str, after_name: str) -> str:
    """The two documents line by line."""
    old, new = (json.dumps(value, indent=2, ensure_ascii=False).splitlines() for value in (before, after))
    return "\n".join(difflib.unified_diff(old, new, before_name, after_name, lineterm=""))
