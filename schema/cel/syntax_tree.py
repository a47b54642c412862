"""Read what a checked CEL expression refers to, from its serialised form."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schema.cel.cost import Constant, FunctionCall, Literal, Loop, Node, Path, ValuePart, Variable
from schema.cel.wire import (
    CALL,
    CHECKED_EXPR,
    COMPREHENSION,
    CONST,
    CONST_STRING,
    ID,
    IDENT,
    INDEX,
    LIST,
    SELECT,
    STRUCT,
    TYPE_MAP,
    Message,
    fields,
    number,
    sub,
    subs,
    text,
)

_TYPE_LIST = 6
_TYPE_PRIMITIVE, _NUMBERS = 3, (2, 3, 4)
"""The field of a type that is a plain one, and what it holds for int, uint and double."""
_ARITHMETIC = {"_+_", "_-_", "_*_", "_/_"}
_ALL = "*"
"""Stands for every step among those that an expression looks at."""

# Calls whose result is always a list in a fixed order, so that iterating it is the same everywhere.
_ORDERED_CALLS = {"list", "entries", "split", "math.sort"}

# Calls whose result is small whatever they are given.
_LOOKING_CALLS = {
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_&&_",
    "_||_",
    "!_",
    "@in",
    "size",
    "matches",
    "contains",
    "startsWith",
    "endsWith",
    "indexOf",
    "lastIndexOf",
    "@not_strictly_false",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A path such as ("steps", "review", "output", "issues")."""

    path: tuple[str, ...]
    optional: bool
    """Reached through `?`: a missing value is no error and a skipped step is no reason to skip."""
    iterated: bool = False
    """Used as the range of a macro, so at run it must not be a map (whose order differs per process)."""
    guarded: bool = False
    """Evaluated only where something that goes before asks for it: a branch of `? :`, what `orValue` falls
    back on, the right of && and || where the left looks whether it is there."""


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
    tree: Node
    is_number: bool
    """Tell whether it is arithmetic with a number, and so a number whatever else it reads."""


