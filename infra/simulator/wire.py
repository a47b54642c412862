"""Write answers: OpenAI's JSON, server-sent events, and errors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from json.encoder import encode_basestring as quoted
from typing import Final

from starlette.types import Send

from infra.simulator.faults import FaultRule
from infra.simulator.ledger import SimulatedCall

MARK: Final = {"x-facilitair-simulated": "true"}
FINGERPRINT: Final = "facilitair-simulator"
DONE: Final = "data: [DONE]\n\n"
TOKENS_PER_CHUNK: Final = 8
# Letters of all languages as they are, as providers write them. Making an encoder costs more than its use.
_json: Final = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call in an answer: its name is the token at `start`, its arguments are those up to `end`."""

    id: str
    start: int
    end: int


@dataclass(frozen=True)
class Reply:
    """One answer on its way out."""

    call: SimulatedCall
    created: int
    tokens: list[str]
    tools: tuple[ToolUse, ...]
    """In order, after the text."""
    finish_reason: str
    input_tokens: int
    include_usage: bool
    fault: FaultRule | None

    @cached_property
    def text_end(self) -> int:
        """Number of text tokens; tool calls follow."""
        return self.tools[0].start if self.tools else len(self.tokens)

    def usage(self) -> dict[str, int]:
        made = len(self.tokens)
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": made,
            "total_tokens": self.input_tokens + made,
        }

    def head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.call.id,
            "object": kind,
            "created": self.created,
            "model": self.call.model,
            "system_fingerprint": FINGERPRINT,
        }

    def whole(self) -> bytes:
        """The answer in one piece."""
        text = "".join(self.tokens[: self.text_end])
        message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
        if self.tools:
            message |= {"content": text or None, "tool_calls": [self._tool_call(each) for each in self.tools]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        body = self.head("chat.completion") | {"choices": [choice]}
        if self.include_usage:
            body["usage"] = self.usage()
        return encoded(_json(body))

    def events(self, start: int, end: int, size: int = TOKENS_PER_CHUNK) -> list[str]:
        """The tokens from `start` to `end` as events of at most `size`."""
        before, after = self._around_text
        tokens, text_end = self.tokens, min(end, self.text_end)
        if size == 1:
            return [before + quoted(token) + after for token in tokens[start:text_end]] + self._uses(
                start, end, 1
            )
        starts = range(start, text_end, size)
        parts = ["".join(tokens[first : min(first + size, text_end)]) for first in starts]
        return [before + quoted(part) + after for part in parts] + self._uses(start, end, size)

    def _uses(self, start: int, end: int, size: int) -> list[str]:
        """The tool calls among the tokens: each begins with its name, its arguments follow in pieces."""
        found: list[str] = []
        for index, tool in enumerate(self.tools):
            if start <= tool.start < end:
                found.append(self._event({"tool_calls": [{"index": index, **self._tool_call(tool, "")}]}))
            for first in range(max(start, tool.start + 1), min(end, tool.end), size):
                arguments = "".join(self.tokens[first : min(first + size, end, tool.end)])
                part = {"index": index, "function": {"arguments": arguments}}
                found.append(self._event({"tool_calls": [part]}))
        return found

    def opening(self) -> str:
        return self._event({"role": "assistant", "content": "", "refusal": None})

    def closing(self) -> list[str]:
        """The event that says why the answer ends, and the one with its account."""
        last = [self._event({}, self.finish_reason)]
        if self.include_usage:
            chunk = self.head("chat.completion.chunk") | {"choices": [], "usage": self.usage()}
            last.append(f"data: {_json(chunk)}\n\n")
        return last

    def _tool_call(self, tool: ToolUse, arguments: str | None = None) -> dict[str, object]:
        if arguments is None:
            arguments = "".join(self.tokens[tool.start + 1 : tool.end])
        function = {"name": self.tokens[tool.start], "arguments": arguments}
        return {"id": tool.id, "type": "function", "function": function}

    def _event(self, delta: Mapping[str, object], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self.head("chat.completion.chunk") | {"choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return f"data: {_json(chunk)}\n\n"

    @cached_property
    def _around_text(self) -> tuple[str, str]:
        """An event of text before and after its text: thousands of streams share one core."""
        before, _, after = self._event({"content": ""}).partition('"content": ""')
        return f'{before}"content": ', after


def encoded(text: str) -> bytes:
    """Half a surrogate pair, which JSON can smuggle in, becomes a question mark."""
    return text.encode("utf-8", "replace")


async def start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """The head of a response."""
    pairs = [(name.encode(), value.encode()) for name, value in {**MARK, **headers}.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def write(send: Send, body: bytes, more: bool = False) -> None:
    """A part of a response's body, by default the last."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def respond(send: Send, status: int, body: bytes, headers: Mapping[str, str] = MARK) -> None:
    """A whole response in JSON."""
    length = {"content-type": "application/json", "content-length": str(len(body))}
    await start(send, status, {**length, **headers})
    await write(send, body)


def error_body(status: int, code: str, message: str, kind: str = "") -> bytes:
    """Return the body of a refusal."""
    return json.dumps({"error": error_of(status, code, message, kind)}).encode()


def error_of(status: int, code: str, message: str, kind: str = "") -> dict[str, object]:
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "requests", 529: "overloaded_error"}
    usual = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind or usual, "param": None, "code": code}
