"""Read what a checked CEL expression refers to, from its serialised form.

The library shows no syntax tree, only `cel.expr.CheckedExpr` as bytes (cel-spec, proto/cel/expr). The few
fields needed here are read straight from the protobuf wire format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

_CHECKED_EXPR, _TYPE_MAP = 4, 3
_ID, _CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 2, 3, 4, 5, 6, 7, 8, 9
_TYPE_LIST = 6

_INDEX = {"_[_]", "_[?_]", "_?._"}
# Calls whose result is always a list in a fixed order, so that iterating it is the same everywhere.
_ORDERED_CALLS = {"list", "entries", "split", "math.sort"}

# Calls whose result is small whatever they are given.
_LOOKING_CALLS = {
    "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in", "size", "matches", "contains",
    "startsWith", "endsWith", "indexOf", "lastIndexOf", "@not_strictly_false",
}  # fmt: skip

Message = dict[int, list[bytes | int]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A path such as ("steps", "review", "output", "issues")."""

    path: tuple[str, ...]
    optional: bool
    """Reached through `?`: a missing value is no error and a skipped step is no reason to skip."""
    iterated: bool = False
    """Used as the range of a macro, so at run it must not be a map (whose order differs per process)."""


@dataclass(frozen=True, slots=True)
class Facts:
    references: tuple[Reference, ...]
    is_path: bool
    """The whole expression is one plain path, which needs no evaluation."""
    unordered_ranges: int
    """Macros over something that may be a map and cannot be checked at run."""
    dynamic_roots: tuple[str, ...]
    """Roots used without a constant name behind them, such as `steps[input.x]`."""
    copies: int
    """The most often that one value can be repeated in the result, apart from iterating."""
    loop_reads: frozenset[tuple[str, ...]] | None
    """Paths read once per iteration of a macro; None when a macro repeats another macro's variable."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@lru_cache(maxsize=1024)
def _fields(data: bytes) -> Message:
    """The fields of one message, to be read only: the walks below come by each several times."""
    message: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: bytes | int
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        message.setdefault(tag >> 3, []).append(value)
    return message


def _sub(message: Message, field: int) -> Message | None:
    values = message.get(field)
    return _fields(values[0]) if values and isinstance(values[0], bytes) else None


def _subs(message: Message, field: int) -> list[Message]:
    return [_fields(value) for value in message.get(field, []) if isinstance(value, bytes)]


def _text(message: Message, field: int) -> str:
    values = message.get(field)
    return values[0].decode() if values and isinstance(values[0], bytes) else ""


def _int(message: Message, field: int) -> int:
    values = message.get(field)
    return values[0] if values and isinstance(values[0], int) else 0


class _Walk:
    def __init__(self, roots: frozenset[str], values: frozenset[str], types: dict[int, Message]) -> None:
        self.roots = roots
        self.values = values
        self.types = types
        self.found: dict[Reference, None] = {}
        self.dynamic: dict[str, None] = {}
        self.unordered = 0
        self.loop_reads: set[tuple[str, ...]] = set()
        self.repeats_variable = False

    def path(self, expr: Message, bound: frozenset[str]) -> tuple[tuple[str, ...], bool, bool] | None:
        """(path, optional, complete) when the expression is a chain from a root; complete is False when an
        index that is no constant name cut it short."""
        if ident := _sub(expr, _IDENT):
            name = _text(ident, 1)
            return ((name,), False, True) if name in self.roots and name not in bound else None
        if select := _sub(expr, _SELECT):
            base = self.path(_sub(select, 1) or {}, bound)
            if base is None:
                return None
            path, optional, complete = base
            test_only = bool(_int(select, 3))
            return (*path, _text(select, 2)) if complete else path, optional or test_only, complete
        if (call := _sub(expr, _CALL)) and _text(call, 2) in _INDEX:
            args = _subs(call, 3)
            base = self.path(args[0], bound)
            if base is None:
                return None
            path, optional, complete = base
            optional = optional or _text(call, 2) != "_[_]"
            constant = _sub(args[1], _CONST)
            key = _text(constant, 6) if constant and 6 in constant else None
            if key is None or not complete:
                return path, optional, False
            return (*path, key), optional, True
        return None

    def visit(self, expr: Message, bound: frozenset[str]) -> None:
        chain = self.path(expr, bound)
        if chain is not None:
            path, optional, complete = chain
            if len(path) == 1 and path[0] == "steps":
                self.dynamic[path[0]] = None
            self.found[Reference(path, optional)] = None
            if not complete:
                self._visit_indexes(expr, bound)
            return
        for child, scope in self._children(expr, bound):
            self.visit(child, scope)

    def _visit_indexes(self, expr: Message, bound: frozenset[str]) -> None:
        """Inside a chain that an index cut short, the index itself may refer to something."""
        if select := _sub(expr, _SELECT):
            self._visit_indexes(_sub(select, 1) or {}, bound)
        elif call := _sub(expr, _CALL):
            args = _subs(call, 3)
            self._visit_indexes(args[0], bound)
            if 6 not in (_sub(args[1], _CONST) or {}):
                self.visit(args[1], bound)

    def _children(self, expr: Message, bound: frozenset[str]) -> Iterator[tuple[Message, frozenset[str]]]:
        if select := _sub(expr, _SELECT):
            yield _sub(select, 1) or {}, bound
        elif call := _sub(expr, _CALL):
            yield from ((arg, bound) for field in (1, 3) for arg in _subs(call, field))
        elif items := _sub(expr, _LIST):
            yield from ((item, bound) for item in _subs(items, 1))
        elif struct := _sub(expr, _STRUCT):
            for entry in _subs(struct, 2):
                yield from ((part, bound) for field in (3, 4) if (part := _sub(entry, field)))
        elif loop := _sub(expr, _COMPREHENSION):
            inner = bound | {_text(loop, 1), _text(loop, 3), _text(loop, 8)} - {""}
            around = _sub(loop, 2) or {}
            self._check_range(around, bound)
            yield around, bound
            yield from ((part, inner) for field in (4, 5, 6, 7) if (part := _sub(loop, field)))

    def _check_range(self, around: Message, bound: frozenset[str]) -> None:
        kind = self.types.get(_int(around, _ID), {})
        call = _sub(around, _CALL)
        if _TYPE_LIST in kind or (call and _text(call, 2) in _ORDERED_CALLS):
            return
        chain = self.path(around, bound)
        if chain and chain[2] and (len(chain[0]) > 1 or chain[0][0] in self.values):
            self.found[Reference(chain[0], chain[1], iterated=True)] = None
        else:
            self.unordered += 1

    def copies(self, expr: Message, variables: Mapping[str, int], own: frozenset[str], built: bool) -> int:
        """How often the result can repeat one value. `variables` are those of the macros around, `own` those
        of the innermost; `built` is False where a value is only looked at, as by a comparison."""
        if ident := _sub(expr, _IDENT):
            name = _text(ident, 1)
            if built and own:
                if name not in variables:
                    self.loop_reads.add((name,))
                elif name not in own:
                    self.repeats_variable = True
            return variables.get(name, 1)
        if chain := self.path(expr, frozenset(variables)):
            if built and own:
                self.loop_reads.add(chain[0])
            return 1
        if select := _sub(expr, _SELECT):
            return self.copies(_sub(select, 1) or {}, variables, own, built)
        if loop := _sub(expr, _COMPREHENSION):
            return self._loop_copies(loop, variables, own, built)
        call = _sub(expr, _CALL)
        looks = call is not None and _text(call, 2) in _LOOKING_CALLS
        inside = built if call and _text(call, 2) in _INDEX else not looks
        children = self._children(expr, frozenset(variables))
        total = sum(self.copies(child, variables, own, inside) for child, _ in children)
        return 0 if looks else max(total, 1)

    def _loop_copies(
        self, loop: Message, variables: Mapping[str, int], own: frozenset[str], built: bool
    ) -> int:
        around = self.copies(_sub(loop, 2) or {}, variables, own, built)
        mine = frozenset({_text(loop, 1), _text(loop, 3), _text(loop, 8)} - {""})
        inner = {**variables, **dict.fromkeys(mine, around), _text(loop, 3): 0}
        parts = [part for field in (4, 5, 6, 7) if (part := _sub(loop, field))]
        return max([around, *(self.copies(part, inner, mine, True) for part in parts)])


def read(serialised: bytes, roots: frozenset[str], values: frozenset[str]) -> Facts:
    """What the expression refers to; `serialised` is an Any that holds a CheckedExpr. `values` are the roots
    that need not be maps."""
    any_message = _fields(serialised)
    checked = _sub(any_message, 2) or {}
    types: dict[int, Message] = {}
    for raw in checked.get(_TYPE_MAP, []):
        if isinstance(raw, bytes):
            entry = _fields(raw)
            types[_int(entry, 1)] = _sub(entry, 2) or {}
    walk = _Walk(roots, values, types)
    expr = _sub(checked, _CHECKED_EXPR) or {}
    walk.visit(expr, frozenset())
    chain = walk.path(expr, frozenset())
    copies = walk.copies(expr, {}, frozenset(), True)
    return Facts(
        references=tuple(walk.found),
        is_path=chain is not None and chain[2] and not chain[1],
        unordered_ranges=walk.unordered,
        dynamic_roots=tuple(walk.dynamic),
        copies=copies,
        loop_reads=None if walk.repeats_variable else frozenset(walk.loop_reads),
    )