class _Walk:
    def __init__(self, roots: frozenset[str], values: frozenset[str], types: dict[int, Message]) -> None:
        self.roots = roots
        self.values = values
        self.types = types
        self.found: dict[Reference, None] = {}
        self.dynamic: dict[str, None] = {}
        self.unordered = 0

    def path(self, expr: Message, bound: frozenset[str]) -> tuple[tuple[str, ...], bool, bool] | None:
        """(path, optional, complete) when the expression is a chain from a root; complete is False when an
        index that is no constant name cut it short."""
        if ident := sub(expr, IDENT):
            name = text(ident, 1)
            return ((name,), False, True) if name in self.roots and name not in bound else None
        if select := sub(expr, SELECT):
            base = self.path(sub(select, 1) or {}, bound)
            if base is None:
                return None
            path, optional, complete = base
            test_only = bool(number(select, 3))
            return (*path, text(select, 2)) if complete else path, optional or test_only, complete
        if (call := sub(expr, CALL)) and text(call, 2) in INDEX:
            args = subs(call, 3)
            base = self.path(args[0], bound)
            if base is None:
                return None
            path, optional, complete = base
            optional = optional or text(call, 2) != "_[_]"
            constant = sub(args[1], CONST)
            key = text(constant, 6) if constant and 6 in constant else None
            if key is None or not complete:
                return path, optional, False
            return (*path, key), optional, True
        return None

    def visit(self, expr: Message, bound: frozenset[str], guards: frozenset[str] = frozenset()) -> None:
        """Find what the expression refers to; `guards` are the steps that were looked at before."""
        chain = self.path(expr, bound)
        if chain is not None:
            path, optional, complete = chain
            if len(path) == 1 and path[0] == "steps":
                self.dynamic[path[0]] = None
            guarded = path[0] == "steps" and not optional and not guards.isdisjoint((*path[1:2], _ALL))
            self.found[Reference(path, optional, guarded=guarded)] = None
            if not complete:
                self._visit_indexes(expr, bound, guards)
            return
        for at, (child, scope) in enumerate(self._children(expr, bound)):
            self.visit(child, scope, guards | self._guards(expr, bound, at))

    def _visit_indexes(self, expr: Message, bound: frozenset[str], guards: frozenset[str]) -> None:
        """Inside a chain that an index cut short, the index itself may refer to something."""
        if select := sub(expr, SELECT):
            self._visit_indexes(sub(select, 1) or {}, bound, guards)
        elif call := sub(expr, CALL):
            args = subs(call, 3)
            self._visit_indexes(args[0], bound, guards)
            if 6 not in (sub(args[1], CONST) or {}):
                self.visit(args[1], bound, guards)

    def _guards(self, expr: Message, bound: frozenset[str], at: int) -> frozenset[str]:
        """The steps that an expression looks at before it evaluates its child with that number."""
        call = sub(expr, CALL)
        name = text(call, 2) if call and at else ""
        if name in ("_?_:_", "orValue", "or"):
            return frozenset((_ALL,))
        if name not in ("_&&_", "_||_"):
            return frozenset()
        before = _Walk(self.roots, self.values, self.types)
        before.visit(next(self._children(expr, bound))[0], bound)
        return frozenset(_looked_at(before.found))

    def _children(self, expr: Message, bound: frozenset[str]) -> Iterator[tuple[Message, frozenset[str]]]:
        if select := sub(expr, SELECT):
            yield sub(select, 1) or {}, bound
        elif call := sub(expr, CALL):
            yield from ((arg, bound) for field in (1, 3) for arg in subs(call, field))
        elif items := sub(expr, LIST):
            yield from ((item, bound) for item in subs(items, 1))
        elif struct := sub(expr, STRUCT):
            for entry in subs(struct, 2):
                yield from ((part, bound) for field in (3, 4) if (part := sub(entry, field)))
        elif loop := sub(expr, COMPREHENSION):
            inner = bound | {text(loop, 1), text(loop, 3), text(loop, 8)} - {""}
            around = sub(loop, 2) or {}
            self._check_range(around, bound)
            yield around, bound
            yield from ((part, inner) for field in (4, 5, 6, 7) if (part := sub(loop, field)))

    def _check_range(self, around: Message, bound: frozenset[str]) -> None:
        kind = self.types.get(number(around, ID), {})
        call = sub(around, CALL)
        if _TYPE_LIST in kind or (call and text(call, 2) in _ORDERED_CALLS):
            return
        chain = self.path(around, bound)
        if chain and chain[2] and (len(chain[0]) > 1 or chain[0][0] in self.values):
            self.found[Reference(chain[0], chain[1], iterated=True)] = None
        else:
            self.unordered += 1

    def is_number(self, expr: Message) -> bool:
        call = sub(expr, CALL)
        if call is None or text(call, 2) not in _ARITHMETIC:
            return False
        kinds = [self.types.get(number(arg, ID), {}) for arg in subs(call, 3)]
        return any(number(kind, _TYPE_PRIMITIVE) in _NUMBERS for kind in kinds)

    def copies(self, expr: Message, variables: Mapping[str, int]) -> int:
        """Return how often the result can repeat one value; `variables` are those of the enclosing macros."""
        if ident := sub(expr, IDENT):
            return variables.get(text(ident, 1), 1)
        if self.path(expr, frozenset(variables)):
            return 1
        if select := sub(expr, SELECT):
            return self.copies(sub(select, 1) or {}, variables)
        if loop := sub(expr, COMPREHENSION):
            return self._loop_copies(loop, variables)
        call = sub(expr, CALL)
        children = self._children(expr, frozenset(variables))
        total = sum(self.copies(child, variables) for child, _ in children)
        return 0 if call is not None and text(call, 2) in _LOOKING_CALLS else max(total, 1)

    def _loop_copies(self, loop: Message, variables: Mapping[str, int]) -> int:
        around = self.copies(sub(loop, 2) or {}, variables)
        mine = frozenset({text(loop, 1), text(loop, 3), text(loop, 8)} - {""})
        inner = {**variables, **dict.fromkeys(mine, around), text(loop, 3): 0}
        parts = [part for field in (4, 5, 6, 7) if (part := sub(loop, field))]
        return max([around, *(self.copies(part, inner) for part in parts)])

    def tree(self, expr: Message, bound: frozenset[str]) -> Node:
        """The expression as far as its costs depend on it."""
        chain = self.path(expr, bound)
        if chain and chain[2]:
            return Path(chain[0])
        if ident := sub(expr, IDENT):
            return Variable(text(ident, 1))
        if constant := sub(expr, CONST):
            return Constant(text(constant, CONST_STRING) if CONST_STRING in constant else None)
        if select := sub(expr, SELECT):
            return ValuePart(self.tree(sub(select, 1) or {}, bound))
        if loop := sub(expr, COMPREHENSION):
            return self._loop_tree(loop, bound)
        children = tuple(self.tree(child, inner) for child, inner in self._children(expr, bound))
        call = sub(expr, CALL)
        if call is None:
            return Literal(children)
        name = text(call, 2)
        if name in INDEX and len(children) == 2:
            return ValuePart(*children)
        return FunctionCall(name, children)

    def _loop_tree(self, loop: Message, bound: frozenset[str]) -> Loop:
        variables = tuple(name for name in (text(loop, 1), text(loop, 8)) if name)
        accumulator = text(loop, 3)
        inner = bound | {*variables, accumulator}
        init, condition, step, result = (self.tree(sub(loop, field) or {}, inner) for field in (4, 5, 6, 7))
        around = self.tree(sub(loop, 2) or {}, bound)
        return Loop(around, variables, accumulator, init, condition, step, result)


def _looked_at(references: Iterable[Reference]) -> Iterator[str]:
    """The steps that these look for; everything where they look at what decides which steps run."""
    for one in references:
        if one.path[0] != "steps" or one.path[2:3] in (("status",), ("branch",)):
            yield _ALL
        elif one.optional:
            yield from one.path[1:2]


def read(serialised: bytes, roots: frozenset[str], values: frozenset[str]) -> Facts:
    """Return what the expression refers to.

    `serialised` is an Any that holds a CheckedExpr. `values` are the roots that need not be maps.
    """
    any_message = fields(serialised)
    checked = sub(any_message, 2) or {}
    types: dict[int, Message] = {}
    for raw in checked.get(TYPE_MAP, []):
        if isinstance(raw, bytes):
            entry = fields(raw)
            types[number(entry, 1)] = sub(entry, 2) or {}
    walk = _Walk(roots, values, types)
    expr = sub(checked, CHECKED_EXPR) or {}
    walk.visit(expr, frozenset())
    chain = walk.path(expr, frozenset())
    return Facts(
        references=tuple(walk.found),
        is_path=chain is not None and chain[2] and not chain[1],
        unordered_ranges=walk.unordered,
        dynamic_roots=tuple(walk.dynamic),
        copies=walk.copies(expr, {}),
        tree=walk.tree(expr, frozenset()),
        is_number=walk.is_number(expr),
    )
