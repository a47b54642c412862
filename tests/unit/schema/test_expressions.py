import pickle
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.cel.expressions import ExpressionInvalid, compile_expression, evaluate, lookup
from schema.cel.syntax_tree import Reference
from schema.errors import StepError

SCOPE: dict[str, Any] = {
    "input": {"n": 3, "task": "sort", "list": [3, 1, 2], "map": {"b": 2, "a": 1}, "none": None, "flag": True},
    "steps": {
        "review": {"output": {"issues": [{"severity": "high"}, {"severity": "low"}]}, "status": "completed"},
        "code": {"output": "text", "status": "completed"},
    },
    "run": {"id": "r1", "name": "hello", "version": "1", "tenant": "t"},
    "item": {"id": 7, "tags": ["x", "y"]},
    "index": 2,
    "iter": {"index": 1, "carry": {"q": 0.5}, "previous": None},
    "output": ["p", "q"],
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.n", 3),
        ("input.n + 1", 4),
        ("input['task'] == 'sort'", True),
        ("input.none", None),
        ("steps.review.output.issues.exists(i, i.severity == 'high')", True),
        ("steps.review.output.issues.map(i, i.severity)", ["high", "low"]),
        ("steps.review.output.issues.filter(i, i.severity == 'low')[0]", {"severity": "low"}),
        ("size(steps.review.output.issues)", 2),
        ("entries(input.map)", [{"key": "a", "value": 1}, {"key": "b", "value": 2}]),
        ("entries(input.map).map(e, e.key)", ["a", "b"]),
        ("list(input.list).map(i, i * 2)", [6, 2, 4]),
        ("input.map", {"a": 1, "b": 2}),
        ("{'z': 1, 'y': [input.n]}", {"y": [3], "z": 1}),
        ("steps[?'nothing'].output.orValue('none')", "none"),
        ("steps[?'code'].output.orValue('none')", "text"),
        ("input.?missing.orValue(5)", 5),
        ("has(input.missing)", False),
        ("has(input.task) && input.task.startsWith('so')", True),
        ("run.id + '/' + run.name", "r1/hello"),
        ("math.greatest(1, input.n)", 3),
        ("string(input.n) + 'x'", "3x"),
        ("duration('90s')", "90s"),
        ("timestamp('2026-01-02T03:04:05Z')", "2026-01-02T03:04:05+00:00"),
        ("'a,b,c'.split(',')", ["a", "b", "c"]),
        ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
        ("'abc'.split('')", ["a", "b", "c"]),
        ("'abc'.split('', 2)", ["a", "bc"]),
        ("'abc'.split('b', 0)", []),
        ("['a', 'b'].join('-')", "a-b"),
        ("['a', 'b'].join()", "ab"),
        ("'a b a'.replace('a', 'x')", "x b x"),
        ("'a b a'.replace('a', 'x', 1)", "x b a"),
        ("'héllo'.substring(1, 3)", "él"),
        ("'hello'.substring(3)", "lo"),
        ("'hello'.charAt(1)", "e"),
        ("'hello'.charAt(5)", ""),
        ("'hello'.indexOf('l')", 2),
        ("'hello'.lastIndexOf('l')", 3),
        ("' AbÉ '.trim().lowerAscii()", "abÉ"),
        ("'aé'.upperAscii()", "Aé"),
        ("'abc'.reverse()", "cba"),
        ("'aaa'.matches('^a+$')", True),
        ("has(steps.code.output) ? steps.code.output : 'none'", "text"),
        ("item", {"id": 7, "tags": ["x", "y"]}),
        ("item.tags.map(t, t + string(index))", ["x2", "y2"]),
        ("index + 1", 3),
        ("iter.carry.q >= 0.5 && iter.index == 1", True),
        ("iter.previous == null ? 'none' : iter.previous", "none"),
        ("output.map(o, o + '!')", ["p!", "q!"]),
        ("output.all(o, size(o) == 1)", True),
        ("[1].map(item, item)", [1]),
        # Integers and doubles may be mixed.
        ("input.n / 2", 1),
        ("input.n / 2.0", 1.5),
        ("input.n * 0.5 + 1", 2.5),
        ("iter.carry.q - 1", -0.5),
        ("iter.carry.q / 10.0 >= 1", False),
        ("1.5 * 2 == 3", True),
        ("list(input.list).map(i, i * 0.5)", [1.5, 0.5, 1.0]),
        ("iter.carry.q / 0 > 1000", True),
        ("-iter.carry.q / 0 < -1000", True),
        # Durations are exact.
        ("duration('1232007s')", "1232007s"),
        ("timestamp('2026-01-01T00:00:00Z') - timestamp('2026-01-15T06:13:27Z')", "-1232007s"),
        ("duration('1h1ms')", "3600.001s"),
        ("[duration('-1us'), duration('0s')]", ["-0.000001s", "0s"]),
        ("duration(string(duration('315576000000s')))", "315576000000s"),
    ],
)
def test_evaluation(source: str, value: Any) -> None:
    assert evaluate(compile_expression(source), SCOPE) == value


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("input.missing", "found nothing at input.missing"),
        ("steps.nothing.output", "found nothing at steps.nothing.output"),
        ("input.n / 0", "divide by zero"),
        ("9223372036854775807 + input.n", "integer overflow"),
        ("1.0 / 0.0", "JSON cannot hold"),
        ("b'abc'", "came to bytes"),
        ("'\\u0000'", "NUL character"),
        ("type(input.n)", "JSON cannot hold"),
        ("optional.of(1)", "orValue()"),
        ("optional.none()", "orValue()"),
        ("'abc'.substring(2, 9)", "substring(2, 9)"),
        ("input.list.join(',')", "join() takes a list of texts"),
        ("'a'.matches('(')", "invalid regular expression"),
        ("input.map.map(k, k)", "came to a map"),
        ("steps.code.output.x", "found nothing at steps.code.output.x"),
        ("steps.code.output.x + 1", "SELECT"),
        ("item.map(k, k)", "came to a map"),
    ],
)
def test_failures_at_run_say_what_happened(source: str, says: str) -> None:
    with pytest.raises(StepError) as caught:
        evaluate(compile_expression(source), SCOPE)
    assert caught.value.code == "expression_failed"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("source", "code", "found"),
    [
        ("1 +", "expression_syntax", "line 1, column 4: Syntax error: mismatched input '<EOF>'"),
        ("\n 1 +", "expression_syntax", "line 2, column 5: Syntax error: mismatched input '<EOF>'"),
        ("x.y", "expression_type", "line 1, column 2: undeclared reference to 'x.y'"),
        ("now()", "expression_type", "line 1, column 4: undeclared reference to 'now'"),
        ("1 + 'a'", "expression_type", "line 1, column 3: found no matching overload for '_+_'"),
        ("'" + "x" * 2_000 + "'", "expression_too_long", "2,002 characters"),
        ("steps", "expression_dynamic_step", "steps without a constant step id"),
        ("steps[input.x].output", "expression_dynamic_step", "steps without a constant step id"),
        ("input.map(k, k)", "expression_map_iteration", "a macro over something that may be a map"),
        ("iter.map(k, k)", "expression_map_iteration", "a macro over something that may be a map"),
        ("input.in", "expression_syntax", "line 1, column 7: Syntax error"),
        ("{'a': 1}.map(k, k)", "expression_map_iteration", "a macro over something that may be a map"),
        ("(" * 40 + "1" + ")" * 40, "expression_syntax", "Expression recursion limit exceeded. limit: 32"),
    ],
)
def test_refusals(source: str, code: str, found: str) -> None:
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ExpressionInvalid) as caught:
            compile_expression(source)
        assert caught.value.code == code
        assert caught.value.found.startswith(found)


