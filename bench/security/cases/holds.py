"""Hostile definitions, inputs and webhook bodies that try to hold a process: what is sent, and what must come
of each. Whatever comes of it comes soon: no loop may be held longer than 100 ms, no other run may wait."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_KIB: Final = 1024
COMPLETED: Final = "completed"


@dataclass(frozen=True)
class Run:
    """A definition, and an input that it is started with."""

    name: str
    definition: dict[str, Any]
    input: dict[str, Any]
    expected: str
    """COMPLETED, or the code that the upload or the start is refused with or that the run fails with."""


@dataclass(frozen=True)
class Delivery:
    """A webhook's template, and a body that it is called with."""

    name: str
    template: Any
    body: dict[str, Any]
    expected: str
    """The code that the delivery is refused with."""


def runs() -> Iterator[Run]:
    """More than 60 cases, always the same ones."""
    yield from _fences()
    yield from _other_tools()
    yield from _expressions()
    yield from _conditions()
    yield from _templates()
    yield from _schemas()


def _run(name: str, step: dict[str, Any], given: dict[str, Any], expected: str, **more: Any) -> Run:
    slug = "".join(char if char.isalnum() else "-" for char in name.lower())[:50].strip("-")
    definition = {"name": f"holds-{slug}", "steps": {"hold": step}, "output": {"done": True}, **more}
    return Run(name, definition, given, expected)


def _tool(tool: str, **args: Any) -> dict[str, Any]:
    return {"kind": "tool", "tool": tool, "args": args, "timeout": "2s", "retry": {"max_attempts": 1}}


def _fences() -> Iterator[Run]:
    pieces = {
        "opened": "```a\n",
        "closed": "```\n",
        "backticks": "`",
        "one line": "```",
        "blanks": "``` \t",
        "inside": "\n```a",
        "language": "```aaaa",
        "never a line's end": "a",
    }
    for name, piece in pieces.items():
        text = piece * (700 * _KIB // len(piece))
        blocks = _tool("text.code_blocks", text="${input.text}")
        expected = "tool_failed" if name == "closed" else COMPLETED
        yield _run(f"code blocks {name}", blocks, {"text": text}, expected)
        yield _run(f"json {name}", _tool("json.parse", text="${input.text}"), {"text": text}, "tool_failed")


def _other_tools() -> Iterator[Run]:
    for modulus in (100, 120, 150):
        before = "".join(f"line {number % modulus}\n" for number in range(9_000))
        after = "".join(f"line {number * 7 % modulus}\n" for number in range(9_000))
        difference = _tool("text.diff", before="${input.before}", after="${input.after}")
        yield _run(f"difference {modulus}", difference, {"before": before, "after": after}, "tool_failed")
    check = _tool("python.check", source="${input.text}") | {"timeout": "60s"}
    yield _run("findings without number", check, {"text": "import a\n" * 20_000}, COMPLETED)
    yield _run(
        "json of many values",
        _tool("json.parse", text="${input.text}"),
        {"text": "[" + "1," * 300_000 + "1]"},
        "output_too_large",
    )


_ITEMS: Final = list(range(2_000))
_EXPRESSIONS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("input.l.filter(x, input.t.contains(input.p)).size()",
     {"l": [1] * 20, "t": "a" * 200_000, "p": "a" * 100_000 + "b"}),
    ("input.l.filter(x, input.t.contains(input.p)).size()",
     {"l": [1] * 5, "t": "a" * 500_000, "p": "a" * 250_000 + "b"}),
    ("input.l.all(x, !input.t.matches('([a-z]{1,100}){1,9}x'))", {"l": _ITEMS, "t": "a" * 100_000}),
    ("input.l.all(x, !input.t.matches('(?i)([a-z]{1,100}){1,9}x'))", {"l": _ITEMS, "t": "a" * 100_000}),
    ("input.l.all(x, !input.t.matches('\\\\pL{1,10}b'))", {"l": _ITEMS, "t": "a"}),
    ("input.l.all(x, !input.t.matches(input.p))", {"l": _ITEMS, "t": "a", "p": "(a{1,30}){1,30}b" * 50}),
    ("input.t.matches(input.p + 'x')", {"t": "a" * 100_000, "p": "([a-z]{1,100}){1,9}"}),
    ("input.t.matches(input.p)", {"t": "a", "p": "[" * 500_000}),
    ("input.l.map(x, size(input.t)).size()", {"l": _ITEMS, "t": "a" * 400_000}),
    ("input.l.all(x, x in input.m)", {"l": _ITEMS, "m": list(range(30_000))}),
    ("input.l.all(x, input.m == input.n)", {"l": _ITEMS, "m": list(range(9_000)), "n": list(range(9_000))}),
    ("input.l.map(x, input.t.reverse()).size()", {"l": _ITEMS, "t": "a" * 400_000}),
    ("input.l.map(x, input.t.upperAscii()).size()", {"l": _ITEMS, "t": "a" * 400_000}),
    ("input.l.all(x, input.t.lastIndexOf(input.p) < 0)",
     {"l": _ITEMS, "t": "a" * 9_000, "p": "a" * 4_000 + "b" + "a" * 4_000}),
    ("input.l.all(x, input.t.indexOf('b') < 0)", {"l": _ITEMS, "t": "a" * 400_000}),
    ("input.l.all(x, input.t.split('a').size() > 0)", {"l": _ITEMS, "t": "a" * 40_000}),
    ("input.t.split('')", {"t": "a" * 900_000}),
    ("input.t.split('').map(c, c).join('')", {"t": "a" * 9_000}),
    ("{'a': input.m.map(x, x)}", {"m": list(range(9_000))}),
    ("[input.m.filter(x, true), input.m.filter(x, true)]", {"m": list(range(4_000))}),
    ("input.l.map(x, input.l.map(y, y)).size()", {"l": _ITEMS}),
    ("input.l.map(x, input.t)", {"l": _ITEMS, "t": "a" * 400_000}),
    ("input.m.map(x, input.t.contains(x))", {"m": ["a" * 100] * 5_000, "t": "a" * 400_000}),
    ("input.l.all(x, list(input.l).size() > 0)", {"l": _ITEMS}),
    ("input.t.replace('a', input.p)", {"t": "a" * 400_000, "p": "b" * 400_000}),
    ("input.l.map(x, input.t).join(input.t)", {"l": _ITEMS, "t": "a" * 4_000}),
)  # fmt: skip


