"""Documents that must be refused, made up to crash, stall or fool the validator."""
# ruff: noqa: E501 - the cases are a table.

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Upload:
    name: str
    data: bytes
    is_yaml: bool = False


def uploads() -> Iterator[Upload]:
    """At least 300 documents that must be refused, always the same ones, made one at a time."""
    for group in (
        _bytes,
        _yaml,
        _wrong_types,
        _wide,
        _graphs,
        _expressions,
        _many_expressions,
        _schemas,
        _names,
        _bodies,
        _kinds,
    ):
        for name, content in group():
            yield _upload(f"{group.__name__.strip('_')}: {name}", content, is_yaml=group is _yaml)


def large(number: int, *, faulty: bool) -> dict[str, Any]:
    """A definition of so many steps of most kinds that is valid, or has faults all over. Each has expressions
    of its own, as nothing of a new upload is cached."""
    wrong = "no_such_root." if faulty else ""
    steps: dict[str, Any] = {"s0": _transform("${input.start}")}
    for at in range(1, number):
        before = f"steps.s{at - 1}"
        body = {f"b{at}": _transform(f"${{item}} of {at} ${{{wrong}steps.s0.output}}")}
        kinds: tuple[dict[str, Any], ...] = (
            {
                "kind": "agent",
                "agent": "g",
                "prompt": f"Go on with ${{{before}.output}} and ${{input.x{at}}}",
            },
            {
                "kind": "tool",
                "tool": "text.diff",
                "args": {"before": f"${{string({before}.status)}}", "after": "b"},
            },
            {"kind": "switch", "cases": [{"when": f"{wrong}input.n{at} > {at}", "then": "a"}], "else": "b"},
            {
                "kind": "map",
                "needs": [f"s{at - 1}:a"],
                "over": f"input.l{at}",
                "max_items": 9,
                "body": {"steps": body},
            },
            _transform({"text": f"{at}: ${{{before}.output}}"}, when=f"{wrong}size(input.y{at}) > {at}"),
        )
        steps[f"s{at}"] = kinds[(at - 1) % len(kinds)]
    return _definition(steps=steps, agents={"g": {"role": "coder"}})


def _upload(name: str, content: Any, *, is_yaml: bool) -> Upload:
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        content = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Upload(name, content, is_yaml)


Case = tuple[str, Any]
_STEP: Final = {"kind": "transform", "value": 1}


def _definition(**fields: Any) -> dict[str, Any]:
    return {"name": "hostile", "steps": {"a": _STEP}} | fields


def _transform(value: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": value} | fields


def _bytes() -> Iterator[Case]:
    """Before there is a JSON value at all."""
    yield "nothing", b""
    yield "white space", b" \n\t"
    yield "only a byte order mark", b"\xef\xbb\xbf"
    yield "UTF-16", json.dumps(_definition()).encode("utf-16")
    yield "UTF-32", json.dumps(_definition()).encode("utf-32")
    yield "two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbf{}"
    yield "10 MB of letters", b"x" * 10_000_000
    yield "10 MB of a valid start", b'{"name":"hostile","description":"' + b"x" * 10_000_000
    yield "one byte too many", json.dumps(_definition(description="x" * 524_288)).encode()
    for depth in (41, 100, 1_000, 100_000, 500_000):
        yield f"{depth} lists", b"[" * depth + b"]" * min(depth, 1_000)
    for depth in (41, 200, 5_000, 80_000):
        yield f"{depth} maps", b'{"a":' * depth + b"1" + b"}" * min(depth, 1_000)
    yield "deep in a value", _definition(steps={"a": _transform(json.loads("[" * 60 + "]" * 60))})
    for number in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "9" * 31,
        "9" * 5_000,
        "9" * 400_000,
        "0." + "1" * 400,
        "1e" + "9" * 400,
        "-" + "8" * 100,
    ):
        yield (
            f"the number {number[:12]}",
            f'{{"name":"hostile","steps":{{"a":{{"kind":"transform","value":{number}}}}}}}',
        )
    for text in (
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "1_000",
        "'a'",
        "undefined",
        "True",
        "None",
        "{a:1}",
        "[1,]",
        '{"a":1,}',
        "{} {}",
        "{}x",
        "/* c */ {}",
        "// c\n{}",
        '"\t"',
        '"\\x41"',
        '"unclosed',
        "{",
        "[",
        "}",
        ",",
        ":",
        '{"a"}',
        '{"a":}',
        '{"a" 1}',
        "<xml/>",
        "name: hostile",
        "PK\x03\x04",
        "%PDF-1.7",
        "\x1f\x8b\x08",
    ):
        yield f"not JSON: {text[:12]!r}", text
    for junk in (
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80" * 1_000,
        b'{"name":"\xff"}',
    ):
        yield f"not UTF-8: {junk[:4]!r}", junk
    yield "NUL in a value", b'{"name":"hostile","steps":{"a":{"kind":"transform","value":"\\u0000"}}}'
    yield "NUL in a key", b'{"name":"hostile","x\\u0000":1}'
    yield "half a surrogate pair", b'{"name":"hostile","steps":{"a":{"kind":"transform","value":"\\ud800"}}}'
    yield "half a surrogate pair in a key", b'{"name":"hostile","\\udfff":1}'
    yield "the same key twice", b'{"name":"a","name":"hostile","steps":{}}'
    yield "the same key twice, spelt differently", b'{"name":"a","n\\u0061me":"hostile","steps":{}}'
    yield (
        "the same step twice",
        b'{"name":"a","steps":{"a":{"kind":"transform","value":1},"a":{"kind":"transform","value":2}}}',
    )
    yield "the same key 50,000 times", b"{" + b",".join([b'"a":1'] * 50_000) + b"}"
    yield "100,000 values", b"[" + b",".join([b"0"] * 100_000) + b"]"
    yield "200,000 empty lists", b"[" + b",".join([b"[]"] * 170_000) + b"]"


