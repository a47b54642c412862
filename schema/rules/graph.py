"""Rules between steps: needs, branches, joins, error handlers, and no cycles."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from schema.errors import STEP_CODES
from schema.language.dependencies import Dependencies, edges, topological
from schema.language.problems import Problems, show
from schema.language.shape import PlacedStep
from schema.language.steps import Quorum, Step, SwitchStep
from schema.language.streams import Streams
from schema.rules.presence import Presence
from schema.rules.references import ExpressionPlace, References
from schema.rules.steps import conflict

MAX_CYCLES: Final = 10
MAX_STRANGE_CODES: Final = 40
"""Looking for the nearest code is dear; users' activities may have any number of their own."""


@dataclass(frozen=True, slots=True)
class DependencyRules:
    references: References
    _strange_codes: set[str] = field(default_factory=set)

    @property
    def problems(self) -> Problems:
        return self.references.problems

    def check(self, name: str, placed: PlacedStep) -> None:
        self._check_needs(name, placed)
        self._check_join(placed)
        for at, _ in enumerate(placed.step.catch):
            self._check_catch(name, placed, at)

    def _check_needs(self, name: str, placed: PlacedStep) -> None:
        parts, place = self.references.parts, ExpressionPlace(placed.frame, name)
        branches: dict[str, str] = {}
        for index, need in enumerate(placed.step.needs):
            pointer = f"{placed.pointer}/needs/{index}"
            source, _, branch = need.partition(":")
            if source not in parts.frames:
                self.references.step_unknown(pointer, source)
                continue
            if not self.references.check_visible(pointer, source, place):
                continue
            if source in self.references.takes_over.get(name, ()):
                conflict(
                    pointer,
                    f"step {source!r}, whose errors this step handles",
                    "steps that have completed",
                    "It runs when that step has failed: leave it out.",
                    self.problems,
                )
            elif branch:
                self._check_branch(pointer, source, branch, placed)
                if placed.step.join == "all" and branches.setdefault(source, branch) != branch:
                    conflict(
                        pointer,
                        f"the branches {branches[source]!r} and {branch!r} of {source!r}",
                        "at most one branch of a switch, as only one is taken",
                        'Add "join": "any" to go on after either.',
                        self.problems,
                    )
            elif placed.step.join != "all" and parts.frames[source] != placed.frame:
                self._out_of_place(
                    pointer,
                    f"step {source!r} around the body among those to choose from",
                    "steps of the same body",
                    "It has ended before the body begins: leave it out.",
                )
            else:
                self._check_starters(pointer, source, placed)

    def _check_starters(self, pointer: str, source: str, placed: PlacedStep) -> None:
        """A map or loop that starts when some of its needs have ended: its body cannot need them."""
        parts = self.references.parts
        for owner in placed.frame:
            around = parts.steps.get(owner)
            if around and around.step.join != "all" and around.frame == parts.frames[source]:
                self.problems.add(
                    "reference_uncertain",
                    pointer,
                    f"step {source!r}, which may still run when {owner!r} starts",
                    "a step that has surely ended",
                    f"Let a step before {owner!r} wait for it.",
                )

    def _check_branch(self, pointer: str, source: str, branch: str, placed: PlacedStep) -> None:
        found = self.references.parts.steps.get(source)
        if found is None:
            return
        if found.frame != placed.frame:
            self._out_of_place(
                pointer,
                f"a branch of {source!r}, which stands around the body",
                "a switch of the same body",
                f'Write "when": "steps.{source}.branch == \'{branch}\'".',
            )
        elif not isinstance(found.step, SwitchStep):
            self.problems.add(
                "branch_unknown",
                pointer,
                f"a branch of {source!r}, a step of kind {found.step.kind}",
                "a branch of a switch",
                f"Write {source!r} without a branch.",
            )
        else:
            known = list(dict.fromkeys((*(case.then for case in found.step.cases), found.step.otherwise)))
            if branch not in known:
                self.problems.add(
                    "branch_unknown",
                    pointer,
                    f"the branch {branch!r}",
                    f"a branch of {source!r}",
                    self.problems.hint(branch, known),
                )

    def _check_join(self, placed: PlacedStep) -> None:
        step = placed.step
        enough = step.join.quorum if isinstance(step.join, Quorum) else 1
        # Of a switch one branch is taken, however many are needed.
        number = len({need.partition(":")[0] for need in step.needs})
        if step.join != "all" and enough > number:
            pointer = f"{placed.pointer}/join" + ("/quorum" if isinstance(step.join, Quorum) else "")
            self.problems.add(
                "value_wrong",
                pointer,
                f"{enough} of {number} steps",
                "no more than the steps in `needs`",
                "Name all steps to choose from in `needs`.",
            )

    def _check_catch(self, name: str, placed: PlacedStep, at: int) -> None:
        rule, pointer = placed.step.catch[at], f"{placed.pointer}/catch/{at}"
        has_value = "value" in rule.model_fields_set
        if (rule.then is None) != has_value:
            conflict(
                pointer,
                "both then and value" if has_value else "neither then nor value",
                "exactly one of them",
                "Name the step that takes over, or the output that stands in.",
                self.problems,
            )
        if rule.then is not None:
            self._check_handler(f"{pointer}/then", name, rule.then, placed)
        earlier = {code for before in placed.step.catch[:at] for code in before.errors}
        for index, code in enumerate(rule.errors):
            where = f"{pointer}/errors/{index}"
            if "*" in earlier or code in earlier:
                self.problems.add(
                    "field_useless",
                    where,
                    f"{show(code)}, which an entry before has caught",
                    "codes that are still free",
                    "The first match counts: put it before, or remove it.",
                )
            else:
                self._check_code(where, code)

    def _check_handler(self, pointer: str, name: str, handler: str, placed: PlacedStep) -> None:
        parts = self.references.parts
        if handler not in parts.frames:
            self.references.step_unknown(pointer, handler)
            return
        visible = self.references.check_visible(pointer, handler, ExpressionPlace(placed.frame, name))
        if visible and parts.frames[handler] != placed.frame:
            self._out_of_place(
                pointer,
                f"step {handler!r} around the body",
                "a step of the same body",
                "Let the map or loop itself catch the error.",
            )

    def _check_code(self, pointer: str, code: str) -> None:
        """A code that is nearly one of ours is a slip; any other may be a type of the user's own, as all are
        that are written like the name of a class."""
        if code == "*" or code in STEP_CODES or len(code) > 60 or code != code.lower():
            return
        if code not in self._strange_codes and len(self._strange_codes) >= MAX_STRANGE_CODES:
            return
        self._strange_codes.add(code)
        if near := difflib.get_close_matches(code, STEP_CODES, n=1, cutoff=0.85):
            self.problems.add(
                "error_unknown",
                pointer,
                show(code),
                "an error code, or a type of your own activity",
                f"Did you mean {near[0]!r}?",
            )

    def _out_of_place(self, pointer: str, found: str, expected: str, fix: str) -> None:
        self.problems.add("reference_out_of_place", pointer, found, expected, fix)

    def check_presence(self, presence: Presence) -> None:
        """Every step can run, and what is read when its frame has ended is there by then."""
        for steps in self.references.parts.frame_steps().values():
            presence.add(steps)
        for name in presence.impossible:
            self._never_runs(name, presence)
        self.references.check_read_at_end(presence)

    def _never_runs(self, name: str, presence: Presence) -> None:
        placed = self.references.parts.steps[name]
        if any(f"{one.pointer}/".startswith(f"{placed.pointer}/") for one in self.problems.all):
            return  # its needs have been refused already
        opposed = presence.opposed(name)
        written = not opposed or set(opposed) <= set(placed.step.needs)
        conflict(
            f"{placed.pointer}/needs" if written and placed.step.needs else placed.pointer,
            f"{opposed[0]!r} and {opposed[1]!r}, which never both complete"
            if opposed
            else "needs that are never met in one run",
            "a step that can run",
            'Add "join": "any" to go on after either.'
            if written
            else "Read them as steps[?'…'] with orValue(), for when they are absent.",
            self.problems,
        )

    def check_cycles(self, links: Mapping[str, Dependencies], streams: Streams) -> None:
        left = MAX_CYCLES
        for steps in self.references.parts.frame_steps().values():
            left -= self._check_frame(steps, links, streams, left)

    def _check_frame(
        self, steps: dict[str, Step], links: Mapping[str, Dependencies], streams: Streams, most: int
    ) -> int:
        """Check one frame and return its number of cycles, at most `most`."""
        all_edges = edges(steps, links, streams)
        for name in streams.peers.keys() & steps.keys():
            peers = set(streams.peers_of(name))
            # That peers depend on each other has been refused already.
            all_edges[name] = tuple(need for need in all_edges[name] if need not in peers)
        for name in self.references.read_by_their_parts & steps.keys():
            all_edges[name] = tuple(need for need in all_edges[name] if need != name)
        cyclic = all_edges.keys() - set(topological(all_edges))
        left = {
            name: [need for need in all_edges[name] if need in cyclic] for name in steps if name in cyclic
        }
        gone: set[str] = set()
        for number in range(most):
            cycle = _find_cycle(left, gone)
            if not cycle:
                return number
            shown = " → ".join(cycle[:12]) + (" → …" if len(cycle) > 12 else "")
            self.problems.add(
                "cycle",
                self.references.parts.steps[cycle[0]].pointer,
                f"the cycle {shown}",
                "steps that depend on earlier ones only",
                "Drop one of these dependencies, or put the steps that repeat into the body of a loop step.",
            )
            gone.update(cycle)
        return most


def _find_cycle(edges: Mapping[str, Collection[str]], gone: Collection[str]) -> list[str]:
    """One cycle in the direction of the data (a step after those it needs), first id repeated at the end;
    steps that are gone are passed over."""
    done = set(gone)
    for start in edges:
        path: dict[str, None] = {}
        node: str | None = start
        while node is not None and node not in done:
            if node in path:
                walked = list(path)
                return [node, *reversed(walked[walked.index(node) :])]
            path[node] = None
            node = next((dep for dep in edges[node] if dep not in done), None)
        done.update(path)
    return []
