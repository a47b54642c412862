"""Messages of a WebSocket: AG-UI's events, and in plain words what an agent says.

`agent` and `content` stand beside the event for a client that wants nothing but these.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from api.dialects import agui
from api.dialects.frames import CatchUp, Dialect, DialectFrame
from schema.live import LiveEvent, TokensCame


def _blocks_of(run: str, event: LiveEvent) -> list[DialectFrame]:
    speakers = {event.execution: event.agent} if isinstance(event, TokensCame) else {}
    return _blocks(agui.events(run, event), speakers)


def _joined(past: CatchUp) -> list[DialectFrame]:
    return _blocks(agui.joined(past), {began.execution: began.agent for began, _ in past.open})


def _refused(code: str, message: str) -> list[DialectFrame]:
    return _blocks([agui.error(code, message)], {})


def _blocks(events: list[agui.Event], speakers: Mapping[str, str]) -> list[DialectFrame]:
    return [DialectFrame(_fields(_plain_words(event, speakers) | {"event": event})) for event in events]


def _plain_words(event: agui.Event, speakers: Mapping[str, str]) -> dict[str, Any]:
    if event["type"] != "TEXT_MESSAGE_CONTENT":
        return {}
    return {"agent": speakers[event["messageId"]], "content": event["delta"]}


def _fields(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))[1:]


def _as_message(id: str, block: DialectFrame) -> bytes:
    """Write a message, and the line's end that divides it from the next in a frame."""
    return f'{{"type":"event","seq":"{id}",{block.data}\n'.encode("utf-8", "replace")


SOCKET: Final = Dialect("socket", _blocks_of, _joined, _refused, _as_message)
