"""The rules that AG-UI's own client holds a stream to, on its own types."""

import json
from typing import Any

from ag_ui.core import Event
from pydantic import TypeAdapter

_EVENTS: TypeAdapter[Any] = TypeAdapter(Event)


def checked(data: str) -> dict[str, Any]:
    """One event; raises unless it is AG-UI's in every field."""
    found = json.loads(data)
    event = _EVENTS.validate_python(found)
    assert not event.model_extra, f"unknown fields: {event.model_extra}"
    return dict(found)


def verify(events: list[dict[str, Any]], *, whole: bool = True) -> dict[str, str]:
    """Hold a stream to its order; what each message came to."""
    assert events[0]["type"] in ("RUN_STARTED", "RUN_ERROR")
    messages: dict[str, str] = {}
    open_messages: set[str] = set()
    steps: set[str] = set()
    calls: dict[str, str] = {}
    ended = False
    for event in events:
        assert not ended, f"behind the end: {event}"
        match event["type"]:
            case "STEP_STARTED":
                assert event["stepName"] not in steps
                steps.add(event["stepName"])
            case "STEP_FINISHED":
                steps.remove(event["stepName"])
            case "TEXT_MESSAGE_START":
                assert event["messageId"] not in open_messages
                open_messages.add(event["messageId"])
                messages[event["messageId"]] = ""
            case "TEXT_MESSAGE_CONTENT":
                assert event["messageId"] in open_messages and event["delta"]
                messages[event["messageId"]] += event["delta"]
            case "TEXT_MESSAGE_END":
                open_messages.remove(event["messageId"])
            case "TOOL_CALL_START":
                assert event["toolCallId"] not in calls
                calls[event["toolCallId"]] = "open"
            case "TOOL_CALL_ARGS":
                assert calls[event["toolCallId"]] == "open"
            case "TOOL_CALL_END":
                calls[event["toolCallId"]] = "ended"
            case "RUN_FINISHED":
                assert not steps and not open_messages
                ended = True
            case "RUN_ERROR":
                ended = True
    assert ended or not whole
    return messages