def _yaml() -> Iterator[Case]:
    step = "name: hostile\nsteps: {a: {kind: transform, value: %s}}"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
    )
    yield "a billion laughs", bomb
    yield "an alias to itself", "a: &a [*a]"
    yield "an anchor", step % "&x 1"
    yield "a merge key with an alias", "a: &a {b: 1}\nc: {<<: *a}"
    for tag in (
        "!!python/object/apply:os.system [ls]",
        "!!python/name:os.system",
        "!!binary aGVsbG8=",
        "!!set {b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!timestamp 2020-01-01",
        "!!int x",
        "!!int 5",
        "!!float x",
        "!!bool x",
        "!!null x",
        "!!map x",
        "!!seq x",
        "!!str 1",
        "!custom {a: 1}",
        "! x",
        "!<tag:x> y",
        "!!js/function 'x'",
        "!include /etc/passwd",
        "!" + "x" * 60_000 + " b",
    ):
        yield f"the tag {tag[:24]}", step % tag
    for number in (
        ".inf",
        "-.Inf",
        ".NAN",
        "1.0e+999",
        "9" * 31,
        "9" * 6_000,
        "-" + "9" * 60_000,
        "1." + "1" * 60_000,
    ):
        yield f"the number {number[:12]}", step % number
    for text in (
        "? [a]\n: b",
        "? {a: b}\n: c",
        "{[a]: b}",
        "? ? ? a",
        "--- a\n--- b",
        "%YAML 9.9\n---\na",
        "\t",
        "a: b: c",
        'a: "\\ud800"',
        'a: "\\0"',
        "a: '",
        "a: [",
        "a: {",
        "- a\nb",
        "@",
        "`",
        "a: @b",
        "a: %b",
        "&",
        "*",
        "!",
        "|",
        ">",
        "a: \x01",
        "\x00",
        "{}}",
        "a: 1\na: 2",
        "1: a\n'1': b",
        "~",
        "null",
        "text",
        "- 1\n- 2",
        "name: yes",
        "{? }",
    ):
        yield f"{text[:16]!r}", text
    for opener in ("[", "{", "- ", "? ", "[{a: ", "[[], "):
        yield f"nested {opener!r}", opener * (60_000 // len(opener))
    yield "64 KiB and one", "a" * 65_537
    yield "20,000 lines", "- a\n" * 16_000
    yield "a key of 60,000 letters", "a" * 60_000 + ": 1"
    yield "a quoted text without an end", '"' + "a" * 60_000
    yield "sexagesimal", "a: " + "1:" * 30_000 + "1"
    yield "hexadecimal", "a: 0x" + "9" * 60_000
    yield "many documents", "---\n" * 16_000
    yield "many comments", "#\n" * 30_000


def _wrong_types() -> Iterator[Case]:
    """Every field of the language with values that it cannot have."""
    values: tuple[Any, ...] = (None, True, -1, 1e300, "", "\u202e", [], [[]], {}, {"": None}, [None] * 300)
    agent = {"kind": "agent", "agent": "g", "prompt": "x"}
    places: tuple[tuple[str, Callable[[Any], Any], tuple[int, ...]], ...] = (
        ("document", lambda v: v, tuple(range(11))),
        ("name", lambda v: _definition(name=v), tuple(range(11))),
        ("steps", lambda v: _definition(steps=v), tuple(range(11))),
        ("step", lambda v: _definition(steps={"a": v}), tuple(range(11))),
        ("kind", lambda v: _definition(steps={"a": {"kind": v}}), tuple(range(11))),
        ("agents", lambda v: _definition(agents=v), (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)),
        ("agent", lambda v: _definition(agents={"g": v}), tuple(range(11))),
        ("model", lambda v: _definition(agents={"g": {"model": v}}), (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)),
        ("language", lambda v: _definition(language=v), tuple(range(11))),
        ("input", lambda v: _definition(input=v), (0, 1, 2, 3, 4, 5, 6, 7, 10)),
        ("defaults", lambda v: _definition(defaults=v), (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)),
        ("stream", lambda v: _definition(stream=v), (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)),
        ("needs", lambda v: _definition(steps={"a": _transform(1, needs=v)}), (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)),
        ("when", lambda v: _definition(steps={"a": _transform(1, when=v)}), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
        ("timeout", lambda v: _definition(steps={"a": _transform(1, timeout=v)}), tuple(range(1, 11))),
        ("retry", lambda v: _definition(steps={"a": _transform(1, retry=v)}), (1, 2, 3, 4, 5, 6, 7, 9, 10)),
        ("prompt", lambda v: _definition(steps={"a": agent | {"prompt": v}}, agents={"g": {"role": "coder"}}),
         (0, 1, 2, 3, 6, 7, 8, 9, 10)),
        ("agent of a step", lambda v: _definition(steps={"a": agent | {"agent": v}}), tuple(range(11))),
        ("tool", lambda v: _definition(steps={"a": {"kind": "tool", "tool": v}}), tuple(range(11))),
        ("short form", lambda v: _definition(steps=[{"agent": v}]), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
        ("stream_to", lambda v: [{"agent": "coder", "stream_to": v}], tuple(range(11))),
    )  # fmt: skip
    for place, make, which in places:
        for index in which:
            yield f"{place} {json.dumps(values[index])[:20]}", make(values[index])


def _wide() -> Iterator[Case]:
    """So many of something that each must not become a problem of its own."""
    many = {f"f{i}": 1 for i in range(40_000)}
    yield "40,000 fields", _definition(**many)
    yield "40,000 fields of a step", _definition(steps={"a": _STEP | many})
    yield "40,000 fields of an agent", _definition(agents={"a": many})
    yield "40,000 fields of defaults", _definition(defaults=many)
    yield "40,000 fields of retry", _definition(steps={"a": _STEP | {"retry": many}})
    yield "40,000 arguments", _definition(steps={"a": {"kind": "tool", "tool": "http", "args": many}})
    yield (
        "1,000 steps with 20 strange fields",
        _definition(steps={f"a{i}": _STEP | {f"f{j}": 1 for j in range(20)} for i in range(1_000)}),
    )
    yield "40,000 steps", _definition(steps=many)
    yield "100,000 steps", b'{"steps":{' + b",".join(b'"%x":1' % i for i in range(50_000)) + b"}}"
    yield "10,000 agents", _definition(agents={f"g{i}": {"model": f"x{i}/y"} for i in range(10_000)})
    yield "5,000 wrong edges", _definition(stream=[1] * 5_000)
    yield (
        "5,000 edges to nowhere",
        _definition(stream=[{"from": f"z{i}", "to": f"y{i}"} for i in range(5_000)]),
    )
    yield "40,000 edges", _definition(stream=[1] * 40_000)
    yield (
        "40,000 unknown needs",
        _definition(
            steps={f"a{i}": _transform(1, needs=[f"zz{j}" for j in range(40)]) for i in range(1_000)}
        ),
    )
    yield (
        "40,000 wrong needs",
        _definition(steps={f"a{i}": _transform(1, needs=[1] * 40) for i in range(1_000)}),
    )
    yield "1,000 strange kinds", _definition(steps={f"a{i}": {"kind": f"k{i}"} for i in range(1_000)})
    yield "1,000 steps without a kind", _definition(steps={f"a{i}": {} for i in range(1_000)})
    yield (
        "1,000 empty maps",
        _definition(steps={f"a{i}": {"kind": "map", "join": 1} for i in range(1_000)}),
    )
    yield (
        "1,000 unknown agents",
        _definition(
            steps={f"a{i}": {"kind": "agent", "agent": f"q{i}", "prompt": "x"} for i in range(1_000)},
            agents={f"g{i}": {"role": "coder"} for i in range(200)},
        ),
    )
    yield (
        "1,000 unknown tools",
        _definition(steps={f"a{i}": {"kind": "tool", "tool": f"t{i}"} for i in range(1_000)}),
    )
    yield "a list of 20,000 agents", [{"agent": f"a{i}"} for i in range(20_000)]
    yield "a stream to 40,000", [{"agent": "a", "stream_to": ["b"] * 40_000}]
    yield (
        "everyone streams to everyone",
        [{"agent": f"a{i}", "stream_to": [f"a{j}" for j in range(200)]} for i in range(200)],
    )
    yield "49,000 numbers for a list of agents", list(range(49_000))
    yield "a key of 400,000 letters", _definition(**{"k" * 400_000: 1})
    yield "a step id of 400,000 letters", _definition(steps={"k" * 400_000: _STEP})
    yield "a name of 400,000 letters", _definition(name="k" * 400_000)
    yield "a kind of 400,000 letters", _definition(steps={"a": {"kind": "k" * 400_000}})
    yield "a model of 400,000 letters", _definition(agents={"a": {"model": "k" * 400_000}})
    yield "a tool of 400,000 letters", _definition(steps={"a": {"kind": "tool", "tool": "k" * 400_000}})
    yield "a need of 400,000 letters", _definition(steps={"a": _transform(1, needs=["k" * 400_000])})
    yield "a timeout of 400,000 digits", _definition(steps={"a": _transform(1, timeout="9" * 400_000)})
    yield "a description of 500,000 letters", _definition(description="x" * 500_000)
    yield "100 keys of 4,000 letters", _definition(**{f"{i}" + "k" * 4_000: 1 for i in range(60)})


def _graphs() -> Iterator[Case]:
    def steps(count: int, needs: Callable[[int], list[int]]) -> Any:
        return _definition(
            steps={f"a{i}": _transform(1, needs=[f"a{j}" for j in needs(i)]) for i in range(count)}
        )

    yield "needs itself", steps(1, lambda i: [0])
    yield "two in a circle", steps(2, lambda i: [1 - i])
    yield "1,000 in a circle", steps(1_000, lambda i: [(i + 1) % 1_000])
    yield "500 circles", steps(1_000, lambda i: [i ^ 1])
    yield "everyone needs everyone", steps(190, lambda i: list(range(190)))
    yield "a thick circle", steps(400, lambda i: [(i + j) % 400 for j in range(1, 100)])
    yield "a long way to a circle", steps(1_000, lambda i: [max(i - 1, 0)])
    yield (
        "a circle of references",
        _definition(steps={f"a{i}": _transform(f"${{steps.a{(i + 1) % 300}.output}}") for i in range(300)}),
    )
    yield (
        "a circle of optional references",
        _definition(
            steps={"a": _transform("${steps[?'b'].output}"), "b": _transform("${steps[?'a'].output}")}
        ),
    )
    yield (
        "the seed's circle",
        [{"agent": "coder", "stream_to": ["reviewer"]}, {"agent": "reviewer", "stream_to": ["coder"]}],
    )


def _expressions() -> Iterator[Case]:
    """One expression each, in a value and as a condition."""
    doubling = "v12"
    for i in range(12, 0, -1):
        doubling = f"[v{i - 1} + v{i - 1}].map(v{i}, {doubling})"
    sources = (
        "", " ", "(", ")", "1 +", "input.", "steps.", "steps..a", "x", "x.y", "steps", "steps['a' + 'b']",
        "steps[input.x].output", "steps.map(s, s)", "steps.zzz.output", "run.secret", "env.PATH", "__import__('os')",
        "import('os')", "eval('1')", "input.map(k, k)", "run.filter(k, true)", "{'a': 1}.map(k, k)", "now()",
        "timestamp.now()", "random()", "1 + 'a'", "!1", "true ? 1", "'a", "'''a", "\"\\ud800\"", "'\\q'", "a b",
        "1 = 1", "x := 1", "lambda x: x", "for x in y", "function(){}", "`x`", "$x", "#x", "@x", "\\", "\x7f",
        "input.x.map(1, 1)", "input.x.map(y)", "[1, 2", "{1: }", "9223372036854775808", "'x'.format([1])",
        "(" * 40 + "1" + ")" * 40, "(" * 900 + "1" + ")" * 900, "[" * 990 + "]" * 990, "{'a':" * 300 + "1" + "}" * 300,
        "1" + "+1" * 990, "1" + "-1" * 990, "true" + "&&tru" * 300, "-(" * 600 + "1" + ")" * 600, "true?" * 200 + "1" + ":1" * 200,
        "input" + ".a" * 900, "input" + "[0]" * 600, "x" * 1_999, "x" * 2_001, "'" + "x" * 400_000 + "'", "[1].map(x, " * 150 + "1" + ")" * 150,
        f"[input.text].map(v0, {doubling})", "input.a.map(x, " * 40 + "1" + ")" * 40, "é" * 1_000, "🦀", "\u202e1", "１ + 1",
        "input.a\u200b", "null.x.y.z()", "google.protobuf.Any{x: 1}", "1/*" + "x" * 1_000,
    )  # fmt: skip
    for source in sources:
        yield f"value {source[:24]!r}", _definition(steps={"a": _transform(f"${{{source}}}")})
        yield f"when {source[:24]!r}", _definition(steps={"a": _transform(1, when=source)})
    for source in ("1", "'true'", "[true]", "{}", "1 + 1", "duration('1s')", "null"):
        yield f"when {source!r}", _definition(steps={"a": _transform(1, when=source)})
    for text in (
        "${",
        "a ${",
        "${'}",
        '${"',
        "${{}",
        "${a",
        "${" * 100_000,
        '${"' + "a" * 400_000,
        "${'" + "\\" * 300_000,
    ):
        yield f"text {text[:12]!r}", _definition(steps={"a": _transform(text)})


def _many_expressions() -> Iterator[Case]:
    def steps(count: int, text: Callable[[int], str]) -> Any:
        return _definition(steps={f"a{i}": _transform(text(i)) for i in range(count)})

    yield "100,000 in one text", _definition(output="${1}" * 100_000)
    yield "100,000 behind an unclosed one", _definition(description="${", output="${1}" * 100_000)
    yield "2,001", steps(1_000, lambda i: "${1}${2}${3}")
    yield "64,001 characters", steps(40, lambda i: f"${{'{i}{'x' * 1_900}'}}")
    yield "2,000 of unknown roots", steps(1_000, lambda i: f"${{foo.x{i}}}${{bar.y{i}}}")
    yield "2,000 with faults", steps(1_000, lambda i: f"${{1+{i}+}}${{((({i}}}")
    yield "2,000 of unknown steps", steps(1_000, lambda i: f"${{steps.b{i}.output}}${{steps.c{i}.output}}")
    yield "2,000 of unknown fields", steps(1_000, lambda i: f"${{run.x{i}}}${{run.y{i}}}")
    yield "33 long sums", steps(33, lambda i: f"${{{i}{'+1' * 950}}}")
    yield "140 deep brackets", steps(140, lambda i: f"${{{'(' * 200}{i}{')' * 200}}}")
    yield "33 long negations", steps(33, lambda i: f"${{{'-(' * 3 + '!' * 1_900}{i}}}")
    yield "33 nested macros", steps(33, lambda i: f"${{{'[1].map(x,' * 150}{i}{')' * 150}}}")
    yield "33 long texts", steps(33, lambda i: f"${{x{i} + '{'x' * 1_900}'}}")
    yield "1,000 conditions", _definition(steps={f"a{i}": _transform(1, when=f"x{i}") for i in range(1_000)})


def _schemas() -> Iterator[Case]:
    """JSON Schemas: slow patterns, references that lead outside, in circles, or multiply."""
    doubled: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    schemas: tuple[Case, ...] = (
        ("a strange type", {"type": "objekt"}),
        ("types of numbers", {"type": 5}),
        ("properties in a list", {"properties": []}),
        ("required as a text", {"required": "a"}),
        ("a negative length", {"minLength": -1}),
        ("a schema that is a text", {"items": "x"}),
        ("a pattern that is none", {"pattern": "("}),
        ("a pattern that is a number", {"pattern": 1}),
        ("look ahead", {"pattern": "(?=a)b"}),
        ("look behind", {"pattern": "(?<=a)b"}),
        ("a back reference", {"pattern": r"(a+)+\1"}),
        ("a huge repetition", {"pattern": "((a{1,100}){1,100}){1,100}"}),
        ("a huge class", {"pattern": r"(\p{L}{1,100}){1,100}"}),
        ("a million times", {"pattern": "a{1000000}"}),
        ("a billion times", {"pattern": "(a{1000}){1000}{1000}"}),
        ("a long pattern", {"pattern": "(" * 10_000 + ")" * 10_000}),
        ("a remote reference", {"$ref": "https://example.com/x.json"}),
        ("a file", {"$ref": "file:///etc/passwd"}),
        ("a relative reference", {"$ref": "other.json"}),
        ("a reference to nothing", {"$ref": "#/$defs/x"}),
        ("an inner service", {"$ref": "http://169.254.169.254/latest/meta-data"}),
        ("an anchor", {"$ref": "#x", "$anchor": "x"}),
        ("a dynamic reference", {"$dynamicRef": "#x"}),
        ("itself", {"$ref": "#"}),
        ("itself twice", {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        (
            "a circle",
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        ),
        ("a tree", {"properties": {"a": {"$ref": "#"}}}),
        ("2 to the 30th", {"$defs": doubled | {"d30": {}}, "$ref": "#/$defs/d0"}),
        ("300 patterns", {"properties": {f"p{i}": {"pattern": f"^{i}$"} for i in range(300)}}),
        (
            "200 large patterns",
            {"properties": {f"p{i}": {"pattern": rf"(\p{{L}}{{1,20}}){{1,9}}{i}"} for i in range(200)}},
        ),
        ("12,000 strange types", {"properties": {f"p{i}": {"type": "strin"} for i in range(12_000)}}),
        ("40,000 values", {"enum": list(range(40_000))}),
        (
            "9,000 properties and a fault",
            {"properties": {f"p{i}": {} for i in range(9_000)}, "type": "strin"},
        ),
    )
    for name, schema in schemas:
        yield f"input {name}", _definition(input=schema)
        tool = {"kind": "tool", "tool": "json.parse", "args": {"text": "x"}, "output_schema": schema}
        yield f"output {name}", _definition(steps={"a": tool})


def _names() -> Iterator[Case]:
    """Tricks with names and keys."""
    for name in (
        "",
        " ",
        "A",
        "a b",
        "a.b",
        "a/b",
        "../x",
        "a@1",
        "-a",
        "_a",
        "é",
        "а",
        "a\u200b",
        "a\u202e",
        "ａ",
        "a" * 64,
        "a\n",
        "a'; DROP TABLE workflows; --",
        "${input.x}",
        "{{x}}",
        "%s",
        "a%00",
        "con\\n",
        "İ",
        "ſ",
        "ß",
        "🦀",
    ):
        yield f"name {name[:12]!r}", _definition(name=name)
        yield f"step {name[:12]!r}", _definition(steps={name: _STEP})
    for key in (
        "__proto__",
        "constructor",
        "prototype",
        "__class__",
        "__init__",
        "toString",
        "$ref",
        "$where",
        "model_config",
        "model_fields",
        "self",
        "cls",
        "Name",
        "NAME",
        "nаme",
        "name ",
        "",
        "editor_schema",
        "source",
    ):
        yield f"field {key!r}", _definition(**{key: {"isAdmin": True}})
        yield f"field of a step {key!r}", _definition(steps={"a": _STEP | {key: {"polluted": True}}})
    for word in ("in", "for", "if", "null", "true", "__proto__", "1a"):
        yield f"step id {word}", _definition(steps={word: _STEP})
    for model in (
        "gpt-4",
        "/",
        "openai/",
        "/gpt-4",
        "evil/gpt",
        "http://x/y",
        "openai/" + "x" * 300,
        "OPENAI/gpt-4",
    ):
        yield f"model {model[:16]}", _definition(agents={"g": {"model": model}})
    for tool in ("os.system", "../http", "HTTP", "http ", "subprocess", "__import__"):
        yield f"tool {tool}", _definition(steps={"a": {"kind": "tool", "tool": tool}})


def _map(body: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "map", "over": "input.x", "max_items": 1, "body": {"steps": body}} | fields


def _bodies() -> Iterator[Case]:
    """Bodies inside bodies, too many of them, and what reaches into them or out of them."""

    def nested(depth: int, kind: str = "map") -> Any:
        step: Any = _STEP
        for level in range(depth):
            step = _map({f"s{level}": step}) | {"kind": kind}
        return _definition(steps={"top": step})

    for depth in (5, 9, 12):
        yield f"{depth} maps in each other", nested(depth)
        yield f"{depth} loops in each other", nested(depth, "loop")
        yield f"{depth} strangers in each other", nested(depth, "mapp")
    wide = {f"m{i}": _map({f"a{i}_{j}": _STEP for j in range(40)}) for i in range(40)}
    yield "1,600 steps in 40 bodies", _definition(steps=wide)
    yield "a body of 300", _definition(steps={"m": _map({f"a{i}": _STEP for i in range(300)})})
    yield "a body of 9,000", _definition(steps={"m": _map({f"a{i}": 1 for i in range(9_000)})})
    yield "450 bodies with the same ids", _definition(steps={f"m{i}": _map({"a": _STEP}) for i in range(450)})
    yield "450 empty bodies", _definition(steps={f"m{i}": _map({}) for i in range(450)})
    bodies: tuple[Any, ...] = (
        None,
        1,
        "x",
        [],
        [1],
        {"steps": []},
        {"steps": 1},
        {"steps": {"a": None}},
        {"stepps": {}},
    )
    for body in bodies:
        yield f"the body {json.dumps(body)}", _definition(steps={"m": _map({}) | {"body": body}})
    yield (
        "499 steps that read into a body",
        _definition(
            steps={"m": _map({"a": _STEP})} | {f"z{i}": _transform("${steps.a.output}") for i in range(499)}
        ),
    )
    yield (
        "499 steps of bodies that read each other",
        _definition(
            steps={
                f"m{i}": _map({f"a{i}": _transform(f"${{steps.a{(i + 1) % 499}.output}}")})
                for i in range(499)
            }
        ),
    )
    yield (
        "499 bodies in a circle",
        _definition(
            steps={
                f"m{i}": _map({f"a{i}": _transform(f"${{steps.m{(i + 1) % 499}.output}}")})
                for i in range(499)
            }
        ),
    )
    deep: Any = {
        f"a{i}": _transform(f"${{steps.a{(i + 1) % 190}.output}} ${{steps.nowhere}}") for i in range(190)
    }
    for level in range(4):
        deep = {f"m{level}": _map(deep)}
    yield "a circle four bodies deep", _definition(steps=deep)
    endless: Any = _STEP
    for level in range(4):
        endless = _map({f"b{level}": endless}, max_items=10_000)
    yield "10,000 to the fourth", _definition(steps={"m": endless})
    yield (
        "a loop of 100,000 times 3",
        _definition(
            steps={
                "l": {
                    "kind": "loop",
                    "max_iterations": 100_000,
                    "body": {"steps": dict.fromkeys("abc", _STEP)},
                }
            }
        ),
    )


def _kinds() -> Iterator[Case]:
    """Far too much of what each kind has."""
    many = [f"x{i}" for i in range(20_000)]

    def one(**fields: Any) -> Any:
        return _definition(steps={"a": fields})

    def ask(**fields: Any) -> Any:
        return one(kind="human", title="x", **fields)

    def every(step: Callable[[int], Any], count: int = 500) -> Any:
        return _definition(steps={f"a{i}": step(i) for i in range(count)})

    yield "20,000 assignees", ask(assignees=many)
    yield "100 strange assignees", ask(assignees=many[:100])
    yield "10,000 actions", ask(actions=[{"id": "x"}] * 10_000)
    yield (
        "20 actions that require 50 fields each",
        ask(actions=[{"id": f"a{i}", "requires": many[:50]} for i in range(20)]),
    )
    yield "20,000 things to show", ask(show=dict.fromkeys(many, 1))
    yield "a form of 20,000", ask(form={"type": "object", "properties": {key: {} for key in many}})
    yield "a form that is none", ask(form={"type": "object", "properties": 1})
    yield (
        "200 strange forms",
        every(lambda i: {"kind": "human", "title": "x", "form": {"type": f"t{i}"}}, 200),
    )
    yield "20,000 cases", one(kind="switch", cases=[{"when": "true", "then": "a"}] * 10_000, **{"else": "b"})
    yield (
        "50 strange cases each",
        every(lambda i: {"kind": "switch", "cases": [{"when": f"x{i}", "then": "a"}] * 4, "else": "b"}, 480),
    )
    yield (
        "10,000 rules of errors",
        one(kind="transform", value=1, catch=[{"errors": ["*"], "value": 1}] * 10_000),
    )
    yield (
        "10,000 strange errors",
        every(
            lambda i: _transform(
                1, catch=[{"errors": [f"provider_{i}_{j}" for j in range(40)], "then": "zz"}]
            ),
            400,
        ),
    )
    yield (
        "25,000 nearly known errors",
        every(
            lambda i: _transform(1, catch=[{"errors": [f"timeou{j}" for j in range(50)], "value": 1}]), 500
        ),
    )
    yield (
        "everyone hands over to the next",
        every(lambda i: _transform(1, catch=[{"errors": ["*"], "then": f"a{(i + 1) % 500}"}])),
    )
    yield (
        "everyone hands over to one",
        every(lambda i: _transform(1, catch=[{"errors": ["*"], "then": "a0"}])),
    )
    yield "2,000 strange branches", every(lambda i: _transform(1, needs=[f"a{i - 1}:x{j}" for j in range(4)]))
    yield "a quorum of a million", one(kind="transform", value=1, join={"quorum": 1_000_000})
    yield "500 quorums of nothing", every(lambda i: _transform(1, join={"quorum": 3}))
    yield (
        "20 expectations each",
        every(
            lambda i: {
                "kind": "agent",
                "agent": "g",
                "prompt": "x",
                "reflect": {"expect": [{"that": f"x{j}", "message": "m"} for j in range(4)]},
            },
            490,
        ),
    )
    yield (
        "5,000 expectations",
        one(kind="agent", agent="g", prompt="x", reflect={"expect": [{"that": "1", "message": "m"}] * 5_000}),
    )
    yield (
        "500 compensations",
        every(
            lambda i: {
                "kind": "tool",
                "tool": "pause",
                "args": {"seconds": 0},
                "compensate": {"tool": "pause", "args": {"seconds": f"${{steps.a{(i + 7) % 500}.output}}"}},
            }
        ),
    )
    yield "500 strange refs", every(lambda i: {"kind": "collaboration", "ref": f"../{i}"})
    yield "a ref of 400,000 letters", one(kind="collaboration", ref="x" * 400_000)
    yield "a definition inside", one(kind="collaboration", definition=json.loads("[" * 30 + "]" * 30))
    yield "500 waits for nothing", every(lambda i: {"kind": "wait"})
    yield "a wait of 400,000 digits", one(kind="wait", **{"for": "9" * 200_000 + "s"})
    yield (
        "20,000 people to ask for money",
        _definition(budget={"usd": 1, "on_exceed": "ask", "assignees": many}),
    )
    budgets: tuple[Any, ...] = (
        {},
        [],
        1,
        {"usd": -1},
        {"usd": "1"},
        {"tokens": 0},
        {"time": "1y"},
        {"usd": 1, "on_exceed": "go on"},
    )
    for budget in budgets:
        yield f"the budget {json.dumps(budget)}", _definition(budget=budget)
    for key in ("over", "until", "cases", "body", "form", "show", "for", "cache", "emits", "escalate_to"):
        yield f"{key} of a transform", one(kind="transform", value=1, **{key: {}})
