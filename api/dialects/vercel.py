"""The UI message stream of Vercel's AI SDK: a run is one message, each attempt of an agent a text part of it.

All of it is one step of theirs: the end of a step forgets the text parts under way, and ours speak at once.
"""

import json
from dataclasses import asdict
from typing import Any, Final, assert_never

from api.dialects.frames import CatchUp, Dialect, DialectFrame, as_sse, failure
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
from schema.values.foreign_json import NotJson, read_json

Part = dict[str, Any]

_DONE: Final = DialectFrame("[DONE]")


def parts(event: LiveEvent) -> list[Part]:
    """An event without what ends the stream."""
    match event:
        case RunBegan():
            return [*_started(event), _data("run", event.run_id, asdict(event))]
        case StepBegan():
            return [*_opened(event), _step(event, "running")]
        case TokensCame():
            return _said(event.execution, event.text)
        case StepEnded():
            closed = [{"type": "text-end", "id": event.execution}] if event.kind == AGENT else []
            return [*closed, _step(event, event.status)]
        case ToolsCalled():
            return [_tool_call(call) for call in event.calls]
        case ToolsReturned():
            return [_tool_result(result) for result in event.results]
        case PeopleAsked() | PeopleDecided():
            return [_data("people", event.task_id, asdict(event) | {"event": type(event).__name__})]
        case Steered():
            return [{"type": "data-steered", "data": asdict(event)}]
        case RunEnded():
            return _ended(event)
        case _:
            assert_never(event)


def joined(past: CatchUp) -> list[Part]:
    """Return the parts that bring a client up to date when it joins in the middle."""
    found = parts(past.began)
    found += [_step(ended, ended.status) for ended in past.ended]
    for ended, text in past.said:
        found += [
            _text_start(ended),
            *_said(ended.execution, text),
            {"type": "text-end", "id": ended.execution},
        ]
        if called := past.called.get(ended.execution):
            found += parts(called)
            found += parts(past.returned[called.path]) if called.path in past.returned else []
    for began, text in past.open:
        found += [*parts(began), *_said(began.execution, text)]
    return found


def _started(began: RunBegan) -> list[Part]:
    about = {"runId": began.run_id, "name": began.name, "version": began.version}
    start = {"type": "start", "messageId": began.run_id, "messageMetadata": about}
    return [start, {"type": "start-step"}]


def _opened(began: StepBegan) -> list[Part]:
    return [_text_start(began)] if began.kind == AGENT else []


def _text_start(of: StepBegan | StepEnded) -> Part:
    about = {"agent": of.agent, "path": of.path, "attempt": of.attempt}
    return {"type": "text-start", "id": of.execution, "providerMetadata": {"facilitair": about}}


def _said(execution: str, text: str) -> list[Part]:
    return [{"type": "text-delta", "id": execution, "delta": text}] if text else []


# The platform calls them: `providerExecuted` keeps a client from doing it, and `dynamic` from wanting a type.
_TOOL: Final = {"dynamic": True, "providerExecuted": True}


def _tool_call(call: dict[str, Any]) -> Part:
    part = {"type": "tool-input-available", "toolCallId": call["id"], "toolName": call["name"]}
    return part | {"input": _value(call["arguments"])} | _TOOL


def _tool_result(result: dict[str, Any]) -> Part:
    of_call = {"toolCallId": result["id"]} | _TOOL
    if result["error"]:
        return {"type": "tool-output-error", "errorText": result["content"]} | of_call
    return {"type": "tool-output-available", "output": _value(result["content"])} | of_call


def _value(text: str) -> Any:
    """The JSON in a text, else the text: a model may write arguments that are none."""
    try:
        return read_json(text)
    except NotJson:
        return text


def _step(of: StepBegan | StepEnded, status: str) -> Part:
    # One part per path: a later one takes its place. Superseded: what the attempt said is to be forgotten.
    return _data("step", of.path, asdict(of) | {"status": status})


def _data(name: str, id: str, data: Any) -> Part:
    return {"type": f"data-{name}", "id": id, "data": data}


def _ended(ended: RunEnded) -> list[Part]:
    end: Part
    if ended.status == "completed":
        end = {"type": "finish", "finishReason": "stop", "messageMetadata": {"costUsd": ended.cost_usd}}
    elif ended.sub_state == "cancelled":
        end = {"type": "abort", "reason": "Somebody stopped the run."}
    else:
        end = _error(ended.error_code or ended.status, failure(ended))
    return [{"type": "data-run", "id": "end", "data": asdict(ended)}, {"type": "finish-step"}, end]


def _error(code: str, message: str) -> Part:
    return {"type": "error", "errorText": f"{code}: {message}"}


def _blocks(found: list[Part]) -> list[DialectFrame]:
    return [DialectFrame(json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in found]


def _blocks_of(run: str, event: LiveEvent) -> list[DialectFrame]:
    found = _blocks(parts(event))
    return [*found, _DONE] if isinstance(event, RunEnded) else found


def _joined(past: CatchUp) -> list[DialectFrame]:
    return _blocks(joined(past))


def _refused(code: str, message: str) -> list[DialectFrame]:
    return [*_blocks([_error(code, message)]), _DONE]


VERCEL: Final = Dialect(
    "vercel", _blocks_of, _joined, _refused, as_sse, {"x-vercel-ai-ui-message-stream": "v1"}
)
