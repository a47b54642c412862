"""Scripted faults: what should go wrong, or otherwise than usual, for which calls, how many times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Kind = Literal[
    "rate_limit",  # 429 with Retry-After
    "server_error",  # 500
    "timeout",  # silence: before the answer, or within it after `after_tokens`
    "drop_mid_stream",  # the connection breaks after `after_tokens`
    "end_early",  # the stream ends in good order, but without finish_reason and usage
    "bad_json",  # the answer is cut in the middle and says it is complete
    "answer",  # the answer is the given `text`
    "slow",  # the first token comes `delay_seconds` later
    "refuse",  # an error with the given `status` and `error_code`
    "pace",  # `tokens_per_second` one by one, the first after `delay_seconds`; `text` where given
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MOST_RULES: Final = 1000


@dataclass(slots=True)
class Fault:
    """One rule. `times` counts down; a rule at zero is spent."""

    kind: Kind
    times: int = 1
    model: str | None = None
    contains: str | None = None
    retry_after_seconds: float = 1.0
    after_tokens: int | None = None
    delay_seconds: float = 2.0
    status: int = 400
    error_code: str = "invalid_request_error"
    text: str = ""
    tokens_per_second: float = 50.0

    def matches(self, model: str, text: str) -> bool:
        return (
            self.times > 0
            and (self.model is None or self.model == model)
            and (self.contains is None or self.contains in text)
        )


class RuleError(ValueError):
    """A rule that cannot be understood."""


@dataclass(slots=True)
class FaultPlan:
    """The rules in force, in the order they were given; the first that matches is used up by one."""

    rules: list[Fault] = field(default_factory=list)

    def add(self, documents: object) -> int:
        """Take over rules as posted; all or none."""
        if isinstance(documents, Mapping):
            documents = documents.get("rules", [documents])
        if not isinstance(documents, list):
            raise RuleError("expected a list of rules")
        rules = [parse_rule(document) for document in documents]
        self.rules = [rule for rule in self.rules if rule.times > 0]
        if len(self.rules) + len(rules) > MOST_RULES:
            raise RuleError(f"more than {MOST_RULES} rules")
        self.rules += rules
        return len(rules)

    def take(self, model: str, text: str) -> Fault | None:
        """The fault for this call, if there is one."""
        for rule in self.rules:
            if rule.matches(model, text):
                rule.times -= 1
                return rule
        return None

    def clear(self) -> None:
        self.rules.clear()


def parse_rule(document: object) -> Fault:
    """One rule from JSON."""
    if not isinstance(document, Mapping):
        raise RuleError("a rule is an object")
    kind = next((known for known in KINDS if known == document.get("kind")), None)
    if kind is None:
        raise RuleError(f"kind is {document.get('kind')!r}; expected one of {', '.join(KINDS)}")
    match = document.get("match") or {}
    if not isinstance(match, Mapping):
        raise RuleError("match is an object with model and contains")
    after = document.get("after_tokens")
    return Fault(
        kind=kind,
        times=int(_number(document, "times", 1)),
        model=_words(match, "model"),
        contains=_words(match, "contains"),
        retry_after_seconds=_number(document, "retry_after_seconds", 1.0),
        after_tokens=None if after is None else int(_number(document, "after_tokens", 0)),
        delay_seconds=_number(document, "delay_seconds", 2.0),
        status=int(_number(document, "status", 400)),
        error_code=_words(document, "error_code") or "invalid_request_error",
        text=_words(document, "text") or "",
        tokens_per_second=max(_number(document, "tokens_per_second", 50.0), 0.1),
    )


def _number(document: Mapping[str, object], name: str, default: float) -> float:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise RuleError(f"{name} is {value!r}; expected a number from 0")
    return value


def _words(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise RuleError(f"{name} is {value!r}; expected text")
    return value
