"""Find the steps that can start: pure bookkeeping over a plan, the same in every replay."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from schema.temporal.plan import Plan, PlanStep
from schema.temporal.steps import StepEnd

COMPLETED = "completed"
SKIPPED = "skipped"
CAUGHT = "caught"
OPEN = "open"
BEGUN = "begun"
"""Status of a step that is read live, for a walker of a part of the plan."""


@dataclass(frozen=True)
class Segment:
    """Neighbouring steps that share one activity."""

    members: list[str]
    """Steps to run."""
    gates: list[str]
    """Steps that it only decides about: their condition, and whether they are to be skipped."""
    slow: bool
    """Whether it needs an ordinary activity, with heartbeats."""


@dataclass
class _State:
    """A step's open dependencies. One is met when its source completed, or took the branch."""

    step: PlanStep
    waits: int = 0
    """Steps yet to end that only have to end."""
    asked: int = 0
    """Needs and branches not yet ended."""
    met: int = 0
    rescues: int = 0
    """Steps not yet ended that this one would take over for."""
    called: bool = False
    """Whether one of them failed and named this step."""
    unheard: set[str] = field(default_factory=set)
    """Steps that this one reads live and that have not begun."""
    unheard_of: bool = False
    """Whether one of them ended without an output."""
    sources: list[str] = field(default_factory=list)

    def fate(self) -> str:
        """run, skip, or "" while it is undecided."""
        step = self.step
        if self.waits:
            return ""
        total = len(step.needs) + sum(":!" not in branch for branch in step.branches)
        enough = step.quorum or total
        if self.met + self.asked < enough or self.unheard_of:
            needed = "skip"
        elif self.met >= enough:
            needed = "run"
        else:
            return ""
        if any(":!" in branch for branch in step.branches) and not self.called:
            return "" if self.rescues else "skip"
        return "" if needed == "run" and self.unheard else needed


