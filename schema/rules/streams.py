"""Rules for stream edges: two steps of one body, and for a live edge, two agents that support it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from schema.cel.expressions import ExpressionInvalid, Json, compile_expression
from schema.language.definition import StreamEdge
from schema.language.dependencies import Dependencies, step_expressions
from schema.language.problems import Problems
from schema.language.shape import PlacedStep
from schema.language.steps import AgentStep
from schema.language.streams import Streams, streams_of
from schema.rules.references import References
from schema.rules.steps import useless

MAX_READ: Final = 20
"""Steps that one reads live: it looks at each of them whenever any of them speaks."""


@dataclass(frozen=True, slots=True)
class StreamRules:
    references: References

    @property
    def problems(self) -> Problems:
        return self.references.problems

    def check(self) -> Streams:
        """The live edges, as far as both ends are agents of one body."""
        found: dict[str, dict[str, StreamEdge]] = {}
        stream = self.references.parts.document.get("stream")
        for index, raw in enumerate(stream if isinstance(stream, list) else []):
            if isinstance(raw, dict) and self._check_ends(f"/stream/{index}", raw):
                self._check_edge(f"/stream/{index}", raw, found)
        return streams_of(edge for edges in found.values() for edge in edges.values())

    def check_readers(self, streams: Streams, links: Mapping[str, Dependencies]) -> None:
        """Check where live readers name their sources."""
        steps = self.references.parts.steps
        for name in streams.sources:
            read = {edge.source for edge in streams.sources[name]}
            self._check_references(steps[name], read)
            if steps[name].step.join != "all":
                self._impossible(
                    f"{steps[name].pointer}/join",
                    f"join of {name!r}, which reads others live",
                    "all that it depends on",
                    "Drop join, or the start of the stream edge.",
                )
        for name in streams.live:
            placed = steps[name]
            if placed.step.chain is True:
                useless(
                    f"{placed.pointer}/chain",
                    "a step that cannot share an activity",
                    "It is read, or reads, while it works: remove chain.",
                    self.problems,
                )
            self._check_peers(name, placed, set(streams.peers_of(name)), links.get(name))

    def _check_ends(self, pointer: str, edge: dict[str, Json]) -> bool:
        """Check that both ends are steps of one body."""
        parts = self.references.parts
        ends = [edge.get("from"), edge.get("to")]
        known = [end for end in ends if isinstance(end, str) and end in parts.frames]
        for key, end in zip(("from", "to"), ends, strict=True):
            if isinstance(end, str) and end not in parts.frames:
                self.references.step_unknown(f"{pointer}/{key}", end)
        if len(known) < 2:
            return False
        if parts.frames[known[0]] != parts.frames[known[1]]:
            self._out_of_place(
                pointer,
                f"{known[0]!r} and {known[1]!r} of different bodies",
                "two steps of the same body",
                "Name the map or loop itself instead of a step in its body.",
            )
            return False
        return True

    def _check_edge(
        self, pointer: str, raw: dict[str, Json], found: dict[str, dict[str, StreamEdge]]
    ) -> None:
        try:
            edge = StreamEdge.model_validate(raw)
        except ValidationError:
            return  # reported with the shape of the document
        if edge.start is None:
            for field in sorted(edge.model_fields_set & {"turns", "on_retry", "adaptive"}):
                useless(
                    f"{pointer}/{field}",
                    f"{field} without start",
                    "Without start the target waits for the source's end: remove it, or add start.",
                    self.problems,
                )
            return
        read = found.setdefault(edge.target, {})
        if edge.source == edge.target or edge.source in read:
            self._impossible(
                pointer,
                "a second live edge" if edge.source in read else "a step that reads itself live",
                "one live edge from one agent step to another",
                "Remove it.",
            )
        elif len(read) >= MAX_READ:
            self.problems.add(
                "too_many",
                pointer,
                f"more than {MAX_READ} steps that {edge.target!r} reads live",
                f"at most {MAX_READ}",
                "Let a step between bring some of them together.",
            )
        elif self._check_agents(pointer, edge):
            read[edge.source] = edge

    def _check_agents(self, pointer: str, edge: StreamEdge) -> bool:
        """Check that both ends are agent steps that can be read and can read."""
        parts = self.references.parts
        fine = True
        for key, end in (("from", edge.source), ("to", edge.target)):
            if parts.kinds.get(end, "agent") != "agent":
                self._impossible(
                    f"{pointer}/{key}",
                    f"the step {end!r} of kind {parts.kinds[end]}",
                    "an agent step",
                    "Only agents speak and listen while they work: leave start out.",
                )
                fine = False
        source, target = (parts.steps.get(end) for end in (edge.source, edge.target))
        if not fine or source is None or target is None:
            return False
        assert isinstance(source.step, AgentStep) and isinstance(target.step, AgentStep)
        if source.step.emits:
            self._impossible(
                f"{pointer}/from",
                f"the step {edge.source!r}, which writes a definition",
                "an agent whose text can be read in parts",
                "Leave start out.",
            )
        speaker = parts.agents.get(source.step.agent)
        if speaker and not speaker.stream:
            self._impossible(
                f"{pointer}/from",
                f"the step {edge.source!r}, whose agent has stream: false",
                "an agent whose text comes in parts",
                "Remove stream: false, or leave start out.",
            )
        if any(rule.then for rule in source.step.catch):
            self._impossible(
                f"{pointer}/from",
                f"the step {edge.source!r}, for which another takes over when it fails",
                "a step whose output comes in the end",
                "Catch with a value, or leave start out.",
            )
        if edge.adaptive and _depends(target, edge.source):
            self._impossible(
                f"{pointer}/adaptive",
                f"an adaptive edge to {edge.target!r}, which names {edge.source!r}",
                "a target that can do without: the source is neither in its prompt nor in its needs",
                "Remove it there, since what it says comes by the edge, or leave adaptive out.",
            )
        if target.step.cache:
            self._impossible(
                f"{pointer}/to",
                f"the step {edge.target!r} with cache",
                "a step that is always asked",
                "What it reads live is never the same twice: remove cache, or leave start out.",
            )
        return True

    def _check_references(self, placed: PlacedStep, read: set[str]) -> None:
        """In the prompt a source's output is what it has said so far; there is nothing else of it yet."""
        for where, name, path, optional in _steps_named(placed):
            if name in read and (not where.startswith("/prompt") or path != ["output"] or optional):
                shown = ".".join(["steps", name, *path])[:200]
                self._out_of_place(
                    f"{placed.pointer}{where}",
                    f"{shown}, of a step that is read live",
                    f"steps.{name}.output, in the prompt",
                    "Read the rest of it in a step that needs both.",
                )

    def _check_peers(
        self, name: str, placed: PlacedStep, peers: set[str], links: Dependencies | None
    ) -> None:
        if not peers or links is None:
            return
        needed = (*links.needs, *links.waits, *(branch.partition(":")[0] for branch in links.branches))
        for peer in dict.fromkeys(one for one in needed if one in peers):
            self.problems.add(
                "cycle",
                placed.pointer,
                f"{name!r}, which depends on {peer!r} and is read by it live",
                "agents who read each other live, and begin at the same time",
                f"Name {peer!r} neither in needs nor in the prompt: what it says comes by the stream edge.",
            )

    def _impossible(self, pointer: str, found: str, expected: str, fix: str) -> None:
        self.problems.add("stream_impossible", pointer, found, expected, fix)

    def _out_of_place(self, pointer: str, found: str, expected: str, fix: str) -> None:
        self.problems.add("reference_out_of_place", pointer, found, expected, fix)


def _depends(placed: PlacedStep, source: str) -> bool:
    """Tell whether a step names another one."""
    return source in placed.step.needs or any(name == source for _, name, _, _ in _steps_named(placed))


def _steps_named(placed: PlacedStep) -> Iterator[tuple[str, str, list[str], bool]]:
    """(pointer within the step, step, path behind it, whether optional) of every reference, each once."""
    try:
        for where, source in step_expressions(placed.step):
            compiled = compile_expression(source)
            seen = dict.fromkeys((one.path, one.optional) for one in compiled.references)
            for path, optional in seen:
                if path[0] == "steps" and len(path) > 1:
                    yield where, path[1], list(path[2:]), optional
    except ExpressionInvalid:
        return  # reported where it stands
