"""Bound what an expression can cost with the values that it reads, before it is evaluated.

Nothing can interrupt CEL once it runs, and it holds the interpreter meanwhile. The bound walks the syntax
tree once with the sizes of the values: what a node costs, times how often it is evaluated. Sizes are in
nanoseconds, as measured on one core of 2026: what it takes to hand a value to CEL.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from schema.cel.regex import UNKNOWN, states

MAX_NANOSECONDS: Final = 75_000_000
"""Most that one evaluation may cost."""
MAX_ITERATIONS: Final = 10_000
"""CEL itself ends an evaluation that has more, over all its macros."""
MAX_BUILT_CHARS: Final = 4 * 1024 * 1024
"""Text that replace(), join() and their like may build in one evaluation."""
SMALL_CHARS: Final = 16_384
"""Text that costs nothing worth counting where no macro or function repeats it."""

_VALUE: Final = 50.0
_CHAR: Final = 0.25
_NODE: Final = 60.0
_APPEND: Final = 16.0
"""Per item already there: the library copies the list for every item that a macro adds."""
_CALL_OUT: Final = 3_000.0
"""A call of one of our own functions, whose arguments and result cross over value by value."""
_CROSSING: Final = 6.0
_MIXED: Final = 300.0
"""Arithmetic of an integer and a double, which is one of our own functions, but a short one."""
_RESULT: Final = 8.0
_IN_TEXT: Final = 8.0
"""JSON that people can read is written by Python itself."""
_IN_TEXT_CHAR: Final = 3.0
_COMPILE_STATE: Final = 500.0
_MATCH_STATE: Final = 0.6

_COMPARING: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith"})
_ARITHMETIC: Final = frozenset({"_+_", "_-_", "_*_", "_/_"})
_DECIDING: Final = frozenset({"_&&_", "_||_", "!_", "@not_strictly_false"})
_OURS: Final = frozenset(
    {
        "charAt",
        "indexOf",
        "lastIndexOf",
        "lowerAscii",
        "upperAscii",
        "trim",
        "reverse",
        "replace",
        "split",
        "join",
        "substring",
        "entries",
        "list",
    }
)


class TooCostly(Exception):
    """An evaluation could cost more than it may."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: Any
    """A text, or None for any other constant."""


@dataclass(frozen=True, slots=True)
class Path:
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    name: str


@dataclass(frozen=True, slots=True)
class ValuePart:
    """A field or an item of something."""

    base: "Node"
    index: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Literal:
    """A list or a map that is written out."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    name: str
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Loop:
    around: "Node"
    variables: tuple[str, ...]
    accumulator: str
    init: "Node"
    condition: "Node"
    step: "Node"
    result: "Node"

    @property
    def appends(self) -> bool:
        return _adds_to(self.step, self.accumulator)


Node = Constant | Path | Variable | ValuePart | Literal | FunctionCall | Loop


def _adds_to(step: Node, accumulator: str) -> bool:
    if not isinstance(step, FunctionCall):
        return False
    if step.name == "_?_:_":
        return any(_adds_to(branch, accumulator) for branch in step.args[1:])
    return step.name == "_+_" and step.args[0] == Variable(accumulator)


def repeats(node: Node) -> bool:
    """Return whether a node can cost more than reading each of its values once."""
    match node:
        case Loop():
            return True
        case FunctionCall():
            plain = node.name not in _OURS and node.name not in ("contains", "matches")
            return not plain or any(map(repeats, node.args))
        case ValuePart():
            return repeats(node.base) or (node.index is not None and repeats(node.index))
        case Literal():
            return any(map(repeats, node.items))
    return False


@dataclass(frozen=True, slots=True)
class Slices:
    """A list that an expression goes through once, item by item: it may as well be given in slices, whose
    results are put together. So a long list is not copied for every item that a macro adds."""

    path: tuple[str, ...]
    counts: bool
    """The result is a number, how many items come out; else the list of them."""


MAX_SLICE: Final = 100


def slices(node: Node) -> Slices | None:
    """Return the list that may be given in slices; None where the expression needs the whole of one."""
    counts = isinstance(node, FunctionCall) and node.name == "size" and len(node.args) == 1
    inner: Node = node.args[0] if isinstance(node, FunctionCall) and counts else node
    if not isinstance(inner, Loop):
        return None
    others: list[Node] = []
    while isinstance(inner, Loop):
        if not inner.appends or inner.init != Literal(()) or inner.result != Variable(inner.accumulator):
            return None
        others += [inner.condition, inner.step]
        inner = inner.around
    if not isinstance(inner, Path) or any(_reads(other, inner.path) for other in others):
        return None
    return Slices(inner.path, counts)


def _reads(node: Node, path: tuple[str, ...]) -> bool:
    """Tell whether a node reads the path, one that contains it, or a part of it."""
    match node:
        case Path():
            return all(one == other for one, other in zip(node.path, path, strict=False))
        case ValuePart():
            return _reads(node.base, path) or (node.index is not None and _reads(node.index, path))
        case Literal():
            return any(_reads(item, path) for item in node.items)
        case FunctionCall():
            return any(_reads(arg, path) for arg in node.args)
        case Loop():
            inside = (node.around, node.init, node.condition, node.step, node.result)
            return any(_reads(part, path) for part in inside)
    return False


@dataclass(frozen=True, slots=True)
class Extent:
    """Bound on the size of a node's value."""

    total: float = 0.0
    """The sizes that it has over all times that it is evaluated, added up."""
    peak: float = 0.0
    """The largest of them."""
    chars: float = 0.0
    """The characters of its texts, over all times."""
    longest: float = 0.0
    """The most characters at one time."""
    own: float = 0.0
    """Most items it can have."""
    inner: float = 0.0
    """Most items that a list or map inside it can have."""
    part: float = 0.0
    """The size of its largest part; of `longest` its longest."""
    part_longest: float = 0.0
    is_list: bool = False
    """It is known to be a list or map."""

    def times(self, often: float) -> "Extent":
        """Return the extent of a value that is evaluated so often and stays the same."""
        return replace(self, total=self.total * often, chars=self.chars * often)

    def any_part(self, often: float) -> "Extent":
        """Return the extent of one part of it, each time that it is evaluated perhaps another."""
        peak = self.part if self.is_list else self.peak
        longest = self.part_longest if self.is_list else self.longest
        return Extent(
            min(self.total, peak * often),
            peak,
            min(self.chars, longest * often),
            longest,
            self.inner,
            self.inner,
            peak,
            longest,
        )


