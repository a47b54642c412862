"""Requests and tokens per sliding minute, enforced as OpenAI does: 429, and headers that say what is left."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MINUTE: Final = 60.0
EVERY_MODEL: Final = "*"
MAX_LIMITS: Final = 1000


class LimitError(ValueError):
    """A limit that cannot be understood."""


@dataclass(slots=True, eq=False)
class AdmittedCall:
    """One call that was let in, with the tokens it counts for."""

    at: float
    tokens: int
    windows: list["Window"] = field(default_factory=list)

    def correct(self, tokens: int) -> None:
        """Replace the estimate by the billed tokens."""
        for window in self.windows:
            window.tokens += tokens - self.tokens
        self.tokens = tokens


@dataclass(slots=True, eq=False)
class Window:
    """The last minute of one model, or of all together."""

    model: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    entries: deque[AdmittedCall] = field(default_factory=deque)
    tokens: int = 0
    rejected: int = 0

    def forget(self, now: float) -> None:
        """Let go of what is older than a minute."""
        while self.entries and self.entries[0].at <= now - MINUTE:
            oldest = self.entries.popleft()
            oldest.windows.remove(self)
            self.tokens -= oldest.tokens

    def wait(self, now: float, tokens: int) -> tuple[float, str]:
        """Seconds until a call of so many tokens is let in, and what it waits for; (0, "") is at once."""
        requests, limit = self.requests_per_minute, self.tokens_per_minute
        wait, kind = 0.0, ""
        if requests is not None and len(self.entries) >= requests:
            leaves = self.entries[len(self.entries) - requests].at if requests else math.inf
            wait, kind = leaves + MINUTE - now, "requests"
        if limit is not None and self.tokens + tokens > limit:
            until = self._until_free(now, self.tokens + tokens - limit)
            if until > wait:
                wait, kind = until, "tokens"
        return wait, kind

    def _until_free(self, now: float, tokens: int) -> float:
        for entry in self.entries:
            tokens -= entry.tokens
            if tokens <= 0:
                return entry.at + MINUTE - now
        return math.inf

    def headers(self, now: float) -> dict[str, str]:
        """Return the rest of this window, as OpenAI's headers."""
        found: dict[str, str] = {}
        oldest = self.entries[0].at + MINUTE - now if self.entries else 0.0
        newest = self.entries[-1].at + MINUTE - now if self.entries else 0.0
        if self.requests_per_minute is not None:
            left = max(0, self.requests_per_minute - len(self.entries))
            found |= _left("requests", self.requests_per_minute, left, oldest)
        if self.tokens_per_minute is not None:
            left = max(0, self.tokens_per_minute - self.tokens)
            found |= _left("tokens", self.tokens_per_minute, left, newest if self.tokens else 0.0)
        return found

    def as_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "requests": len(self.entries),
            "tokens": self.tokens,
            "rejected": self.rejected,
        }


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that has to come later; `wait_seconds` is infinite where it never fits."""

    message: str
    kind: str
    wait_seconds: float
    headers: Mapping[str, str]


@dataclass(slots=True)
class SimulatedLimits:
    """The limits in force, by model; "*" holds for all calls together and beside the model's own."""

    windows: dict[str, Window] = field(default_factory=dict)

    def set(self, document: object) -> Window:
        """Take over a limit as posted; calls of the last minute count on."""
        if not isinstance(document, Mapping):
            raise LimitError("a limit is an object with model, requests_per_minute, tokens_per_minute")
        model = document.get("model", EVERY_MODEL)
        if not isinstance(model, str) or not model:
            raise LimitError(f'model is {model!r}; expected a model\'s name, or "*" for all together')
        unknown = set(document) - {"model", "requests_per_minute", "tokens_per_minute"}
        if unknown:
            raise LimitError(f"unknown fields: {', '.join(sorted(map(str, unknown)))}")
        requests, tokens = _whole(document, "requests_per_minute"), _whole(document, "tokens_per_minute")
        if len(self.windows) >= MAX_LIMITS and model not in self.windows:
            raise LimitError(f"more than {MAX_LIMITS} limits")
        window = self.windows.setdefault(model, Window(model, requests, tokens))
        window.requests_per_minute, window.tokens_per_minute = requests, tokens
        return window

    def clear(self) -> None:
        self.windows.clear()

    def as_json(self, now: float) -> dict[str, object]:
        for window in self.windows.values():
            window.forget(now)
        rows = [window.as_json() for window in self.windows.values()]
        return {"limits": rows, "rejected": sum(window.rejected for window in self.windows.values())}

    def ask(self, model: str, tokens: int, now: float) -> AdmittedCall | Rejection | None:
        """Let a call in or not; None where nothing is limited."""
        held = [self.windows[name] for name in (model, EVERY_MODEL) if name in self.windows]
        if not held:
            return None
        for window in held:
            window.forget(now)
        waits = [(*window.wait(now, tokens), window) for window in held]
        seconds, kind, window = max(waits, key=lambda wait: wait[0])
        if kind:
            window.rejected += 1
            return Rejection(_sentence(window, kind, tokens, seconds), kind, seconds, window.headers(now))
        admitted = AdmittedCall(now, tokens, held)
        for window in held:
            window.entries.append(admitted)
            window.tokens += tokens
        return admitted

    def headers(self, model: str, now: float) -> dict[str, str]:
        """Return the rest of a model's own limit, or else of the common one, as headers."""
        found: dict[str, str] = {}
        for name in (EVERY_MODEL, model):
            window = self.windows.get(name)
            if window is not None:
                found |= window.headers(now)
        return found


def _sentence(window: Window, kind: str, tokens: int, seconds: float) -> str:
    short = "RPM" if kind == "requests" else "TPM"
    limit = window.requests_per_minute if kind == "requests" else window.tokens_per_minute
    used, asked = (len(window.entries), 1) if kind == "requests" else (window.tokens, tokens)
    if math.isinf(seconds):
        return (
            f"Request too large for {window.model} on {kind} per min ({short}): "
            f"Limit {limit}, Requested {asked}."
        )
    return (
        f"Rate limit reached for {window.model} on {kind} per min ({short}): "
        f"Limit {limit}, Used {used}, Requested {asked}. Please try again in {_span(seconds)}."
    )


def _left(what: str, limit: int, left: int, reset_seconds: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(left),
        f"x-ratelimit-reset-{what}": _span(reset_seconds),
    }


def _span(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 7.66s, 6m0s."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.4g}s"


def _whole(document: Mapping[str, object], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise LimitError(f"{name} is {value!r}; expected a whole number from 0, or null for no limit")
    return value
