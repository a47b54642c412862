"""AG-UI 1.0: a run is a RUN, an attempt at a step a STEP, what an agent says a TEXT_MESSAGE, the rest state.

A STEP is opened and closed with every attempt and not once per path: which attempt comes first, a client who
joins late could not know, and a STEP may be opened again when it was closed.
"""

import json
from dataclasses import asdict
from typing import Any, Final, assert_never

from api.dialects.frames import CatchUp, Dialect, DialectFrame, as_sse, failure
from schema.language.templates import escape
from schema.live import (
    AGENT,
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
    ToolsCalled,
    ToolsReturned,
)

PROTOCOL: Final = "1.0"

Event = dict[str, Any]


def events(run: str, event: LiveEvent) -> list[Event]:
    """An event as AG-UI has it."""
    match event:
        case RunBegan():
            return [_run_started(event), _snapshot(event, _kept(event))]
        case StepBegan():
            return [*_opened(event), _changed(event.path, _under_way(event))]
        case TokensCame():
            return _said(event.execution, event.text)
        case StepEnded(execution=""):
            return _passed(event)
        case StepEnded():
            return _ended(event)
        case ToolsCalled():
            return [part for call in event.calls for part in _tool_call(event.execution, call)]
        case ToolsReturned():
            return [_tool_result(result) for result in event.results]
        case PeopleAsked():
            return [_custom("people_asked", asdict(event))]
        case PeopleDecided():
            return [_custom("people_decided", asdict(event))]
        case Steered():
            return [_custom("steered", asdict(event))]
        case RunEnded():
            return _run_ended(run, event)
        case _:
            assert_never(event)


def joined(past: CatchUp) -> list[Event]:
    """Return the events that bring a client up to date when it joins in the middle."""
    steps = _kept(past.began)
    steps |= {ended.path: _facts(ended) for ended in past.ended}
    steps |= {began.path: _under_way(began) for began, _ in past.open}
    messages = [message for ended, text in past.said for message in _messages_of(ended, text, past)]
    found = [
        _run_started(past.began),
        {"type": "MESSAGES_SNAPSHOT", "messages": messages},
        _snapshot(past.began, steps),
    ]
    for began, text in past.open:
        found += [*_opened(began), *_said(began.execution, text)]
    return found


def _messages_of(ended: StepEnded, text: str, past: CatchUp) -> list[Event]:
    said: Event = {"id": ended.execution, "role": "assistant", "name": ended.agent, "content": text}
    called = past.called.get(ended.execution)
    if called is None:
        return [said]
    functions = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for call in called.calls
    ]
    results = past.returned[called.path].results if called.path in past.returned else []
    return [said | {"toolCalls": functions}, *(_tool_message(one) for one in results)]


def _run_started(began: RunBegan) -> Event:
    found = {
        "type": "RUN_STARTED",
        "threadId": began.run_id,
        "runId": began.run_id,
        "protocolVersion": PROTOCOL,
    }
    return found | {"parentRunId": began.forked_from} if began.forked_from else found


def _snapshot(began: RunBegan, steps: dict[str, Any]) -> Event:
    run = {
        "id": began.id,
        "runId": began.run_id,
        "name": began.name,
        "version": began.version,
        "task": began.task,
        "status": "running",
    }
    return {"type": "STATE_SNAPSHOT", "snapshot": {"run": run, "steps": steps}}


def _kept(began: RunBegan) -> dict[str, Any]:
    return {path: {"status": status, "kept": True} for path, status in began.kept.items()}


def _opened(began: StepBegan) -> list[Event]:
    found: list[Event] = [{"type": "STEP_STARTED", "stepName": began.path}]
    if began.kind == AGENT:
        found.append(
            {
                "type": "TEXT_MESSAGE_START",
                "messageId": began.execution,
                "role": "assistant",
                "name": began.agent,
            }
        )
    return found


def _said(execution: str, text: str) -> list[Event]:
    # The protocol refuses an empty delta; a token may be nothing but a NUL, which is kept nowhere.
    return [{"type": "TEXT_MESSAGE_CONTENT", "messageId": execution, "delta": text}] if text else []


