"""Inputs whose reading could take minutes: fences, expressions, schemas, patterns, differences, findings."""

from collections.abc import Iterator
from typing import Any, Final

from bench.security.cases.playing import RunCase

_TEXT_BYTES: Final = 600_000
_PIECES: Final = ("```a\n", "```\n", "```", "``` \t", "\n```a", "[", '{"a":', "\\", "é", "\n", " ")


def cases() -> Iterator[RunCase]:
    """Return the cases. Each is refused or ends, and none may hold an event loop."""
    yield from _texts()
    yield from _expressions()
    yield from _schemas()
    yield from _values()


def _texts() -> Iterator[RunCase]:
    tools: dict[str, dict[str, Any]] = {
        "json.parse": {"text": "${input.text}"},
        "text.code_blocks": {"text": "${input.text}"},
        "text.diff": {"before": "${input.text}", "after": "x${input.text}"},
        "python.check": {"source": "${input.text}"},
    }
    for tool, args in tools.items():
        for piece in _PIECES:
            text = piece * (_TEXT_BYTES // len(piece.encode()))
            document = {"steps": {"a": _tool(tool, args)}}
            yield RunCase(f"{tool} of {piece!r}", document, {"text": text})
    many = "".join(f"line {number % 100}\n" for number in range(15_000))
    other = "".join(f"line {number * 7 % 100}\n" for number in range(15_000))
    args = {"before": "${input.a}", "after": "${input.b}"}
    yield RunCase("a difference", {"steps": {"a": _tool("text.diff", args)}}, {"a": many, "b": other})
    for line in ("x=(1,)\n", "import os\n", "a" * 100 + "=\n", "def f(:\n"):
        source = line * (100_000 // len(line))
        yield RunCase(
            f"findings of {line!r}",
            {"steps": {"a": _tool("python.check", {"source": "${input.t}"})}},
            {"t": source},
        )


def _expressions() -> Iterator[RunCase]:
    for source in (
        "input.l.filter(x, input.t.contains(input.p)).size()",
        "input.l.map(x, input.l.map(y, input.l.filter(z, input.t.contains(input.p)).size()))",
        "input.l.filter(x, input.t.matches('([a-z]{1,100}){1,9}x')).size()",
        "input.l.filter(x, input.t.matches('(a|a|a|b)*c')).size()",
        "input.l.filter(x, input.t.startsWith(input.t)).size()",
        "input.l.filter(x, input.t == input.t + 'a').size()",
        "input.l.map(x, input.t + input.t).size()",
        "input.l.map(x, input.t.size()).size()",
        "input.l.exists(x, x in input.l)",
        "input.l.all(x, input.l.exists(y, y == x))",
        "input.l.map(x, string(input.l)).size()",
        "input.l.filter(x, input.l == input.l).size()",
    ):
        for name, value in (
            ("long", {"l": [1] * 20, "t": "a" * 200_000, "p": "a" * 100_000 + "b"}),
            ("many", {"l": list(range(10_000)), "t": "a" * 50_000, "p": "aaab"}),
        ):
            document = {"steps": {"a": {"kind": "transform", "value": f"${{{source}}}"}}}
            yield RunCase(f"{name}: {source}", document, value)


def _schemas() -> Iterator[RunCase]:
    wide = [{"type": "object", "required": [f"f{number}"]} for number in range(300)]
    arrays = [[number, number] for number in range(1_000)]
    for name, schema, value in (
        ("anyOf", {"items": {"anyOf": wide}}, list(range(2_000))),
        ("oneOf", {"items": {"oneOf": wide}}, list(range(2_000))),
        ("allOf", {"items": {"allOf": wide}}, list(range(2_000))),
        ("not", {"items": {"not": {"anyOf": wide}}}, [{} for _ in range(2_000)]),
        ("enum", {"items": {"enum": arrays}}, [[1, 2]] * 5_000),
        ("const", {"items": {"const": arrays}}, [arrays[:20]] * 500),
        ("uniqueItems", {"uniqueItems": True}, [{"a": number} for number in range(5_000)]),
        ("contains", {"contains": {"enum": arrays}}, [[1, 2]] * 5_000),
        ("pattern", {"items": {"pattern": "^(a|a)*$"}}, ["a" * 5_000] * 20),
        ("pattern in turn", {"items": {"pattern": "([a-z]{1,50}){1,9}x"}}, ["a" * 20_000] * 20),
        ("names", {"items": {"patternProperties": {f"^{n}": {} for n in range(200)}}}, [{"a": 1}] * 2_000),
        ("many faults", {"items": {"type": "string"}}, list(range(50_000))),
    ):  # fmt: skip
        document = {
            "input": {"type": "object", "properties": {"v": {"type": "array", **schema}}},
            "steps": {"a": {"kind": "transform", "value": 1}},
        }
        yield RunCase(f"schema: {name}", document, {"v": value})


def _values() -> Iterator[RunCase]:
    echo = {"steps": {"a": {"kind": "transform", "value": "${input}"}}}
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    keys = {f"k{number}": number for number in range(50_000)}
    for name, value in (
        ("deep", {"v": deep}), ("many keys", keys), ("a long text", {"v": "x" * 900_000}),
        ("a large number", {"v": 10**300}), ("many numbers", {"v": [0.1] * 200_000}),
        ("controls", {"v": "\u202e\x1b[2J" * 1_000}), ("half a pair", {"v": "a" * 1_000}),
    ):  # fmt: skip
        yield RunCase(f"value: {name}", echo, value)


def _tool(name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "tool", "tool": name, "args": args, "retry": {"max_attempts": 1}, "timeout": "20s"}