class FrameProgress:
    """Ended steps of one frame and the steps that became ready. Plan order breaks ties."""

    def __init__(
        self, plan: Plan, ended: Iterable[StepEnd] = (), only: Collection[str] | None = None
    ) -> None:
        """`ended` is known from before; with `only`, other steps are never taken."""
        self.plan = plan
        self._order = {step.id: index for index, step in enumerate(plan.steps)}
        self._states = {step.id: _State(step) for step in plan.steps}
        self._dependants: dict[str, list[tuple[str, str]]] = {step.id: [] for step in plan.steps}
        self.ended: dict[str, StepEnd] = {}
        self._open: set[str] = set()
        self._taken: set[str] = set()
        for step in plan.steps:
            self._connect(step)
        self._ready = deque(step.id for step in plan.steps if self._states[step.id].fate())
        if only is not None:
            self._taken.update(step.id for step in plan.steps if step.id not in only)
        for one in ended:
            self.end(one)

    def _connect(self, step: PlanStep) -> None:
        state = self._states[step.id]
        for source in step.needs:
            self._dependants[source].append((step.id, COMPLETED))
            state.asked += 1
        for branch in step.branches:
            source, _, label = branch.partition(":")
            self._dependants[source].append((step.id, f":{label}"))
            if label.startswith("!"):
                state.rescues += 1
            else:
                state.asked += 1
        for source in step.waits:
            self._dependants[source].append((step.id, ""))
            state.waits += 1
        for source in step.streams:
            self._dependants[source].append((step.id, BEGUN))
            state.unheard.add(source)
        branches = (branch.partition(":")[0] for branch in step.branches)
        state.sources = list(dict.fromkeys((*step.needs, *branches, *step.waits, *step.streams)))

    @property
    def done(self) -> bool:
        return len(self.ended) == len(self._states)

    def step(self, name: str) -> PlanStep:
        return self._states[name].step

    def end(self, ended: StepEnd) -> None:
        """Note how a step ended; one that is only `open` may run without being asked about again."""
        if ended.status == OPEN:
            self._open.add(ended.step)
            self._taken.discard(ended.step)
            self._ready.append(ended.step)
            return
        if ended.status == BEGUN:
            self._begin(ended.step)
            return
        self.ended[ended.step] = ended
        freed: list[str] = []
        for dependant, label in self._dependants[ended.step]:
            state = self._states[dependant]
            before = state.fate()
            self._count(state, label, ended)
            if not before and state.fate():
                freed.append(dependant)
        self._ready.extend(sorted(dict.fromkeys(freed), key=self._order.__getitem__))

    def _begin(self, name: str) -> None:
        """Note that a step is being run: those that read it live need not wait any longer."""
        for dependant, label in self._dependants[name]:
            state = self._states[dependant]
            if label == BEGUN and name in state.unheard:
                state.unheard.remove(name)
                if state.fate():
                    self._ready.append(dependant)

    def _count(self, state: _State, label: str, ended: StepEnd) -> None:
        if not label:
            state.waits -= 1
        elif label == BEGUN:
            state.unheard.discard(ended.step)
            state.unheard_of = state.unheard_of or ended.status != COMPLETED
        elif label.startswith(":!"):
            state.rescues -= 1
            state.called = state.called or (ended.status == CAUGHT and ended.branch == label[1:])
        else:
            state.asked -= 1
            if label == COMPLETED:
                state.met += ended.status == COMPLETED
            else:
                state.met += ended.status == COMPLETED and ended.branch == label[1:]

    def take(self) -> list[tuple[PlanStep, bool]]:
        """The steps whose fate is decided, each with whether it may run or is to be skipped."""
        found: list[tuple[PlanStep, bool]] = []
        while self._ready:
            name = self._ready.popleft()
            if name not in self._taken and name not in self.ended:
                self._taken.add(name)
                step, may_run = self._states[name].step, self._states[name].fate() == "run"
                found.append((step, may_run))
                if may_run and (not step.conditional or name in self._open):
                    self._begin(name)
        return found

    def take_units(self) -> tuple[list[Segment], list[PlanStep]]:
        """Return the steps that can start: segments, and steps with an activity of their own.

        A segment extends as far as its steps depend on nothing outside of it, so a run of cheap steps is one
        segment.
        """
        seeds: list[str] = []
        gates: list[str] = []
        singles: list[PlanStep] = []
        for step, may_run in self.take():
            if may_run and step.chain:
                seeds.append(step.id)
            elif may_run and (not step.conditional or step.id in self._open):
                singles.append(step)
            else:
                gates.append(step.id)
        if not seeds and not gates:
            return [], singles
        members, gates = self._reach(seeds, gates)
        return self._segments(members, gates), singles

    def _reach(self, seeds: list[str], gates: list[str]) -> tuple[list[str], list[str]]:
        """The seeds and gates, and what can follow within the segment."""
        inside = set(seeds)
        chosen, decided = set(seeds), set(gates)
        # What is skipped at a gate ends here as well, and so may free what depends on it.
        inside |= {gate for gate in gates if self._states[gate].fate() == "skip"}
        reached = deque((*seeds, *gates))
        while reached:
            for dependant, _ in self._dependants[reached.popleft()]:
                if dependant in chosen or dependant in decided or dependant in self._taken:
                    continue
                state = self._states[dependant]
                if any(source not in inside and source not in self.ended for source in state.sources):
                    continue
                self._taken.add(dependant)
                if state.step.chain:
                    chosen.add(dependant)
                    inside.add(dependant)
                    reached.append(dependant)
                else:
                    decided.add(dependant)
        order = self._order.__getitem__
        return sorted(chosen, key=order), sorted(decided, key=order)

    def _segments(self, members: list[str], gates: list[str]) -> list[Segment]:
        """One segment for all that is quick; what a slow step is connected to shares its own with it."""
        group = {name: name for name in (*members, *gates)}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for name in (*members, *gates):
            for source in self._states[name].sources:
                if source in group:
                    group[root(name)] = root(source)
        slow = {root(name) for name in members if self._states[name].step.chain == "slow"}
        found: dict[str, Segment] = {}
        for name in (*members, *gates):
            key = root(name) if root(name) in slow else ""
            segment = found.setdefault(key, Segment([], [], bool(key)))
            (segment.members if name in members else segment.gates).append(name)
        return list(found.values())

    def known_to(self, segment: Segment) -> list[StepEnd]:
        """Return the ends of the steps that a segment depends on, and the starts of those that it
        reads live."""
        sources = dict.fromkeys(
            source for name in (*segment.members, *segment.gates) for source in self._states[name].sources
        )
        listening = (self._states[gate] for gate in segment.gates)
        begun = dict.fromkeys(
            source for state in listening for source in state.step.streams if source not in state.unheard
        )
        found = [self.ended[source] for source in sources if source in self.ended]
        return found + [StepEnd(source, BEGUN) for source in begun if source not in self.ended]


def table(progress: FrameProgress, marks: Mapping[str, str]) -> str:
    """The state of every step as Markdown, for Temporal's UI; `marks` are of those that have not ended."""
    known = {**marks, **{name: one.status for name, one in progress.ended.items()}}
    rows = [f"| {step.summary} | {known.get(step.id, 'waiting')} |" for step in progress.plan.steps[:200]]
    return "\n".join(["| step | state |", "|---|---|", *rows])
