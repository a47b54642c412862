"""A run as its events tell it: a tree of steps, of which those under way have something to say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from schema.live import (
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
)

_PART: Final = re.compile(r"([^.\[\]]+)(?:\[(\d+)\])?")
_TAIL_CHARS: Final = 4_000
"""Characters kept of an agent's text; the screen shows the last lines."""


@dataclass
class RunningAttempt:
    """One that is under way."""

    execution: str
    agent: str
    model: str
    attempt: int
    began_at: float
    tokens: int = 0
    said: str = ""


@dataclass
class StepNode:
    """A step, an item of a map or an iteration of a loop, with what is within it."""

    name: str
    path: str = ""
    kind: str = ""
    agent: str = ""
    model: str = ""
    status: str = "pending"
    attempts: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    simulated: bool = False
    error: str = ""
    execution: str = ""
    """The last one."""
    attempt: RunningAttempt | None = None
    asked: dict[str, PeopleAsked] = field(default_factory=dict)
    within: dict[str, "StepNode"] = field(default_factory=dict)

    def all_within(self) -> Iterator["StepNode"]:
        """Everything below, in order."""
        for node in self.within.values():
            yield node
            yield from node.all_within()

    @property
    def items(self) -> int:
        return sum(name.startswith("[") for name in self.within)

    def all_tokens(self) -> int:
        mine = self.tokens + (self.attempt.tokens if self.attempt else 0)
        return mine + sum(node.all_tokens() for node in self.within.values())

    def all_cost(self) -> float:
        return self.cost_usd + sum(node.all_cost() for node in self.within.values())

    def estimated(self) -> bool:
        """Tell whether tokens are counted as they arrive; only the end has their exact number."""
        spoken = self.attempt is not None and self.attempt.tokens > 0
        return spoken or any(node.estimated() for node in self.within.values())

    def any_simulated(self) -> bool:
        return self.simulated or any(node.any_simulated() for node in self.within.values())


@dataclass
class WatchedRun:
    """Everything known of a run so far."""

    id: str
    order: list[str] = field(default_factory=list)
    began_at: float = 0.0
    ended: RunEnded | None = None
    ended_at: float = 0.0
    paused_by: str = ""
    waits_for: list[str] = field(default_factory=list)
    """The reasons for which it waits, as the run itself last reported."""
    root: StepNode = field(default_factory=lambda: StepNode(""))
    speaking: dict[str, StepNode] = field(default_factory=dict)
    """Execution → the step that it is an attempt at."""
    actions: dict[str, list[str]] = field(default_factory=dict)
    """Question → what can be decided, where it is known."""

    def put_in_order(self, steps: list[str]) -> None:
        """The steps of the plan: those that nobody spoke of yet are still to come."""
        self.order = steps
        for step in steps:
            self.node(step)

    @property
    def asked(self) -> list[PeopleAsked]:
        return [one for node in self.root.all_within() for one in node.asked.values()]

    def node(self, path: str) -> StepNode:
        """Return the node of a step's path, created on first mention."""
        found, so_far = self.root, ""
        for name, index in _PART.findall(path):
            so_far = f"{so_far}.{name}" if so_far else name
            found = found.within.setdefault(name, StepNode(name, so_far))
            if index:
                so_far += f"[{index}]"
                found = found.within.setdefault(f"[{index}]", StepNode(f"[{index}]", so_far, "item"))
        return found

    def apply(self, event: LiveEvent, at: float) -> None:
        """One event of the run, in their order, and its time in seconds."""
        match event:
            case RunBegan():
                self.began_at = at
                for path, status in event.kept.items():
                    self.node(path).status = status
            case StepBegan():
                self._began(event, at)
            case TokensCame():
                if speaker := self.speaking.get(event.execution):
                    assert speaker.attempt is not None
                    speaker.attempt.tokens += event.count
                    speaker.attempt.said = (speaker.attempt.said + event.text)[-_TAIL_CHARS:]
            case StepEnded():
                self._ended(event, at)
            case PeopleAsked():
                self.node(event.path).asked[event.task_id] = event
            case PeopleDecided():
                if event.closed:
                    self.node(event.path).asked.pop(event.task_id, None)
            case Steered():
                if event.action in ("pause", "resume"):
                    self.paused_by = event.actor if event.action == "pause" else ""
            case RunEnded():
                self.ended, self.ended_at = event, at

    def _began(self, event: StepBegan, at: float) -> None:
        node = self.node(event.path)
        node.kind, node.agent, node.model = event.kind, event.agent, event.model
        node.status, node.attempts, node.error = "running", max(node.attempts, event.attempt), ""
        node.execution = event.execution
        node.attempt = RunningAttempt(event.execution, event.agent, event.model, event.attempt, at)
        self.speaking[event.execution] = node

    def _ended(self, event: StepEnded, at: float) -> None:
        node = self.node(event.path)
        self.speaking.pop(event.execution, None)
        # A worker that was given up may end behind the beginning of the next attempt.
        newest = node.attempt is None or node.attempt.execution == event.execution or not event.execution
        if newest:
            node.status, node.execution = event.status, event.execution or node.execution
            node.error = event.error_code or ""
            if node.attempt:
                node.seconds = event.latency_ms / 1000 or max(at - node.attempt.began_at, 0.0)
            node.attempt = None
            node.asked.clear()
        node.kind, node.agent = event.kind or node.kind, event.agent or node.agent
        node.model = event.model or node.model
        node.attempts = max(node.attempts, event.attempt)
        node.tokens += event.input_tokens + event.output_tokens
        node.cost_usd += event.cost_usd
        node.simulated = node.simulated or event.simulated
