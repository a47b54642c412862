"""Scripted faults: what should go wrong, or otherwise than usual, for which calls, how often."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Kind = Literal[
    "rate_limit",  # 429 with Retry-After
    "server_error",  # 500
    "overloaded",  # 503, or another `status` such as 529
    "refuse",  # an error with the given `status` and `error_code`
    "slow_first_byte",  # nothing at all, headers included, for `delay_seconds`
    "slow",  # the first token comes `delay_seconds` later
    "pace",  # `tokens_per_second` one by one, the first after `delay_seconds`; `text` where given
    "stall",  # silence for `delay_seconds` after `after_tokens`, then it goes on
    "timeout",  # silence without an end: before the answer, or within it after `after_tokens`
    "drop_mid_stream",  # the connection breaks after `after_tokens`
    "end_early",  # the stream ends in good order, but without finish_reason and usage
    "malformed_sse",  # a stream written otherwise than usual: see VARIANTS
    "broken_body",  # an answer in one piece that is cut short or is no JSON: see VARIANTS
    "bad_json",  # the answer's text is cut in the middle and says it is complete
    "no_usage",  # all as usual, but nothing says what it cost
    "refusal",  # a filter ends the answer after `after_tokens`, by default before the first
    "answer",  # the answer is the given `text`
    "tool_call",  # the answer is the given `tool_calls`, after `text` where given
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    # The first is meant where a rule names none. From `split` on they are valid: a client must read them.
    "malformed_sse": ("invalid_json", "error", "split", "crlf", "joined", "comments"),
    "broken_body": ("cut", "not_json"),
}
# These concern one way of answering only; a rule is not used up by a call that it cannot touch.
STREAM_ONLY: Final[Mapping[str, bool]] = {"malformed_sse": True, "broken_body": False}
REFUSALS: Final = frozenset(("rate_limit", "server_error", "overloaded", "refuse"))
DEFAULT_STATUS: Final = {"overloaded": 503}
MAX_RULES: Final = 1000
MAX_DELAY_SECONDS: Final = 3600.0
FIELDS: Final = frozenset(
    (
        "kind",
        "times",
        "chance",
        "match",
        "variant",
        "retry_after_seconds",
        "after_tokens",
        "delay_seconds",
        "status",
        "error_code",
        "text",
        "tool_calls",
        "tokens_per_second",
    )
)


@dataclass(frozen=True, slots=True)
class ScriptedToolCall:
    """A tool call by a model; `arguments` are JSON, unless a script dictates otherwise."""

    name: str
    arguments: str


@dataclass(slots=True)
class FaultRule:
    """One rule. `times` counts down; a rule at zero is spent, one without a number never is."""

    kind: Kind
    times: int | None = 1
    chance: float = 1.0
    model: str | None = None
    contains: str | None = None
    stream: bool | None = None
    variant: str = ""
    retry_after_seconds: float | None = None
    after_tokens: int | None = None
    delay_seconds: float = 2.0
    status: int = 400
    error_code: str = "invalid_request_error"
    text: str = ""
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    tokens_per_second: float = 50.0
    draws: random.Random = field(default_factory=random.Random, repr=False)

    def matches(self, model: str, text: str, stream: bool) -> bool:
        return (
            self.times != 0
            and (self.model is None or self.model == model)
            and (self.contains is None or self.contains in text)
            and (self.stream is None or self.stream == stream)
            and (self.chance >= 1 or self.draws.random() < self.chance)
        )


class RuleError(ValueError):
    """A rule that cannot be understood."""


@dataclass(slots=True)
class FaultPlan:
    """The rules in force, in the order they were given; the first that matches is used up by one."""

    seed: int = 0
    rules: list[FaultRule] = field(default_factory=list)
    added: int = 0

    def add(self, documents: object) -> int:
        """Take over rules as posted; all or none."""
        if isinstance(documents, Mapping):
            documents = documents.get("rules", [documents])
        if not isinstance(documents, list):
            raise RuleError("expected a list of rules")
        rules = [parse_rule(document) for document in documents]
        self.rules = [rule for rule in self.rules if rule.times != 0]
        if len(self.rules) + len(rules) > MAX_RULES:
            raise RuleError(f"more than {MAX_RULES} rules")
        for rule in rules:
            # Every rule draws for itself: its chance does not depend on what other rules do.
            rule.draws = random.Random(f"{self.seed}/rule/{self.added}")
            self.added += 1
        self.rules += rules
        return len(rules)

    def take(self, model: str, text: str, stream: bool = True) -> FaultRule | None:
        """The fault for this call, if there is one."""
        for rule in self.rules:
            if rule.matches(model, text, stream):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    def clear(self) -> None:
        """Forget all rules; the draws of later ones begin anew."""
        self.rules.clear()
        self.added = 0


def parse_rule(document: object) -> FaultRule:
    """One rule from JSON."""
    if not isinstance(document, Mapping):
        raise RuleError("a rule is an object")
    kind = next((known for known in KINDS if known == document.get("kind")), None)
    if kind is None:
        raise RuleError(f"kind is {document.get('kind')!r}; expected one of {', '.join(KINDS)}")
    unknown = set(document) - FIELDS
    if unknown:
        raise RuleError(
            f"unknown: {', '.join(sorted(map(str, unknown)))}; a rule has {', '.join(sorted(FIELDS))}"
        )
    match = document.get("match") or {}
    if not isinstance(match, Mapping) or set(match) - {"model", "contains", "stream"}:
        raise RuleError(f"match is {match!r}; expected an object with model, contains, stream")
    after = document.get("after_tokens")
    times = document.get("times", 1)
    return FaultRule(
        kind=kind,
        times=None if times is None else int(_number(document, "times", 1)),
        chance=_number(document, "chance", 1.0, most=1.0),
        model=_words(match, "model"),
        contains=_words(match, "contains"),
        stream=_stream(kind, match),
        variant=_variant(kind, document),
        retry_after_seconds=_retry_after(kind, document),
        after_tokens=None if after is None else int(_number(document, "after_tokens", 0)),
        delay_seconds=_number(document, "delay_seconds", 2.0, most=MAX_DELAY_SECONDS),
        status=_status(kind, document),
        error_code=_words(document, "error_code") or "invalid_request_error",
        text=_words(document, "text") or "",
        tool_calls=_tool_calls(kind, document),
        tokens_per_second=max(_number(document, "tokens_per_second", 50.0), 0.1),
    )


def _stream(kind: Kind, match: Mapping[str, object]) -> bool | None:
    value = match.get("stream")
    if value is not None and not isinstance(value, bool):
        raise RuleError(f"match.stream is {value!r}; expected true or false")
    only = STREAM_ONLY.get(kind)
    if only is not None and value is not None and value != only:
        raise RuleError(f"{kind} never happens where stream is {json.dumps(value)}")
    return value if only is None else only


def _variant(kind: Kind, document: Mapping[str, object]) -> str:
    known, value = VARIANTS.get(kind, ()), document.get("variant")
    if value is None:
        return known[0] if known else ""
    if not isinstance(value, str) or value not in known:
        raise RuleError(f"variant is {value!r}; {kind} knows {', '.join(known) or 'none'}")
    return value


def _status(kind: Kind, document: Mapping[str, object]) -> int:
    status = _number(document, "status", DEFAULT_STATUS.get(kind, 400))
    if kind in ("refuse", "overloaded") and not 400 <= status <= 599:
        raise RuleError(f"status is {status!r}; expected an error from 400 to 599")
    return int(status)


def _retry_after(kind: Kind, document: Mapping[str, object]) -> float | None:
    if kind != "rate_limit" and document.get("retry_after_seconds") is None:
        return None
    return _number(document, "retry_after_seconds", 1.0)


def _tool_calls(kind: Kind, document: Mapping[str, object]) -> tuple[ScriptedToolCall, ...]:
    given = document.get("tool_calls")
    if kind != "tool_call" and given is None:
        return ()
    if not isinstance(given, list) or not given:
        raise RuleError(f"tool_calls is {given!r}; expected a list of objects with name and arguments")
    calls = []
    for each in given:
        name = each.get("name") if isinstance(each, Mapping) else None
        if not isinstance(each, Mapping) or not isinstance(name, str) or not name:
            raise RuleError(f"tool_calls holds {each!r}; expected an object with name and arguments")
        arguments = each.get("arguments", {})
        calls.append(
            ScriptedToolCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        )
    return tuple(calls)


def _number(document: Mapping[str, object], name: str, default: float, most: float = 1e9) -> float:
    value = document.get(name, default)
    # Not a number is neither below nor above anything.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        upto = f" to {most:g}" if most < 1e9 else ""
        raise RuleError(f"{name} is {value!r}; expected a number from 0{upto}")
    return value


def _words(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise RuleError(f"{name} is {value!r}; expected text")
    return value
