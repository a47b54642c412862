"""Definitions, an author's and a model's, that call the platform's own activities."""

from collections.abc import Iterator
from typing import Any, Final

from bench.security.cases.playing import HttpCase, RunCase
from schema.temporal.queues import PLATFORM_QUEUES

_ACTIVITIES: Final = (
    "finish",
    "record_decision",
    "steer",
    "pin",
    "begin_child",
    "agent",
    "register_checkpoint",
)
_PAUSE: Final[dict[str, Any]] = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}
_FORGED: Final = {
    "collaboration": "00000000-0000-4000-8000-000000000000",
    "tenant": "another",
    "status": "completed",
    "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
}


def cases() -> Iterator[HttpCase | RunCase]:
    """Return the cases. None of them may reach another run."""
    for queue in sorted(PLATFORM_QUEUES):
        for activity in _ACTIVITIES:
            for where, steps in _places({"activity": activity, "task_queue": queue, "args": _FORGED}):
                name, document = f"{activity} on {queue}, {where}", {"name": "hostile", "steps": steps}
                yield HttpCase(name, "POST", "/v1/definitions", 422, "queue_reserved", document)
                yield RunCase(f"planned: {name}", _PLANNER, {"plan": document}, ("plan_invalid",))
    own = {"activity": "anything", "task_queue": "mine", "args": {}}
    for where, steps in _places(own):
        document = {"name": "hostile", "steps": steps}
        yield RunCase(
            f"planned: a worker's activity, {where}", _PLANNER, {"plan": document}, ("plan_invalid",)
        )
    for what, document in _reaching_out():
        yield RunCase(f"planned: {what}", _PLANNER, {"plan": document}, ("plan_invalid",))


_PLANNER: Final[dict[str, Any]] = {
    "steps": {"work": {"kind": "collaboration", "definition": "${input.plan}", "input": {}}}
}


def _places(call: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a definition can call an activity."""
    step = {"kind": "tool", **call}
    yield "as a step", {"a": step}
    yield "to undo", {"a": {**_PAUSE, "compensate": call}}
    body = {"steps": {"b": step}, "output": 1}
    yield "in a map", {"a": {"kind": "map", "over": "[1]", "max_items": 1, "body": body}}
    yield "in a loop", {"a": {"kind": "loop", "max_iterations": 1, "body": body}}


def _reaching_out() -> Iterator[tuple[str, dict[str, Any]]]:
    call = {"url": "http://127.0.0.1/"}
    yield "http as a step", {"steps": {"a": {"kind": "tool", "tool": "http", "args": call}}}
    yield "http to undo", {"steps": {"a": {**_PAUSE, "compensate": {"tool": "http", "args": call}}}}
    agent = {"kind": "agent", "agent": "a", "prompt": "x"}
    yield "http by an agent", {"agents": {"a": {"role": "coder", "tools": ["http"]}}, "steps": {"a": agent}}
    yield "a stored definition", {"steps": {"a": {"kind": "collaboration", "ref": "neighbour", "input": {}}}}