def _expressions() -> Iterator[Run]:
    for number, (source, input) in enumerate(_EXPRESSIONS):
        step = {"kind": "transform", "value": f"${{{source}}}"}
        yield _run(f"expression {number}", step, input, "expression_failed")


def _conditions() -> Iterator[Run]:
    source, input = _EXPRESSIONS[0]
    never = f"{source} > 1"
    yield _run("when", {"kind": "transform", "value": 1, "when": never}, input, "expression_failed")
    body = {"steps": {"one": {"kind": "transform", "value": 1}}, "output": "${steps.one.output}"}
    loop = {"kind": "loop", "max_iterations": 2, "until": never, "body": body}
    yield _run("until", loop, input, "expression_failed")
    over = {"kind": "map", "over": "input.l.map(x, input.t)", "max_items": 9, "body": body}
    yield _run("over", over, {"l": _ITEMS, "t": "a" * 400_000}, "expression_failed")
    yield _run(
        "output", {"kind": "transform", "value": 1}, input, "expression_failed", output=f"${{{source}}}"
    )


def _templates() -> Iterator[Run]:
    large = {"t": "a" * 600_000, "m": list(range(40_000))}
    templates: dict[str, tuple[Any, str]] = {
        "one text from a thousand": ("${input.t}" * 1_000, "output_too_large"),
        "a list of a thousand": (["${input.t}"] * 1_000, "output_too_large"),
        "numbers in a text": ("${input.m}" * 1_000, "output_too_large"),
        "a list of lists": (["${input.m}"] * 1_000, "output_too_large"),
        "many expressions": (["${input.m.filter(x, x > 5).size()}"] * 1_000, "expression_failed"),
    }
    for name, (template, expected) in templates.items():
        yield _run(f"template {name}", {"kind": "transform", "value": template}, large, expected)


def _schemas() -> Iterator[Run]:
    def any_of(number: int) -> dict[str, Any]:
        return {"anyOf": [{"type": "object", "required": [f"a{one}"]} for one in range(number)]}

    nested: dict[str, Any] = {"type": "array"}
    for _ in range(16):
        nested = {"allOf": [nested], "unevaluatedItems": {"type": "integer"}}
    table: dict[str, tuple[dict[str, Any], Any, str]] = {
        "300 alternatives": ({"items": any_of(300)}, [1] * 2_000, "input_invalid"),
        "900 alternatives": ({"items": any_of(900)}, [1] * 40_000, "input_invalid"),
        "arrays in enum": ({"items": {"enum": [[n, n] for n in range(900)]}}, [[899, 899]] * 5_000,
                           "input_invalid"),
        "wrong everywhere": ({"items": {"type": "string"}}, [1] * 40_000, "input_invalid"),
        "alternatives of lists": ({"anyOf": [{"items": {"type": "string"}}, {"type": "object"}]},
                                  [1] * 40_000, "input_invalid"),
        "a thousand names": ({"required": [f"a{n}" for n in range(1_000)]}, {"x": "t" * 900_000},
                             "input_invalid"),
        "multiples": ({"items": {"multipleOf": 0.0001}}, [1e300] * 40_000, "input_invalid"),
        "patterns": ({"allOf": [{"pattern": f"a{n}(b|c)*d"} for n in range(150)]}, "a" * 900_000,
                     "input_invalid"),
        "names by patterns": ({"patternProperties": {f"^a{n}(b|c)*$": True for n in range(150)}},
                              {"a" * 900 + str(n): 1 for n in range(900)}, "input_invalid"),
        "unique": ({"uniqueItems": True, "items": {"uniqueItems": True}}, [[n] for n in range(20_000)],
                   COMPLETED),
        "unevaluated again and again": (nested, [1] * 1_000, "schema_invalid"),
        "what does not contain": ({"contains": {"anyOf": any_of(200)["anyOf"]}}, [1] * 40_000,
                                  "input_invalid"),
    }  # fmt: skip
    for name, (schema, value, expected) in table.items():
        schema = {"type": "object", "properties": {"value": schema}}
        step = {"kind": "transform", "value": 1}
        yield _run(f"schema {name}", step, {"value": value}, expected, input=schema)


def deliveries() -> Iterator[Delivery]:
    """What unauthenticated callers send to a webhook whose template looks harmless."""
    for number, (source, body) in enumerate(_EXPRESSIONS[:12]):
        yield Delivery(f"delivery {number}", {"made": f"${{{source}}}"}, body, "input_invalid")