_NOTHING: Final = Extent()
_TINY: Final = Extent(_VALUE, _VALUE)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A macro's variable."""

    extent: Extent
    times: float
    """Most runs of its macro's body."""


def size_of(value: Any, limit: float = MAX_NANOSECONDS) -> Extent:
    """Measure a JSON value; raises TooCostly as soon as it is larger than `limit`."""
    if isinstance(value, str):
        chars = _chars(value)
        size = _VALUE + _CHAR * chars
        return Extent(size, size, chars, chars)
    if not isinstance(value, (list, Mapping)):
        return _TINY
    own = len(value)
    total, texts = _VALUE, 0
    parts: Iterable[Any] = value
    if not isinstance(value, list):
        parts, texts = value.values(), sum(map(_chars, value))
        total += _VALUE * (own + 1) + _CHAR * texts
    inner, largest, longest = 0, 0.0, 0
    for item in parts:
        kind, chars = type(item), 0
        size = _VALUE
        if kind is str:
            chars = _chars(item)
            size += _CHAR * chars
        elif kind is not int and kind is not float:
            size, chars, items = _deep(item, limit - total)
            inner = max(inner, items)
        total += size
        texts += chars
        largest, longest = max(largest, size), max(longest, chars)
    if total > limit:
        raise TooCostly
    return Extent(total, total, texts, texts, own, inner, largest, longest, is_list=True)


def _deep(value: Any, limit: float) -> tuple[float, int, int]:
    """(size, characters of its texts, items of the longest list or map)"""
    size, chars, items = 0.0, 0, 0
    stack = [value]
    while stack:
        item = stack.pop()
        size += _VALUE
        if isinstance(item, str):
            chars += _chars(item)
        elif isinstance(item, Mapping):
            items = max(items, len(item))
            size += _VALUE * (len(item) + 1)
            chars += sum(map(_chars, item))
            stack.extend(item.values())
        elif isinstance(item, list):
            items = max(items, len(item))
            stack.extend(item)
        if size + _CHAR * chars > limit:
            raise TooCostly
    return size + _CHAR * chars, chars, items


def _chars(text: str) -> int:
    """UTF-8 takes up to four bytes a character; CEL works on bytes."""
    return len(text) if text.isascii() else 3 * len(text)


class CostBudget:
    """Budget of what the expressions of one template may cost together."""

    def __init__(self) -> None:
        self.nanoseconds = 0.0
        """Spent so far."""

    def spend(self, nanoseconds: float) -> None:
        """Raise TooCostly when there is not so much left."""
        self.nanoseconds += nanoseconds
        if self.nanoseconds > MAX_NANOSECONDS:
            raise TooCostly

    def spend_on_text(self, value: Any) -> bool:
        """Return whether there is enough left to write a value into a text."""
        try:
            if isinstance(value, str):
                self.spend(_IN_TEXT_CHAR * len(value))
            elif isinstance(value, (list, Mapping)):
                extent = size_of(value)
                self.spend(_IN_TEXT * extent.total + _IN_TEXT_CHAR * extent.chars)
        except TooCostly:
            return False
        return True