def _tool_call(execution: str, call: dict[str, Any]) -> list[Event]:
    of_call = {"toolCallId": call["id"]}
    start = {"type": "TOOL_CALL_START", "toolCallName": call["name"], "parentMessageId": execution} | of_call
    arguments = {"type": "TOOL_CALL_ARGS", "delta": call["arguments"]} | of_call
    return [start, arguments, {"type": "TOOL_CALL_END"} | of_call]


def _tool_message(result: dict[str, Any]) -> Event:
    message: Event = {
        "id": f"{result['id']}:result",
        "role": "tool",
        "toolCallId": result["id"],
        "content": result["content"],
    }
    return message | ({"error": result["error"]} if result["error"] else {})


def _tool_result(result: dict[str, Any]) -> Event:
    return {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{result['id']}:result",
        "toolCallId": result["id"],
        "content": result["content"],
        "role": "tool",
    }


def _passed(ended: StepEnded) -> list[Event]:
    """A step that was skipped, or whose failure was caught: no attempt of its own ended."""
    opened: list[Event] = []
    if ended.status == "skipped":
        opened = [{"type": f"STEP_{what}", "stepName": ended.path} for what in ("STARTED", "FINISHED")]
    return [*opened, _changed(ended.path, _facts(ended))]


def _ended(ended: StepEnded) -> list[Event]:
    found: list[Event] = []
    if ended.kind == AGENT:
        found.append({"type": "TEXT_MESSAGE_END", "messageId": ended.execution})
    if ended.status in ("superseded", "failed"):
        name = "superseded" if ended.status == "superseded" else "attempt_failed"
        found.append(
            _custom(
                name,
                {
                    "messageId": ended.execution,
                    "path": ended.path,
                    "attempt": ended.attempt,
                    "code": ended.error_code,
                    "message": ended.error_message,
                },
            )
        )
    finished = {"type": "STEP_FINISHED", "stepName": ended.path}
    return [*found, finished, _changed(ended.path, _facts(ended))]


def _run_ended(run: str, ended: RunEnded) -> list[Event]:
    completed = ended.status == "completed"
    status = {
        "op": "replace",
        "path": "/run/status",
        "value": ended.status if completed else ended.sub_state or ended.status,
    }
    changed = {"type": "STATE_DELTA", "delta": [status]}
    if not completed and ended.sub_state != "cancelled":
        return [changed, error(ended.error_code or ended.status, failure(ended))]
    finished = {"type": "RUN_FINISHED", "threadId": run, "runId": run, "result": asdict(ended)}
    return [
        changed,
        finished | {"outcome": {"type": "success" if completed else "cancelled"}},
    ]


def error(code: str, message: str) -> Event:
    return {"type": "RUN_ERROR", "message": message, "code": code}


def _custom(name: str, value: Any) -> Event:
    return {"type": "CUSTOM", "name": name, "value": value}


def _changed(path: str, value: dict[str, Any]) -> Event:
    # `add` replaces what is there.
    return {"type": "STATE_DELTA", "delta": [{"op": "add", "path": f"/steps/{escape(path)}", "value": value}]}


def _under_way(began: StepBegan) -> dict[str, Any]:
    return {
        "status": "running",
        "kind": began.kind,
        "agent": began.agent,
        "model": began.model,
        "attempt": began.attempt,
        "messageId": began.execution,
    }


def _facts(ended: StepEnded) -> dict[str, Any]:
    if not ended.execution:
        return {"status": ended.status} | ({"code": ended.error_code} if ended.error_code else {})
    return {
        "status": ended.status,
        "kind": ended.kind,
        "agent": ended.agent,
        "model": ended.model,
        "attempt": ended.attempt,
        "messageId": ended.execution,
        "inputTokens": ended.input_tokens,
        "outputTokens": ended.output_tokens,
        "costUsd": ended.cost_usd,
        "latencyMs": ended.latency_ms,
        "simulated": ended.simulated,
        "code": ended.error_code,
    }


def _blocks(found: list[Event]) -> list[DialectFrame]:
    return [DialectFrame(json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in found]


def _blocks_of(run: str, event: LiveEvent) -> list[DialectFrame]:
    return _blocks(events(run, event))


def _joined(past: CatchUp) -> list[DialectFrame]:
    return _blocks(joined(past))


def _refused(code: str, message: str) -> list[DialectFrame]:
    return _blocks([error(code, message)])


AGUI: Final = Dialect("agui", _blocks_of, _joined, _refused, as_sse)