@pytest.mark.parametrize(
    ("source", "references", "is_path"),
    [
        ("1", (), False),
        ("input.a.b", (Reference(("input", "a", "b"), False),), True),
        ("input['a'].b", (Reference(("input", "a", "b"), False),), True),
        ("item", (Reference(("item",), False),), True),
        ("output.map(o, o)", (Reference(("output",), False, True), Reference(("output",), False)), False),
        ("steps[?'a'].output", (Reference(("steps", "a", "output"), True),), False),
        ("has(steps.a.output)", (Reference(("steps", "a", "output"), True),), False),
        ("steps.a.output[0].x", (Reference(("steps", "a", "output"), False),), False),
        (
            "steps.a.output[input.n]",
            (Reference(("steps", "a", "output"), False), Reference(("input", "n"), False)),
            False,
        ),
        (
            "input.l.map(input, input.x)",
            (Reference(("input", "l"), False, True), Reference(("input", "l"), False)),
            False,
        ),
    ],
)
def test_references(source: str, references: tuple[Reference, ...], is_path: bool) -> None:
    expression = compile_expression(source)
    assert (set(expression.references), expression.is_path) == (set(references), is_path)


LARGE: dict[str, Any] = {"id": 2**64, "twin": 2**64, "other": -(2**70), "n": 2**63 - 1, "list": [1, 2**64]}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input", LARGE),
        ("[input.id, input.other]", [2**64, -(2**70)]),
        ("input.?id.orValue(0)", 2**64),
        ("{'id': input.id}", {"id": 2**64}),
        ("list(input.list).map(i, i)", [1, 2**64]),
        ("size(input.list) + input.list[0]", 3),
        ("input.n - 1", 2**63 - 2),
        ("input.id == input.twin && input.id != input.other", True),
        ("string(input.other)", str(-(2**70))),
        ("has(input.id) ? input.list[0] : 0", 1),
    ],
)
def test_integers_beyond_64_bits_are_passed_on(source: str, value: Any) -> None:
    assert evaluate(compile_expression(source), {"input": LARGE}) == value