class CostEstimate:
    """One bound: `find` answers what the expression reads at a path, `sliced` is given in slices."""

    def __init__(
        self,
        find: Callable[[tuple[str, ...]], Any],
        budget: CostBudget,
        sliced: tuple[str, ...] | None = None,
    ) -> None:
        self._find = find
        self._sliced = sliced
        self._sizes: dict[tuple[str, ...], Extent] = {}
        self._variables: dict[str, _Bound] = {}
        self._spend = budget.spend

    def check(self, node: Node) -> None:
        """Raise TooCostly where an expression could cost more than it may."""
        result = self._visit(node, 1.0)
        self._spend(_RESULT * result.total)
        if self._sliced is not None:
            pieces = self._sizes[self._sliced].own // MAX_SLICE
            others = sum(extent.total for path, extent in self._sizes.items() if path != self._sliced)
            self._spend(pieces * (others + _CALL_OUT))

    def _visit(self, node: Node, times: float) -> Extent:
        often = _often(times)
        self._spend(_NODE * often)
        match node:
            case Constant():
                return size_of(node.value).times(often)
            case Path():
                return self._size(node.path).times(often)
            case Variable():
                return self._variable(node.name, times)
            case ValuePart():
                base = self._visit(node.base, times)
                if node.index is not None:
                    self._visit(node.index, times)
                return base.any_part(often)
            case Literal():
                return _literal([self._visit(item, times) for item in node.items], often)
            case Loop():
                return self._loop(node, times)
            case FunctionCall():
                return self._call(node, [self._visit(arg, times) for arg in node.args], often)

    def _size(self, path: tuple[str, ...]) -> Extent:
        if path not in self._sizes:
            self._sizes[path] = size_of(self._find(path))
            self._spend(self._sizes[path].total)
        return self._sizes[path]

    def _variable(self, name: str, times: float) -> Extent:
        bound = self._variables.get(name)
        if bound is None:
            return _NOTHING
        extent, more, often = bound.extent, times / bound.times, _often(times)
        total = min(extent.total * more, extent.peak * often)
        return replace(extent, total=total, chars=min(extent.chars * more, extent.longest * often))

    def _loop(self, loop: Loop, times: float) -> Extent:
        around = self._visit(loop.around, times)
        inside = times * max(around.own, 1.0)
        before = dict(self._variables)
        item = _Bound(around.any_part(inside), inside)
        self._variables.update(dict.fromkeys(loop.variables, item))
        self._variables[loop.accumulator] = _Bound(_NOTHING, inside)
        init = self._visit(loop.init, times)
        self._visit(loop.condition, inside)
        step = self._visit(loop.step, inside)
        if loop.appends:
            longest = around.own if self._sliced is None else min(around.own, MAX_SLICE)
            self._spend(_APPEND * longest * _often(inside))
        self._variables[loop.accumulator] = _Bound(_added_up(init, step, around.own, loop.appends), times)
        result = self._visit(loop.result, times)
        self._variables = before
        return result

    def _call(self, call: FunctionCall, args: list[Extent], often: float) -> Extent:
        name, tiny = call.name, _TINY.times(often)
        if name in _DECIDING:
            return tiny
        if name in _OURS:
            return self._ours(call, args, often)
        match name, args:
            case _, [one, other] if name in _COMPARING:
                self._spend(min(one.total, other.total))
                return tiny
            case "size", [one]:
                self._spend(0 if one.is_list else 0.7 * one.chars)
                return tiny
            case "contains", [one, other]:
                self._spend(4 * one.chars + 0.03 * _product(one, other))
                return tiny
            case "matches", [one, _]:
                known = self._text(call.args[1])
                size = UNKNOWN if known is None else states(known)
                self._spend(often * (2_000 + _COMPILE_STATE * size) + one.chars * (5 + _MATCH_STATE * size))
                return tiny
            case _, [_, _] if name in _ARITHMETIC:
                self._spend(_MIXED * often)
            case "_?_:_", [_, one, other]:
                return _combined([one, other], max(one.own, other.own))
        self._spend(sum(arg.total for arg in args))
        owns = [arg.own for arg in args]
        made = _combined([tiny, *args], sum(owns) if name == "_+_" else max(owns, default=0.0))
        return replace(made, is_list=name == "_+_" and all(arg.is_list for arg in args))

    def _text(self, node: Node) -> str | None:
        """The text of a constant, or of what is read at a path."""
        value = self._find(node.path) if isinstance(node, Path) else None
        value = node.value if isinstance(node, Constant) else value
        return value if isinstance(value, str) else None

    def _ours(self, call: FunctionCall, args: list[Extent], often: float) -> Extent:
        made = self._made(call, args, often)
        crossing = sum(arg.total for arg in args) + made.total
        self._spend(_CALL_OUT * often + _CROSSING * crossing)
        if call.name == "lastIndexOf" and len(args) == 2:
            self._spend(0.5 * _product(args[0], args[1]))
        if call.name in ("indexOf", "replace", "split") and len(args) > 1:
            # Python looks for long words in linear time; short ones it may compare anew at every place.
            self._spend(args[0].chars * min(args[1].longest, 100))
        return made

    def _made(self, call: FunctionCall, args: list[Extent], often: float) -> Extent:
        first = args[0] if args else _NOTHING
        match call.name:
            case "indexOf" | "lastIndexOf":
                return _TINY.times(often)
            case "replace" if len(args) > 2:
                grown = 1 + args[2].longest
                return _built(first.chars * grown, first.longest * grown, often)
            case "join":
                between = args[1].longest * first.own if len(args) > 1 else 0.0
                return _built(first.chars + between * often, first.longest + between, often)
            case "split":
                return self._split(call, first, often)
            case "entries":
                more = 4 * _VALUE * first.own
                return replace(
                    first,
                    total=first.total + more * often,
                    peak=first.peak + more,
                    is_list=True,
                    inner=max(first.inner, 2.0),
                    part=first.part + 4 * _VALUE,
                    part_longest=first.longest,
                )
            case "list":
                return first
        return _built(first.chars, first.longest, often)

    def _split(self, call: FunctionCall, first: Extent, often: float) -> Extent:
        """Count the pieces where text and separator are known; else every character may be one."""
        own = longest = first.longest
        text, separator = (self._text(arg) for arg in (*call.args, Constant(None))[:2])
        if text and separator and (own := text.count(separator) + 1.0) <= MAX_ITERATIONS:
            longest = max(map(_chars, text.split(separator)))
        more, size = _VALUE * own, _CHAR * first.longest
        # At most so many pieces as there are characters, over all times.
        total = min(_VALUE * first.chars, more * often) + _CHAR * first.chars
        return Extent(
            total + _VALUE * often,
            size + more,
            first.chars,
            first.longest,
            own,
            0,
            _VALUE + _CHAR * longest,
            longest,
            is_list=True,
        )


