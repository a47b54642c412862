"""Read AG-UI events of the API's stream back into what happened."""

from collections.abc import Iterator
from typing import Any, Final

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

CHARS_PER_TOKEN: Final = 4


class Reader:
    """Reads one run's stream, event after event."""

    def __init__(self) -> None:
        self._status = ""

    def read(self, event: dict[str, Any]) -> Iterator[LiveEvent]:
        """Return the live event in an AG-UI event; nothing if another event says it better."""
        match event["type"]:
            case "STATE_SNAPSHOT":
                yield from _snapshot(event["snapshot"])
            case "STATE_DELTA":
                for change in event["delta"]:
                    yield from self._changed(change)
            case "TEXT_MESSAGE_CONTENT":
                # How many tokens they are only the end of the step says.
                about = max(len(event["delta"]) // CHARS_PER_TOKEN, 1)
                yield TokensCame(event["messageId"], "", event["delta"], 0, about)
            case "CUSTOM":
                yield from _custom(event["name"], event["value"])
            case "RUN_FINISHED":
                yield RunEnded(**event["result"])
            case "RUN_ERROR" if self._status:
                cancelled = "" if self._status == "failed" else self._status
                yield RunEnded("failed", cancelled, event.get("code"), 0.0, None, 0)

    def _changed(self, change: dict[str, Any]) -> Iterator[LiveEvent]:
        root, _, name = change["path"].removeprefix("/").partition("/")
        if root == "steps":
            yield _step(name.replace("~1", "/").replace("~0", "~"), change["value"])
        elif change["path"] == "/run/status":
            self._status = change["value"]


def _snapshot(snapshot: dict[str, Any]) -> Iterator[LiveEvent]:
    run, steps = snapshot["run"], snapshot["steps"]
    kept = {path: facts["status"] for path, facts in steps.items() if facts.get("kept")}
    yield RunBegan(run["id"], run["runId"], run["name"], run["version"], run["task"], kept=kept)
    for path, facts in steps.items():
        if path not in kept:
            yield _step(path, facts)


def _step(path: str, facts: dict[str, Any]) -> StepBegan | StepEnded:
    execution, step = facts.get("messageId", ""), path.rpartition(".")[2]
    kind, agent, model = (facts.get(key) or "" for key in ("kind", "agent", "model"))
    attempt = facts.get("attempt", 0)
    if facts["status"] == "running":
        return StepBegan(execution, path, step, kind, attempt, agent, model)
    return StepEnded(
        execution,
        path,
        step,
        kind,
        attempt,
        agent,
        facts["status"],
        model,
        facts.get("inputTokens", 0),
        facts.get("outputTokens", 0),
        facts.get("costUsd", 0.0),
        facts.get("latencyMs", 0),
        facts.get("code"),
        facts.get("simulated", False),
    )


def _custom(name: str, value: dict[str, Any]) -> Iterator[LiveEvent]:
    if name == "people_asked":
        yield PeopleAsked(**value)
    elif name == "people_decided":
        yield PeopleDecided(**value)
    elif name == "steered":
        yield Steered(**value)
