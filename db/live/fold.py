"""Fold a snapshot into the events that a watcher has not been told. Pure.

Order: an execution begins, says its tokens, ends; the run ends last. Between executions the order is that in
which the reader found it, so two watchers may see parallel steps interleaved differently, but nothing is
lost, told twice or told in the wrong order: a `StreamPosition` names exactly what was told, whatever commits
late.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from db.live import tokens
from schema.live import (
    AGENT,
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    PlacedEvent,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    StreamPosition,
    TokensCame,
    ToolsCalled,
    ToolsReturned,
    key_of,
)

MAX_EVENTS: Final = 1_000


@dataclass(slots=True)
class Follower:
    """One watcher's way through a run, or that of many who have come equally far."""

    run: str
    """UUID."""
    place: StreamPosition = field(default_factory=StreamPosition)
    open: dict[str, StepBegan] = field(default_factory=dict)
    """Execution → what is under way and was told to have begun."""
    ended: bool = False
    behind: bool = True
    """Whether there was more than one read takes."""

    def asked(self) -> dict[str, Any]:
        place = self.place
        most = MAX_EVENTS + len(place.beyond)
        return {"run": self.run, "xid": str(place.xid), "seq": place.seq, "most": most}

    def told(self, execution: str) -> int:
        return self.place.open.get(key_of(execution), 0)


@dataclass(frozen=True, slots=True)
class FollowerView:
    """One snapshot's events for one follower."""

    events: list[Any]
    under_way: list[Any]
    kept: dict[str, str] = field(default_factory=dict)
    """Path → status of what a forked run took over."""
    end: Any = None
    """Facts about the run's end: error message and step, output."""

    def began(self, event: Any) -> StepBegan | None:
        """The beginning of an attempt that has failed."""
        if not failed(event):
            return None
        execution = event.payload["execution_id"]
        return next((began_of(row) for row in self.under_way if row.execution == execution), None)


@dataclass(frozen=True, slots=True)
class NewText:
    """New text of an execution."""

    text: str
    count: int
    at: datetime


NewTexts = dict[tuple[str, int], Any]
"""(execution, tokens told of it) → what came since."""


def failed(row: Any) -> bool:
    return bool(row.type == "AttemptFailed")


def may_have_spoken(row: Any) -> bool:
    return failed(row) or bool(row.type == "StepFinished" and row.payload["kind"] == AGENT)


def tell(follower: Follower, seen: FollowerView, said: NewTexts) -> list[PlacedEvent]:
    """Everything a snapshot holds that was not told, in order; the follower's place moves along."""
    follower.behind = len(seen.events) >= follower.asked()["most"]
    lives: list[PlacedEvent] = []
    for row in seen.under_way:
        # A worker died, and the next attempt has taken over: no event tells of it.
        if row.status == "abandoned" and row.execution in follower.open:
            ended, more = _end(follower, superseded(began_of(row)), row.started_at, said)
            lives += ended
            if more:  # it has to be forgotten before the attempt that follows it ends
                follower.behind = True
                return lives
    for row in seen.events:
        if row.seq not in follower.place.beyond:
            told, more = _event(follower, row, said, seen)
            lives += told
            if more:
                follower.behind = True
                return lives
        _pass(follower.place, row)
    if follower.ended:
        return lives
    if not follower.behind:
        for row in seen.under_way:
            if row.status == "running" and row.execution not in follower.open:
                lives.append(_begin(follower, began_of(row), row.started_at))
    return lives + listen(follower, said)


def listen(follower: Follower, said: NewTexts) -> list[PlacedEvent]:
    """Return the new text of running executions."""
    lives = []
    for began in follower.open.values():
        if row := said.get((began.execution, follower.told(began.execution))):
            follower.behind |= row.count >= tokens.MAX_TOKENS
            lives.append(_came(follower, began, row))
    return lives


def _event(
    follower: Follower, row: Any, said: NewTexts, seen: FollowerView
) -> tuple[list[PlacedEvent], bool]:
    """Return (the live events of one logged event, whether there is more to read before they are sent)."""
    if row.type in ("StepFinished", "AttemptFailed"):
        began = follower.open.get(row.payload["execution_id"]) or seen.began(row)
        return _end(follower, end_of(row.type, row.payload, began), row.created_at, said, row)
    event = plain_event(row.type, row.payload, seen.kept)
    if event is None:
        return [], False
    lives: list[PlacedEvent] = []
    if isinstance(event, RunEnded):
        lives, more = _close(follower, row.created_at, said)
        if more:
            return lives, True
        follower.ended = True
        event = with_end(event, seen.end)
    _pass(follower.place, row)
    return [*lives, PlacedEvent(str(follower.place), row.created_at, event)], False


def _close(follower: Follower, at: datetime, said: NewTexts) -> tuple[list[PlacedEvent], bool]:
    """The ends of what is under way when the run ends: a step that nobody waited for any more may have had
    none of its own."""
    lives: list[PlacedEvent] = []
    for began in list(follower.open.values()):
        told, more = _end(follower, superseded(began), at, said)
        lives += told
        if more:
            return lives, True
    return lives, False