def _often(times: float) -> float:
    return min(times, MAX_ITERATIONS)


def _combined(extents: list[Extent], own: float) -> Extent:
    """A value that may hold all of these."""
    return Extent(
        sum(one.total for one in extents),
        sum(one.peak for one in extents),
        sum(one.chars for one in extents),
        sum(one.longest for one in extents),
        own,
        max((one.inner for one in extents), default=0.0),
        max((one.part for one in extents), default=0.0),
        max((one.part_longest for one in extents), default=0.0),
    )


def _literal(items: list[Extent], often: float) -> Extent:
    """A list or map of these."""
    own = (_VALUE * (1 + len(items)), len(items))
    made = _combined(items, own[1])
    return replace(
        made,
        total=made.total + own[0] * often,
        peak=made.peak + own[0],
        is_list=True,
        inner=max((max(one.own, one.inner) for one in items), default=0.0),
        part=max((one.peak for one in items), default=0.0),
        part_longest=max((one.longest for one in items), default=0.0),
    )


def _added_up(init: Extent, step: Extent, count: float, appends: bool) -> Extent:
    """Return the size of a macro's result."""
    total, chars = init.total + step.total, init.chars + step.chars
    count = max(count, 1.0)
    return replace(
        step,
        total=total,
        peak=min(total, init.peak + step.peak * count),
        chars=chars,
        longest=min(chars, init.longest + step.longest * count),
        own=count if appends else step.own,
        is_list=appends,
    )


def _built(chars: float, longest: float, often: float) -> Extent:
    """Text that one of our own functions builds."""
    chars, longest = min(chars, MAX_BUILT_CHARS), min(longest, MAX_BUILT_CHARS)
    return Extent(_VALUE * often + _CHAR * chars, _VALUE + _CHAR * longest, chars, longest)


def _product(one: Extent, other: Extent) -> float:
    """The characters of two texts multiplied, over all times."""
    return min(one.chars * other.longest, one.longest * other.chars)
