"""`${…}` inside JSON values: one that is the whole string keeps its type, a mixed string becomes text."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from schema.cel.cost import CostBudget
from schema.cel.expressions import ExpressionInvalid, Json, compile_expression, evaluate
from schema.errors import StepError
from schema.values.sizes import MAX_EXACT, check_size

_MARK: Final = re.compile(r"""['"{}\\]""")

Part = str | tuple[str]
"""Literal text, or a one-tuple that holds the source of an expression."""


def split(text: str) -> list[Part]:
    """The parts of a template; `$${` stands for a literal `${`. Raises ExpressionInvalid when unclosed."""
    parts: list[Part] = []
    literal: list[str] = []
    at = 0
    while True:
        start = text.find("${", at)
        if start < 0:
            literal.append(text[at:])
            break
        if start > 0 and text[start - 1] == "$":
            literal.append(text[at : start - 1] + "${")
            at = start + 2
            continue
        literal.append(text[at:start])
        end = _closing_brace(text, start + 2)
        if joined := "".join(literal):
            parts.append(joined)
        literal = []
        parts.append((text[start + 2 : end].strip(),))
        at = end + 1
    if joined := "".join(literal):
        parts.append(joined)
    return parts


def _closing_brace(text: str, at: int) -> int:
    depth, quote, begin = 0, "", at
    while mark := _MARK.search(text, at):
        char, at = mark.group(), mark.end()
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at - 1
            depth -= 1
    raise ExpressionInvalid(
        "expression_syntax",
        f"${{{text[begin : begin + 40]}… without a closing brace",
        "${ … }",
        "Close it, or write $${ for a literal ${.",
    )


def expressions(value: Json, pointer: str = "") -> Iterator[tuple[str, str]]:
    """(JSON pointer, source) of every expression in a JSON value; raises ExpressionInvalid when unclosed."""
    stack: list[tuple[str, Json]] = [(pointer, value)]
    while stack:
        where, item = stack.pop()
        if isinstance(item, str):
            if "${" in item:
                for part in split(item):
                    if isinstance(part, tuple):
                        yield where, part[0]
        elif isinstance(item, Mapping):
            stack.extend((f"{where}/{escape(key)}", item[key]) for key in reversed(list(item)))
        elif isinstance(item, list):
            stack.extend((f"{where}/{index}", item[index]) for index in reversed(range(len(item))))


def count(value: Json, enough: int) -> tuple[int, int]:
    """(number of expressions, their characters) in a JSON value, apart from unclosed ones. A text that opens
    more than `enough` is not read."""
    number = chars = 0
    stack: list[Json] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if (opened := item.count("${")) > enough:
                number, chars = number + opened, chars + len(item)
            elif opened:
                try:
                    sources = [part[0] for part in split(item) if isinstance(part, tuple)]
                except ExpressionInvalid:
                    continue  # refused where it stands, without being compiled
                number, chars = number + len(sources), chars + sum(map(len, sources))
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return number, chars


def escape(key: str) -> str:
    """A key as a JSON pointer writes it (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def as_text(value: Json) -> str:
    """A value inside a mixed string: text as it is, anything else as readable JSON, 1.0 as 1."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT:
        value = int(value)
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, (dict, list)) else None)


def described(value: Json) -> str:
    """A value in a message: of what kind it is, and how it begins."""
    match value:
        case str():
            return f"the text {json.dumps(value[:100], ensure_ascii=False)}"
        case bool() | None:
            return as_text(value)
        case int() | float():
            return f"the number {value}"
        case list():
            return f"a list of {len(value):,}: {as_text(value)[:100]}"
    return f"an object: {as_text(value)[:100]}"


def render(value: Json, scope: Mapping[str, Json]) -> Json:
    """Return the value with every expression replaced by its value. Raises StepError.

    All of them together may cost no more than one, and yield no more than a step may hold.
    """
    budget = CostBudget()

    def resolve(source: str) -> Json:
        return evaluate(compile_expression(source), scope, budget)

    rendered, changed = _render(value, resolve, budget)
    if changed:
        check_size(rendered)
    return rendered


def _render(value: Json, resolve: Callable[[str], Json], budget: CostBudget) -> tuple[Json, bool]:
    """(the value, whether there was an expression in it)"""
    if isinstance(value, str):
        if "${" not in value:
            return value, False
        parts = split(value)
        if len(parts) == 1 and isinstance(parts[0], tuple):
            return resolve(parts[0][0]), True
        return "".join(
            part if isinstance(part, str) else _text(resolve(part[0]), budget) for part in parts
        ), True
    if isinstance(value, Mapping):
        pairs = {key: _render(item, resolve, budget) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(changed for _, changed in pairs.values())
    if isinstance(value, list):
        items = [_render(item, resolve, budget) for item in value]
        return [item for item, _ in items], any(changed for _, changed in items)
    return value, False


def _text(value: Json, budget: CostBudget) -> str:
    """A value within a text, which may hold as much of it as fits the budget."""
    if not budget.spend_on_text(value):
        raise StepError(
            "output_too_large",
            "found a text into which more is put than one step may hold; expected less. Put parts of the "
            "values into it, or pass them on as they are.",
        )
    return as_text(value)
