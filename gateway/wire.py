"""An answer as it comes: text, tool calls, usage, in OpenAI's words or in those that litellm translates."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from gateway.failures import BrokenAnswer, error_in
from gateway.request import ToolCall, Usage
from schema.foreign_json import read_json

SIMULATOR_FINGERPRINT: Final = "facilitair-simulator"
DONE: Final = b"[DONE]"


@dataclass(slots=True)
class _Parts:
    """A tool call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """What is known of a running answer."""

    translate: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None
    """Makes one of OpenAI's events of a provider's own; None for what OpenAI has no event for."""
    texts: list[str] = field(default_factory=list)
    model: str = ""
    response_id: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    simulated: bool = False
    done: bool = False
    _calls: list[_Parts] = field(default_factory=list)
    _at: dict[int, _Parts] = field(default_factory=dict)

    def take(self, data: bytes) -> str | None:
        """The text of an event; None for one that brings nothing of the answer, such as a sign of life.

        Raises BrokenAnswer.
        """
        if data == DONE:
            self.done = True
            return None
        try:
            event = read_json(data)
            if self.translate is not None:
                event = self.translate(event)
                if event is None:
                    return None
            return self._event(event)
        except BrokenAnswer:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise BrokenAnswer(f"an event of its answer cannot be read ({type(error).__name__})") from None

    def take_whole(self, body: bytes, translate: Callable[[Any], Mapping[str, Any]] | None = None) -> str:
        """The text of an answer that came in one piece; raises BrokenAnswer."""
        try:
            read = read_json(body)
            if translate is not None:
                read = translate(read)
            for choice in (read.get("choices") or ())[:1]:
                choice["delta"] = choice.get("message") or {}
            return self._event(read) or ""
        except BrokenAnswer:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise BrokenAnswer(f"its answer cannot be read ({type(error).__name__})") from None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(parts.id or f"call_{number}", parts.name, "".join(parts.arguments) or "{}")
            for number, parts in enumerate(self._calls)
        )

    def missing(self) -> str:
        """What an answer must have and this one has not; "" when it is complete."""
        if not self.finish_reason:
            return "a finish reason"
        return "" if self.usage else "its usage"

    def _event(self, event: Mapping[str, Any]) -> str | None:
        if not self.response_id or not self.model:
            self._head(event)
        if event.get("error"):
            raise error_in(event["error"])
        if usage := event.get("usage"):
            self._count(usage)
        choices = event.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if finish := choice.get("finish_reason"):
            self.finish_reason = finish
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._call(call)
        # What a model refuses to say takes the place of what it says.
        if text := delta.get("content") or delta.get("refusal"):
            if not isinstance(text, str):
                raise TypeError("text is not a string")
            self.texts.append(text)
            return text
        alive = finish or delta.get("tool_calls") or delta.get("reasoning_content") or delta.get("reasoning")
        return "" if alive else None

    def _head(self, event: Mapping[str, Any]) -> None:
        self.response_id = self.response_id or event.get("id") or ""
        self.model = self.model or event.get("model") or ""
        self.simulated |= event.get("system_fingerprint") == SIMULATOR_FINGERPRINT

    def _count(self, usage: Mapping[str, Any]) -> None:
        into, out = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not (_is_count(into) and _is_count(out)):
            return
        details = usage.get("prompt_tokens_details") or {}
        # DeepSeek has a name of its own.
        cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
        self.usage = Usage(into, out, min(cached, into) if _is_count(cached) else 0)

    def _call(self, delta: Mapping[str, Any]) -> None:
        index, function = delta.get("index"), delta.get("function") or {}
        at = index if isinstance(index, int) else len(self._calls) - (0 if delta.get("id") else 1)
        parts = self._at.get(at)
        # Some servers send whole calls, and all of them as number 0.
        if parts is None or (delta.get("id") and parts.id and delta["id"] != parts.id):
            parts = self._at[at] = _Parts()
            self._calls.append(parts)
        parts.id = parts.id or delta.get("id") or ""
        parts.name = parts.name or function.get("name") or ""
        if piece := function.get("arguments"):
            parts.arguments.append(piece if isinstance(piece, str) else json.dumps(piece))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
