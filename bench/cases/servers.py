"""What a case's platform talks to: a provider that says what it is told to, and a page."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.cases.case import Case, Page

NEIGHBOUR: Final = "neighbour"
"""The model of the neighbour's run, where the case brings no neighbour of its own."""
_HELLO: Final = [
    'data: {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": null}]}\n\n',
    'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
    'data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}\n\n',
    "data: [DONE]\n\n",
]
_EVENTS: Final = {"Content-Type": "text/event-stream"}


@dataclass(frozen=True)
class ProviderCall:
    """A call that the provider got."""

    body: dict[str, Any]
    script: str
    """The file of the answers; empty for the neighbour's call."""


@dataclass
class Provider:
    """A provider's server on loopback, which answers what the case says."""

    case: Case
    host: str = ""
    asked: list[ProviderCall] = field(default_factory=list)

    @property
    def asked_by_runs(self) -> list[ProviderCall]:
        return [call for call in self.asked if call.script]

    async def answer(self, _: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        request = json.loads(body or b"{}")
        model = str(request.get("model", "")).rpartition("/")[2]
        if model == NEIGHBOUR or model in self.case.neighbours_models:
            self.asked.append(ProviderCall(request, ""))
            await _write(writer, 200, _EVENTS, _HELLO)
            return
        script = self.case.script(model)
        before = sum(1 for call in self.asked if call.script == script)
        self.asked.append(ProviderCall(request, script))
        answers = self.case.answers(script)
        answer = answers[min(before, len(answers) - 1)]
        if answer.get("refuse_repeated_tool_call_ids") and (fault := _fault_of_ids(request)):
            refusal = json.dumps({"error": {"message": fault, "type": "invalid_request_error"}})
            await _write(writer, 400, {"Content-Type": "application/json"}, [refusal])
            return
        headers = _EVENTS | answer.get("headers", {})
        await _write(writer, int(answer.get("status", 200)), headers, answer.get("pieces", []))


@dataclass
class PageServer:
    """The page of a case, and how often it was fetched."""

    page: Page
    served: int = 0

    async def answer(self, line: str, _: bytes, writer: asyncio.StreamWriter) -> None:
        if line != f"{self.page.method} {self.page.path}":
            await _write(writer, 404, {}, [])
            return
        self.served += 1
        length = {"Content-Length": str(len(self.page.body))}
        writer.write(_head(200, dict(self.page.headers) | length) + self.page.body)
        await writer.drain()


def _fault_of_ids(request: dict[str, Any]) -> str:
    """Return what is wrong with the ids of tool calls and their results; empty where nothing is."""
    known = set[str]()
    for message in request.get("messages", []):
        for call in message.get("tool_calls") or ():
            if call.get("id") in known:
                return f"Duplicate tool call id: {call.get('id')}"
            known.add(call.get("id"))
        if message.get("role") == "tool" and message.get("tool_call_id") not in known:
            return f"No tool call has the id {message.get('tool_call_id')}"
    return ""


async def _write(
    writer: asyncio.StreamWriter, status: int, headers: dict[str, str], pieces: Sequence[str | float]
) -> None:
    """Write an answer piece by piece; a number is so many seconds of silence."""
    writer.write(_head(status, headers))
    for piece in pieces:
        if isinstance(piece, str):
            writer.write(piece.encode("utf-8", "surrogatepass"))
            await writer.drain()
        else:
            await asyncio.sleep(piece)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in {**headers, "Connection": "close"}.items()]
    return "\r\n".join([f"HTTP/1.1 {status} -", *lines, "", ""]).encode()