def _end(
    follower: Follower, ended: StepEnded, at: datetime, said: NewTexts, row: Any = None
) -> tuple[list[PlacedEvent], bool]:
    """The end of an execution, behind all that it said and, where nobody knew of it, its beginning."""
    lives = []
    execution = ended.execution
    if execution not in follower.open:
        began = beginning_of(ended)
        lives.append(_begin(follower, began, at - timedelta(milliseconds=ended.latency_ms)))
    if more := said.get((execution, follower.told(execution))):
        lives.append(_came(follower, follower.open[execution], more))
        if more.count >= tokens.MAX_TOKENS:
            return lives, True
    del follower.open[execution]
    follower.place.open.pop(key_of(execution), None)
    if row is not None:
        _pass(follower.place, row)
    return [*lives, PlacedEvent(str(follower.place), at, ended)], False


def _begin(follower: Follower, began: StepBegan, at: datetime) -> PlacedEvent:
    follower.open[began.execution] = began
    follower.place.open[key_of(began.execution)] = 0
    return PlacedEvent(str(follower.place), at, began)


def _came(follower: Follower, began: StepBegan, row: Any) -> PlacedEvent:
    first = follower.told(began.execution)
    follower.place.open[key_of(began.execution)] = first + row.count
    event = TokensCame(began.execution, began.path, row.text, first, row.count, began.agent)
    return PlacedEvent(str(follower.place), row.at, event)


def _pass(place: StreamPosition, row: Any) -> None:
    """The watcher knows of this event from now on."""
    if row.settled:
        place.xid, place.seq = row.xid, row.seq
        place.beyond.discard(row.seq)
    else:
        place.beyond.add(row.seq)


def began_of(row: Any) -> StepBegan:
    return StepBegan(row.execution, row.path, row.step, row.kind, row.attempt, row.agent, row.model)


def superseded(step: StepBegan) -> StepEnded:
    """The end of an attempt that the next one took over from."""
    return StepEnded(
        step.execution, step.path, step.step, step.kind, step.attempt, step.agent, "superseded", step.model
    )


def beginning_of(ended: StepEnded) -> StepBegan:
    """Return the beginning of an attempt that was missed, to be told first."""
    return StepBegan(
        ended.execution, ended.path, ended.step, ended.kind, ended.attempt, ended.agent, ended.model
    )


def end_of(type: str, facts: dict[str, Any], began: StepBegan | None) -> StepEnded:
    """Return the end of a finished or failed attempt; its agent may be known from its beginning only."""
    # An attempt that a model calls tools with ends under another path than it began.
    execution, path = facts["execution_id"], began.path if began else facts.get("path") or facts["step"]
    if type == "StepFinished":
        return StepEnded(
            execution,
            path,
            facts["step"],
            facts["kind"],
            facts["attempt"],
            facts["agent"],
            "completed",
            facts["model"],
            facts["input_tokens"],
            facts["output_tokens"],
            float(facts["cost_usd"]),
            facts["latency_ms"],
            simulated=facts["simulated"],
        )
    return StepEnded(
        execution,
        path,
        facts["step"],
        began.kind if began else "",
        facts["attempt"],
        began.agent if began else "",
        "failed",
        began.model if began else "",
        cost_usd=float(facts["cost_usd"]),
        error_code=facts["error_code"],
        error_message=facts.get("error_message", ""),
    )


def with_end(ended: RunEnded, row: Any) -> RunEnded:
    """Return the end of a run with what its event does not hold."""
    if row is None:
        return ended
    return replace(
        ended, error_message=row.error_message or "", error_step=row.error_step or "", output=row.output
    )


def plain_event(type: str, facts: dict[str, Any], kept: dict[str, str]) -> LiveEvent | None:
    match type:
        case "CollaborationStarted":
            return RunBegan(
                facts["temporal_workflow_id"],
                facts["collaboration_id"],
                facts["name"],
                facts["version"],
                facts["task"],
                kept,
                facts.get("forked_from") or "",
            )
        case "StepSkipped":
            return StepEnded("", facts.get("path") or facts["step"], facts["step"], "", 0, "", "skipped")
        case "StepCaught":
            return StepEnded(
                "", facts["path"], facts["step"], "", 0, "", "caught", error_code=facts["error_code"]
            )
        case "ToolsCalled":
            return ToolsCalled(facts["execution_id"], facts["path"], facts["agent"], facts["calls"])
        case "ToolsReturned":
            return ToolsReturned(facts["path"], facts["results"])
        case "HumanAsked":
            return PeopleAsked(
                facts["task_id"],
                facts["path"],
                facts["title"],
                facts["assignees"],
                facts.get("actions", []),
                facts.get("form"),
                facts.get("show"),
            )
        case "HumanDecided":
            return PeopleDecided(
                facts["task_id"], facts["path"], facts["actor"], facts["action"], facts["closed"]
            )
        case "RunSteered":
            return Steered(facts["action"], facts["actor"], facts["detail"])
        case "CollaborationFinished":
            return RunEnded(
                facts["status"],
                facts["sub_state"],
                facts["error_code"],
                float(facts["cost_usd"]),
                facts["quality"],
                facts["latency_ms"],
                facts.get("tokens", 0),
                facts.get("simulated", False),
            )
    return None
