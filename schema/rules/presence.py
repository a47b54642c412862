"""Find the steps of a frame that certainly completed when it ends, and those that never can.

A run decides which branch a switch takes, whether a `when` holds, and whether a step completes or hands its
error over. A step completes under a condition: a set of combinations of such decisions, any of which will do.
The empty combination stands for always, no combination at all for never.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from schema.language.dependencies import Dependencies, edges, handlers, topological
from schema.language.steps import Quorum, Step, SwitchStep
from schema.language.streams import Streams

_MAX_COMBINATIONS: Final = 64
_MAX_WORK: Final = 200_000
"""Combinations put together or compared for one definition; whatever takes more is unknown."""

Choice = tuple[str, str]
"""(what is decided, the step that it is decided for): ("branch", "route")."""
BranchChoice = tuple[str, str, str]
"""A choice, and how it is made: ("branch", "route", "urgent")."""
Combination = frozenset[BranchChoice]
Condition = frozenset[Combination] | None
"""None: unknown."""

_ALWAYS: Final = frozenset([frozenset[BranchChoice]()])
_NEVER: Final = frozenset[Combination]()


class _TooMuch(Exception):
    """A condition has more combinations than are worth looking at."""


@dataclass
class Presence:
    """The conditions of the steps of one definition. Frames are added one by one."""

    links: Mapping[str, Dependencies]
    frames: Mapping[str, tuple[str, ...]]
    """step → the maps and loops around it; also of those that could not be read."""
    unclear: Collection[str]
    """Steps of which it is not known on what they depend."""
    streams: Streams
    impossible: list[str] = field(default_factory=list)
    """Steps that never run, though each step that they depend on may by itself."""
    _ways: dict[Choice, set[str]] = field(default_factory=dict)
    _starts: dict[str, Condition] = field(default_factory=dict)
    _completes: dict[str, Condition] = field(default_factory=dict)
    _work: int = 0

    def add(self, steps: Mapping[str, Step]) -> None:
        """Find the conditions of the steps of one frame; those on a cycle stay unknown."""
        takes_over = handlers(steps)
        for name in topological(edges(steps, self.links, self.streams)):
            if name not in self.unclear:
                self._add(name, steps[name], takes_over.get(name, []))

    def is_certain(self, name: str) -> bool:
        """Tell whether the step certainly completed when its frame has ended, as far as is known."""
        return self._completes.get(name) in (None, _ALWAYS)

    def opposed(self, name: str) -> tuple[str, str] | None:
        """The first two needs of a step that exclude each other, though either can be met by itself."""
        needs = [need for need in self.needs(name) if self._met(need) != _NEVER]
        pairs = ((one, other) for at, other in enumerate(needs) for one in needs[:at])
        return next((pair for pair in pairs if self._both(*map(self._met, pair)) == _NEVER), None)

    def needs(self, name: str) -> list[str]:
        """Return the step's dependencies in its frame: steps, and branches such as route:urgent."""
        link = self.links[name]
        read = self.streams.before().get(name, ())
        sources = dict.fromkeys((*link.needs, *link.branches, *read))
        return [need for need in sources if self.frames.get(need.partition(":")[0]) == self.frames[name]]

    def _add(self, name: str, step: Step, failing: list[str]) -> None:
        if isinstance(step, SwitchStep):
            ways = {*(case.then for case in step.cases), step.otherwise}
            # Where a value stands in for its output, it took no branch.
            self._ways["branch", name] = ways | {""} if has_stand_in(step) else ways
        starts = self._start(name, step, failing)
        self._starts[name] = starts
        if step.when is not None:
            self._ways["when", name] = {"holds", "does not"}
            starts = self._both(starts, _one("when", name, "holds"))
        if takeovers := {rule.then for rule in step.catch if rule.then}:
            self._ways["end", name] = {"completes", *takeovers}
            starts = self._both(starts, _one("end", name, "completes"))
        self._completes[name] = starts

    def _start(self, name: str, step: Step, failing: list[str]) -> Condition:
        needs = [self._met(need) for need in self.needs(name) if need not in failing]
        quorum = _quorum(step)
        met = self._enough(needs, quorum or len(needs))
        called = self._called(name, failing) if failing else _ALWAYS
        starts = self._both(met, called)
        unmet = [need == _NEVER for need in needs]
        follows = called == _NEVER or (all(unmet) if quorum else any(unmet))
        if starts == _NEVER and not follows:
            self.impossible.append(name)
        return starts

    def _met(self, need: str) -> Condition:
        source, _, branch = need.partition(":")
        completes = self._completes.get(source)
        if not branch:
            return completes
        known = branch in self._ways.get(("branch", source), ())
        return self._both(completes, _one("branch", source, branch)) if known else None

    def _called(self, name: str, failing: Iterable[str]) -> Condition:
        """One of the steps has failed and handed over to the named one."""
        called: Condition = _NEVER
        for one in failing:
            called = self._either(called, self._both(self._starts.get(one), _one("end", one, name)))
        return called

    def _enough(self, needs: list[Condition], number: int) -> Condition:
        """At least so many of the conditions hold."""
        reached: list[Condition] = [_ALWAYS, *[_NEVER] * number]
        for need in needs:
            for count in range(number, 0, -1):
                reached[count] = self._either(reached[count], self._both(reached[count - 1], need))
        return reached[number]

    def _both(self, one: Condition, other: Condition) -> Condition:
        if _NEVER in (one, other):
            return _NEVER
        if one is None or other is None:
            return None
        if _ALWAYS in (one, other):
            return other if one == _ALWAYS else one
        return self._tried(lambda: {a | b for a in one for b in other if self._agree(a, b)})

    def _either(self, one: Condition, other: Condition) -> Condition:
        if _ALWAYS in (one, other):
            return _ALWAYS
        if one is None or other is None:
            return None
        if _NEVER in (one, other):
            return other if one == _NEVER else one
        return self._tried(lambda: {*one, *other})

    def _tried(self, found: Callable[[], set[Combination]]) -> Condition:
        try:
            return self._simplified(found())
        except _TooMuch:
            return None

    def _agree(self, one: Combination, other: Combination) -> bool:
        self._spend(1)
        together = one | other
        return len({decision[:2] for decision in together}) == len(together)

    def _simplified(self, found: set[Combination]) -> frozenset[Combination]:
        self._spend(len(found) ** 2)
        found = {one for one in found if not any(other < one for other in found)}
        for choice in sorted({decision[:2] for one in found for decision in one}):
            found = self._without(choice, found)
        if len(found) > _MAX_COMBINATIONS:
            raise _TooMuch
        return _ALWAYS if self._is_everything(found) else frozenset(found)

    def _without(self, choice: Choice, found: set[Combination]) -> set[Combination]:
        """The same, without a choice where all its ways are among the combinations."""
        ways: dict[Combination, set[str]] = {}
        for one in found:
            for decision in one:
                if decision[:2] == choice:
                    ways.setdefault(one - {decision}, set()).add(decision[2])
        free = {rest for rest, seen in ways.items() if seen == self._ways[choice]}
        return {one for one in found if not any(rest <= one for rest in free)} | free if free else found

    def _is_everything(self, found: Collection[Combination]) -> bool:
        """Tell whether one of the combinations occurs, however everything is decided."""
        self._spend(len(found))
        if frozenset() in found:
            return True
        if sum(self._share(one) for one in found) < 0.999:
            return False
        choice = min(decision for one in found for decision in one)[:2]
        return all(self._is_everything(_given((*choice, way), found)) for way in self._ways[choice])

    def _share(self, one: Combination) -> float:
        """The share of all ways to decide in which the combination is made."""
        return prod(1 / len(self._ways[decision[:2]]) for decision in one)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise _TooMuch


def _one(what: str, step: str, way: str) -> frozenset[Combination]:
    return frozenset([frozenset([(what, step, way)])])


def _given(decision: BranchChoice, found: Iterable[Combination]) -> set[Combination]:
    """Return the combinations that remain once the decision is made."""
    return {
        one - {decision}
        for one in found
        if decision in one or all(other[:2] != decision[:2] for other in one)
    }


def has_stand_in(step: Step) -> bool:
    """Tell whether a value of the step's `catch` may stand in for its output."""
    return any("value" in rule.model_fields_set for rule in step.catch)


def _quorum(step: Step) -> int:
    """Return how many of the needs are enough; 0 for all."""
    if isinstance(step.join, Quorum):
        return step.join.quorum
    return 1 if step.join == "any" else 0
