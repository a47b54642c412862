"""An answer as it comes: text, tool calls, usage, in OpenAI's words or in those that litellm translates."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.failures import BrokenAnswer, error_in
from gateway.finish_reasons import is_finish, reason_of
from gateway.request import ModelToolCall
from gateway.usage import NO_FIGURES, UsageCount, figures_in
from schema.values.foreign import clean_text
from schema.values.foreign_json import NotJson, read_json

SIMULATOR_FINGERPRINT: Final = "facilitair-simulator"
DONE: Final = b"[DONE]"
MAX_NAME_CHARS: Final = 200
"""Bound on ids and names from a provider, which rows and messages hold."""
_TEXT_PARTS: Final = (None, "text", "output_text")
_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_details", "thinking")


@dataclass(slots=True)
class _Parts:
    """A tool call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def goes_on(self, id: str, name: str) -> bool:
        """Tell whether a further piece with this id and name belongs to the call."""
        if id and self.id:
            return id == self.id
        # Servers that give no ids begin another call with its name, and some repeat the name in each piece.
        return not (name and self.name and self._has_all_arguments())

    def _has_all_arguments(self) -> bool:
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(read_json("".join(self.arguments)), dict)
        except NotJson:
            return False


@dataclass(slots=True)
class ResponseReader:
    """Reads a running answer."""

    translate: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None
    """Makes one of OpenAI's events of a provider's own; None for what OpenAI has no event for."""
    texts: list[str] = field(default_factory=list)
    model: str = ""
    response_id: str = ""
    finished: bool = False
    """Whether a finish reason has come, or an error that stands for one."""
    figures: UsageCount = NO_FIGURES
    simulated: bool = False
    done: bool = False
    unsaid_bytes: int = 0
    """Bytes of reasoning, billed as text is."""
    _reason: str = ""
    _failure: BrokenAnswer | None = None
    _refused: bool = False
    _half: str = ""
    """The first half of a surrogate pair whose second half may come with the next piece."""
    _calls: list[_Parts] = field(default_factory=list)
    _at: dict[int, _Parts] = field(default_factory=dict)

    def take(self, data: bytes) -> str | None:
        """The text of an event; None for one that brings nothing of the answer, such as a sign of life.

        Raises BrokenAnswer.
        """
        data = data.strip()
        if not data or data == DONE:
            self.done |= bool(data)
            return None
        try:
            event = read_json(data.decode("utf-8", "replace"))
            if self.translate is not None:
                event = self.translate(event)
                if event is None:
                    return None
            return self._event(event)
        except (BrokenAnswer, ValueError, TypeError, LookupError, AttributeError) as error:
            if self.complete:
                # Nothing that comes behind its end makes an answer worse.
                self.done = True
                return None
            if isinstance(error, BrokenAnswer):
                raise
            raise BrokenAnswer("an event of its answer cannot be read") from None

    def take_whole(self, body: bytes, translate: Callable[[Any], Mapping[str, Any]] | None = None) -> str:
        """The text of an answer that came in one piece; raises BrokenAnswer."""
        try:
            read = read_json(body.decode("utf-8-sig", "replace"))
            if translate is not None:
                read = translate(read)
            for choice in (read.get("choices") or ())[:1]:
                calls = (choice.get("message") or {}).get("tool_calls") or ()
                for number, call in enumerate(calls):
                    call["index"] = number
            return (self._event(read) or "") + self.end()
        except BrokenAnswer:
            raise
        except (ValueError, TypeError, LookupError, AttributeError):
            raise BrokenAnswer("its answer cannot be read") from None

    def end(self) -> str:
        """Return the text that was held back for a second half that never came."""
        text, self._half = clean_text(self._half), ""
        if text:
            self.texts.append(text)
        return text

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def complete(self) -> bool:
        """Tell whether the answer has its finish reason and its usage."""
        return self.finished and self.figures.complete

    @property
    def finish_reason(self) -> str:
        """The finish reason in our words; "" while the answer goes on."""
        if not self.finished:
            return ""
        good = self._reason in ("stop", "tool_calls")
        if good and self._calls:
            # Some servers end a call of tools like a text.
            return "tool_calls"
        if good and self._refused:
            return "refusal"
        return "empty" if good and not self.text.strip() else self._reason

    def check(self) -> None:
        """Raise BrokenAnswer where it has not ended, or has ended in a failure."""
        if not self.finished:
            raise BrokenAnswer("it ended its answer without a finish reason; try again")
        if self._failure is not None:
            raise self._failure

    def tool_calls(self) -> tuple[ModelToolCall, ...]:
        return tuple(
            ModelToolCall(
                parts.id or f"call_{number}", parts.name, clean_text("".join(parts.arguments)) or "{}"
            )
            for number, parts in enumerate(self._calls)
        )

    def said_bytes(self) -> int:
        """Return how long everything is that the model wrote, reasoning and tool calls included."""
        calls = sum(len(call.name) + len(call.arguments) for call in self.tool_calls())
        return len(self.text.encode()) + calls + self.unsaid_bytes

    def _event(self, event: Mapping[str, Any]) -> str | None:
        if not self.response_id or not self.model:
            self._head(event)
        if told := figures_in(event):
            self.figures |= told
        if error := event.get("error") or (event if event.get("object") == "error" else None):
            raise error_in(error)
        choices = event.get("choices")
        if not choices:
            return None
        choice = choices[0]
        delta = choice.get("delta") or choice.get("message") or {}
        content = delta.get("content")
        text = content if isinstance(content, str) else text_of(content)
        if not text and (refusal := text_of(delta.get("refusal"))):
            # What a model refuses to say takes the place of what it says.
            text, self._refused = refusal, True
        said = self._say(text or text_of(choice.get("text")))
        calls = self._take_calls(delta)
        ended = self._finish(choice)
        return said if text or said or calls or ended or self._reasons(delta) else None

    def _finish(self, choice: Mapping[str, Any]) -> bool:
        told, error = choice.get("finish_reason"), choice.get("error")
        if not error and not is_finish(told):
            return False
        self.finished = True
        if is_finish(told):
            self._reason = reason_of(told)
            if self._reason == "error":
                self._failure = BrokenAnswer(f"it broke its answer off with the finish reason {told!r}")
        if error:
            self._failure = error_in(error)
        return True

    def _head(self, event: Mapping[str, Any]) -> None:
        self.response_id = self.response_id or _name(event.get("id"))
        self.model = self.model or _name(event.get("model"))
        self.simulated |= event.get("system_fingerprint") == SIMULATOR_FINGERPRINT

    def _say(self, text: str) -> str:
        """The text as it can be kept: the halves of a surrogate pair may come in two pieces."""
        if not text:
            return ""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text = clean_text(text)
        if text:
            self.texts.append(text)
        return text

    def _reasons(self, delta: Mapping[str, Any]) -> bool:
        """Tell whether a delta is the model's reasoning, which is no part of its answer."""
        content = delta.get("content")
        thoughts = [part for part in content if not text_of(part)] if isinstance(content, list) else None
        thought = next((delta[name] for name in _REASONING if delta.get(name)), thoughts)
        if thought:
            self.unsaid_bytes += len(thought if isinstance(thought, str) else json.dumps(thought))
        return bool(thought)

    def _take_calls(self, delta: Mapping[str, Any]) -> bool:
        calls = delta.get("tool_calls") or ()
        for call in calls:
            self._take_call(call)
        if function := delta.get("function_call"):
            self._take_call({"index": 0, "function": function})
        return bool(calls or function)

    def _take_call(self, delta: Mapping[str, Any]) -> None:
        index, function = delta.get("index"), delta.get("function") or {}
        id, name = _name(delta.get("id")), _name(function.get("name"))
        at = index if isinstance(index, int) else len(self._calls) - 1
        parts = self._at.get(at)
        # Some servers send whole calls, and all of them as number 0.
        if parts is None or not parts.goes_on(id, name):
            parts = _Parts()
            self._calls.append(parts)
            self._at[at if isinstance(index, int) else len(self._calls) - 1] = parts
        parts.id = parts.id or id
        parts.name = parts.name or name
        if piece := function.get("arguments"):
            parts.arguments.append(piece if isinstance(piece, str) else json.dumps(piece))


def text_of(content: object) -> str:
    """Return the text of a message's content: the text itself, or the text parts of a list of parts.

    Thinking, references and pictures are left out. Raises BrokenAnswer for what is no content at all.
    """
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(text_of(part) for part in content)
        case Mapping():
            inner = content.get("text")
            said = inner.get("value") if isinstance(inner, Mapping) else inner
            return said if isinstance(said, str) and content.get("type") in _TEXT_PARTS else ""
        case _:
            raise BrokenAnswer(
                f"found {json.dumps(content)[:40]} as the content of its answer; expected text or a list of "
                "parts"
            )


def _name(value: object) -> str:
    return clean_text(str(value))[:MAX_NAME_CHARS] if isinstance(value, str | int) else ""