@pytest.mark.parametrize("source", ["input.id + 1", "input.id > 1", "input.id * 1.0", "int(input.id) + 1"])
def test_integers_beyond_64_bits_are_not_computed_with(source: str) -> None:
    with pytest.raises(StepError, match="beyond 64 bits can only be passed on"):
        evaluate(compile_expression(source), {"input": LARGE})


def test_a_number_is_no_condition_whatever_it_is_made_of() -> None:
    types = [compile_expression(source).result_type for source in ("input.n + 1", "input.x / 2.0", "1.5 * 2")]
    assert types == ["NUMBER"] * 3


def test_an_expression_survives_pickling() -> None:
    expression = compile_expression("input.n + 1")
    assert evaluate(pickle.loads(pickle.dumps(expression)), SCOPE) == 4


def test_what_is_read_is_not_changed() -> None:
    before = repr(SCOPE)
    for source in ("has(steps.code.output.x) ? 1 : 2", "[input, input.map.a, steps.review]"):
        try:
            evaluate(compile_expression(source), SCOPE)
        except StepError:
            continue
    assert repr(SCOPE) == before


def test_lookup() -> None:
    assert lookup(("input", "map", "a"), SCOPE) == (True, 1)
    assert lookup(("input", "none"), SCOPE) == (True, None)
    assert lookup(("input", "task", "x"), SCOPE) == (False, None)


def doubling(levels: int) -> str:
    source = f"v{levels - 1}"
    for level in range(levels - 1, 0, -1):
        source = f"[v{level - 1} + v{level - 1}].map(v{level}, {source})"
    return f"[input.task].map(v0, {source})"


def test_a_line_that_would_take_all_memory_is_refused() -> None:
    assert evaluate(compile_expression(doubling(4)), SCOPE) == [[[["sort" * 8]]]]
    with pytest.raises(ExpressionInvalid) as caught:
        compile_expression(doubling(12))
    assert caught.value.code == "expression_too_large"


@pytest.mark.parametrize(
    "source",
    [
        "size('{a}'.replace('a', '{a}').replace('a', '{a}').replace('a', '{a}'))",
        "['{a}', '{a}'].map(x, x.replace('a', '{a}')).map(x, x.replace('a', '{a}')).join('{a}')",
        "input.many.map(x, input.text + x)",
        "input.many.map(x, input.many.map(y, x + y))",
        "input.many.map(x, input.many.map(y, input.many.map(z, z)))",
    ],
)
def test_bombs_fail_soon_at_run(source: str) -> None:
    scope = SCOPE | {"input": {"many": ["x" * 50] * 2_000, "text": "t" * 1_000_000}}
    began = time.process_time()
    with pytest.raises(StepError) as caught:
        evaluate(compile_expression(source.replace("{a}", "a" * 300)), scope)
    assert caught.value.code == "expression_failed"
    assert time.process_time() - began < 2


def test_large_values_that_are_only_looked_at_do_no_harm() -> None:
    scope = SCOPE | {"input": {"many": [{"id": str(i), "n": i} for i in range(1_000)], "text": "t" * 50_000}}
    looks = "input.many.filter(x, x.id != input.text && input.text.size() > x.n).size()"
    assert evaluate(compile_expression(looks), scope) == 1_000


_ATOMS = st.sampled_from(
    [
        "1",
        "'a'",
        "true",
        "input.n",
        "input.task",
        "input.list",
        "input.none",
        "steps.code.output",
        "[1, 2]",
        "x",
    ]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return (
        pair.map(" + ".join)
        | pair.map(" == ".join)
        | pair.map(lambda p: f"[{p[0]}, {p[1]}]")
        | pair.map(lambda p: f"list({p[0]}).map(x, {p[1]})")
        | pair.map(lambda p: f"[{p[0]}].filter(x, {p[1]})")
        | pair.map(lambda p: f"string({p[0]}).replace('a', string({p[1]}))")
        | inner.map(lambda e: f"size({e})")
        | inner.map(lambda e: f"({e}).orValue(1)")
    )


@given(st.recursive(_ATOMS, _larger, max_leaves=12))
@settings(max_examples=150, deadline=2_000)
def test_any_small_expression_ends(source: str) -> None:
    try:
        evaluate(compile_expression(source), SCOPE)
    except (ExpressionInvalid, StepError):
        return
