"""A value that a JSON Schema accepts, drawn deterministically and steered by hints."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

Hint = Callable[[str, Mapping[str, object]], object]
"""(property name, its schema) → a value to use if it fits, or `nothing`.

A list may hold further hints, one per item: each suggests that item's properties, and the item itself
under the name "".
"""


class _NoSuggestion:
    """No suggestion; None is a value in JSON."""


nothing: Final = _NoSuggestion()

MAX_DEPTH: Final = 12
# Beyond this depth only what is required is generated, so recursive schemas come to an end.
OPTIONAL_DEPTH: Final = 5
FORMATS: Final = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T10:30:00Z",
    "time": "10:30:00Z",
    "duration": "PT1H",
    "email": "person@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.10",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/item",
    "uri-reference": "/item",
    "uuid": "6f1f4f64-3c2a-4f0a-9a53-0c6d5d1c2b11",
}
WORDS: Final = ("state", "limit", "order", "record", "boundary", "check", "retry", "input", "owner", "result")


def conforming(schema: Mapping[str, object], draw: random.Random, hint: Hint) -> object:
    """A value valid under the schema, as far as JSON Schema is used for structured answers."""
    return _ConformWalk(schema, draw).value(schema, "", hint, nothing, 0)


class _ConformWalk:
    def __init__(self, root: Mapping[str, object], draw: random.Random) -> None:
        self.root = root
        self.draw = draw

    def value(self, schema: Mapping[str, object], name: str, hint: Hint, given: object, depth: int) -> object:
        if depth > MAX_DEPTH:
            return None
        schema = self.resolved(schema)
        if "const" in schema:
            return schema["const"]
        plain = {**schema, "type": self.type_of(schema)}
        wanted = given if given is not nothing else hint(name, plain)
        allowed = schema.get("enum")
        if isinstance(allowed, list) and allowed:
            return wanted if any(wanted is a or wanted == a for a in allowed) else self.draw.choice(allowed)
        match plain["type"]:
            case "object":
                return self.members(schema, wanted if callable(wanted) else hint, depth)
            case "array":
                return self.elements(schema, name, hint, wanted, depth)
            case "string":
                return self.text(schema, name, wanted)
            case "integer" | "number":
                return self.amount(schema, plain["type"] == "integer", wanted)
            case "boolean":
                return wanted if isinstance(wanted, bool) else self.draw.random() < 0.5
            case _:
                return None

    def resolved(self, schema: Mapping[str, object]) -> Mapping[str, object]:
        """The schema with $ref followed, allOf merged and the first usable alternative taken."""
        for _ in range(MAX_DEPTH):
            merged = dict(schema)
            parts: list[Mapping[str, object]] = []
            ref = merged.pop("$ref", None)
            if isinstance(ref, str):
                parts.append(self.target(ref))
            parts += [p for p in _sequence(merged.pop("allOf", None)) if isinstance(p, Mapping)]
            for key in ("anyOf", "oneOf"):
                options = [o for o in _sequence(merged.pop(key, None)) if isinstance(o, Mapping)]
                parts += [o for o in options if o.get("type") != "null"][:1] or options[:1]
            if not parts:
                return merged
            for part in parts:
                merged = _merge(merged, part)
            schema = merged
        return schema

    def target(self, ref: str) -> Mapping[str, object]:
        node: object = self.root
        for part in ref.removeprefix("#").strip("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if key and isinstance(node, Mapping):
                node = node.get(key)
        return node if isinstance(node, Mapping) else {}

    def type_of(self, schema: Mapping[str, object]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            return next((str(k) for k in kind if k != "null"), "null")
        if isinstance(kind, str):
            return kind
        if "properties" in schema or "required" in schema or "additionalProperties" in schema:
            return "object"
        if "items" in schema or "prefixItems" in schema:
            return "array"
        if "minimum" in schema or "maximum" in schema or "multipleOf" in schema:
            return "number"
        return "string"

    def members(self, schema: Mapping[str, object], hint: Hint, depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        required = [r for r in _sequence(schema.get("required")) if isinstance(r, str)]
        names = list(known) if depth < OPTIONAL_DEPTH else [n for n in known if n in required]
        names += [n for n in required if n not in known]
        most = schema.get("maxProperties")
        if isinstance(most, int):
            names = sorted(names, key=lambda n: n not in required)[:most]
        extra = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
        other: Mapping[str, object] = extra if isinstance(extra, Mapping) else {"type": "string"}
        filled: dict[str, object] = {}
        for name in names:
            part = known.get(name, other)
            filled[name] = self.value(
                part if isinstance(part, Mapping) else {}, name, hint, nothing, depth + 1
            )
        least = schema.get("minProperties", 0)
        for word in WORDS:
            if not isinstance(least, int) or len(filled) >= least:
                break
            filled.setdefault(word, self.value(other, word, hint, nothing, depth + 1))
        return filled

    def elements(
        self, schema: Mapping[str, object], name: str, hint: Hint, wanted: object, depth: int
    ) -> list[object]:
        prefix = [p for p in _sequence(schema.get("prefixItems")) if isinstance(p, Mapping)]
        filled = [self.value(p, name, hint, nothing, depth + 1) for p in prefix]
        items = schema.get("items", {} if not prefix else False)
        least, most = schema.get("minItems", 0), schema.get("maxItems", 50)
        low = least if isinstance(least, int) else 0
        high = most if isinstance(most, int) else 50
        if not isinstance(items, Mapping):
            return filled
        given: list[object] = wanted if isinstance(wanted, list) else [nothing] * self.draw.randint(1, 3)
        given = given[: max(0, high - len(filled))]
        given += [nothing] * (low - len(filled) - len(given))
        unique = schema.get("uniqueItems") is True
        for each in given:
            filled.append(self.element(items, hint, each, depth + 1))
            for attempt in range(30 if unique else 0):
                if filled[-1] not in filled[:-1]:
                    break
                filled[-1] = self.other(items, attempt, depth + 1)
            else:
                if unique and filled[-1] in filled[:-1] and len(filled) > low:
                    filled.pop()
        return filled

    def element(self, schema: Mapping[str, object], hint: Hint, each: object, depth: int) -> object:
        if not callable(each):
            return self.value(schema, "", hint, each, depth)
        return self.value(schema, "", each, nothing, depth)

    def other(self, schema: Mapping[str, object], attempt: int, depth: int) -> object:
        """Another value than the one drawn before: walk through what the schema allows."""
        plain = self.resolved(schema)
        allowed = plain.get("enum")
        if isinstance(allowed, list) and allowed:
            return allowed[attempt % len(allowed)]
        if self.type_of(plain) in ("integer", "number"):
            low = plain.get("minimum", 0)
            return self.amount(plain, True, (low if isinstance(low, int) else 0) + attempt)
        if self.type_of(plain) == "string":
            return self.text(plain, "", f"{WORDS[attempt % len(WORDS)]} {attempt}")
        return self.value(plain, "", lambda _name, _schema: nothing, nothing, depth)

    def text(self, schema: Mapping[str, object], name: str, wanted: object) -> str:
        pattern, form = schema.get("pattern"), schema.get("format")
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        text = wanted if isinstance(wanted, str) else ""
        if isinstance(form, str) and form in FORMATS:
            return FORMATS[form]
        if not text:
            label = re.sub(r"[^a-z]+", " ", name.lower()).strip()
            text = f"{label or 'the'} {self.draw.choice(WORDS)}".strip()
        if isinstance(least, int) and len(text) < least:
            text = (text + " " + " ".join(WORDS) * (least // 20 + 1))[: max(least, len(text))]
        if isinstance(most, int):
            text = text[:most]
        if isinstance(pattern, str):
            return _matching(pattern, text)
        return text

    def amount(self, schema: Mapping[str, object], whole: bool, wanted: object) -> int | float:
        lowest = _bound(schema, "minimum", "exclusiveMinimum", whole, 1)
        highest = _bound(schema, "maximum", "exclusiveMaximum", whole, -1)
        given = wanted if isinstance(wanted, int | float) and not isinstance(wanted, bool) else None
        # A suggestion is bound by what the schema says, not by the span that a draw is given.
        base = 0.0 if given is None else float(given)
        low = lowest if lowest is not None else base if highest is None else min(base, highest - 10)
        high = highest if highest is not None else max(base, low + (10 if whole else 1))
        value = self.draw.uniform(low, high) if given is None else min(max(base, low), high)
        step = schema.get("multipleOf")
        if isinstance(step, int | float) and step > 0:
            value = round(value / step) * step
            value = value + step if value < low else value - step if value > high else value
            return round(value) if whole else value
        if whole:
            return min(max(round(value), -int(-low // 1)), int(high // 1))
        return min(max(round(value, 4), low), high)


def _bound(schema: Mapping[str, object], closed: str, opened: str, whole: bool, inward: int) -> float | None:
    edge, beyond = schema.get(closed), schema.get(opened)
    found: list[float] = []
    if isinstance(edge, int | float):
        found.append(float(edge))
    if isinstance(beyond, int | float):
        found.append(float(beyond) + inward * (1 if whole else 0.001))
    if not found:
        return None
    return max(found) if inward > 0 else min(found)


def _merge(into: Mapping[str, object], part: Mapping[str, object]) -> dict[str, object]:
    merged = {**part, **into}
    mine, theirs = into.get("properties"), part.get("properties")
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        merged["properties"] = {**theirs, **mine}
    required = [*_sequence(part.get("required")), *_sequence(into.get("required"))]
    if required:
        merged["required"] = list(dict.fromkeys(required))
    return merged


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


# Enough for identifiers, codes and slugs; a pattern beyond these gets the text unchanged.
SAMPLES: Final = (
    "item",
    "Item",
    "ITEM",
    "A1",
    "a1",
    "AB12",
    "item-1",
    "item_1",
    "1",
    "12",
    "123",
    "1234",
    "1.0",
    "1.0.0",
    "v1",
    "v1.0.0",
    "2026-01-15",
    "ABC",
    "ABC-123",
    "a@example.com",
    "#a1b2c3",
    "https://example.com",
    "main.py",
    "/item",
)


def _matching(pattern: str, text: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error:
        return text
    return next((t for t in (text, re.sub(r"\W+", "_", text), *SAMPLES) if compiled.search(t)), text)
