"""Live stream edges: agents who read what others say while they say it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schema.language.definition import StreamEdge


@dataclass(frozen=True, slots=True)
class Streams:
    """The live readers and sources of a definition."""

    sources: Mapping[str, list[StreamEdge]] = field(default_factory=dict)
    """Step → the edges by which it reads others; it begins when they have begun."""
    peers: Mapping[str, list[StreamEdge]] = field(default_factory=dict)
    """Step → the edges by which it reads others who read it in turn, directly or around a ring: none of them
    waits for another to begin."""

    live: frozenset[str] = frozenset()
    """Every step at either end of a live edge."""

    def read_by(self, step: str) -> list[StreamEdge]:
        return [*self.sources.get(step, ()), *self.peers.get(step, ())]

    def before(self) -> dict[str, list[str]]:
        """Step → those that have begun before it."""
        return {step: [edge.source for edge in edges] for step, edges in self.sources.items()}

    def peers_of(self, step: str) -> list[str]:
        return [edge.source for edge in self.peers.get(step, ())]


def most_turns(edges: Iterable[StreamEdge]) -> int:
    """Return the most reactions that a live reader gives before its answer."""
    return max((edge.turns for edge in edges), default=0)


def streams_of(edges: Iterable[StreamEdge]) -> Streams:
    """The live edges among those of a definition, each of two steps once."""
    live = {(edge.source, edge.target): edge for edge in reversed(list(edges)) if edge.start}
    ring = rings(live)
    sources: dict[str, list[StreamEdge]] = {}
    peers: dict[str, list[StreamEdge]] = {}
    for (source, target), edge in reversed(live.items()):
        (peers if ring[source] == ring[target] else sources).setdefault(target, []).append(edge)
    return Streams(sources, peers, frozenset(ring))


def rings(ends: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Step → a number that it shares with those whom it reaches and who reach it (Kosaraju's way)."""
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for source, target in ends:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
        after.setdefault(target, [])
        before.setdefault(source, [])
    order: list[str] = []
    seen: set[str] = set()
    for step in after:
        order += _finished(step, after, seen)
    found: dict[str, int] = {}
    seen = set()
    for number, step in enumerate(reversed(order)):
        found |= dict.fromkeys(_finished(step, before, seen), number)
    return found


def _finished(start: str, after: Mapping[str, list[str]], seen: set[str]) -> list[str]:
    """Return the unseen steps reachable from there, each after all its successors."""
    if start in seen:
        return []
    seen.add(start)
    found: list[str] = []
    stack = [(start, iter(after[start]))]
    while stack:
        step, rest = stack[-1]
        following = next((one for one in rest if one not in seen), None)
        if following is None:
            stack.pop()
            found.append(step)
        else:
            seen.add(following)
            stack.append((following, iter(after[following])))
    return found
