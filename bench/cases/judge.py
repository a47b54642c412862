"""Compares what came with what `expect.json` asks for."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_TOLERANCE: Final = 1e-9


@dataclass
class CaseRun:
    """What became of one run that a case started."""

    id: str = ""
    status: str = "refused"
    """completed, failed, refused, or running while it goes on."""
    codes: list[str] = field(default_factory=list)
    message: str = ""
    output: Any = None
    exit: int | None = None
    seconds: float = 0.0
    calls: int = 0
    served: int = 0
    cost_usd: float = 0.0
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    """Step path → the text of its details."""
    rows_running_after: int = 0
    text: str = ""
    """What a socket was told to begin with."""


@dataclass(frozen=True)
class CaseResponse:
    """What came of a request, or of a command."""

    status: int
    """HTTP's, or the exit code."""
    text: str
    seconds: float
    is_command: bool = False

    @property
    def document(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError:
            return None


def same(expected: Any, got: Any) -> bool:
    """Compare JSON by value: integers exactly, other numbers to within 1e-9, 1 equal to 1.0."""
    match expected, got:
        case (bool(), _) | (_, bool()):
            return expected is got
        case (int(), int()):
            return expected == got
        case (int() | float(), int() | float()):
            return abs(expected - got) <= _TOLERANCE
        case (dict(), dict()):
            return expected.keys() == got.keys() and all(same(expected[key], got[key]) for key in expected)
        case (list(), list()):
            return len(expected) == len(got) and all(map(same, expected, got))
        case _:
            return bool(expected == got)


def holds_at_least(expected: Any, got: Any) -> bool:
    """Whether `got` has at least what is expected: fields of objects, elements of lists in any place."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and all(
            key in got and holds_at_least(value, got[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(got, list) and all(
            any(holds_at_least(one, item) for item in got) for one in expected
        )
    return same(expected, got)


def in_range(bounds: dict[str, Any], value: float) -> bool:
    least, most = bounds.get("min", float("-inf")), bounds.get("max", float("inf"))
    return bool(least - _TOLERANCE <= value <= most + _TOLERANCE)


def codes_of(document: Any) -> list[dict[str, str]]:
    """Return the codes in an answer, each with the place that it is about."""
    if not isinstance(document, dict):
        return []
    told = [{"code": str(document.get("code", "")), "at": ""}]
    problems = [*(document.get("problems") or ()), *(document.get("warnings") or ())]
    return told + [
        {"code": str(one.get("code", "")), "at": str(one.get("pointer", ""))}
        if isinstance(one, dict)
        else {"code": str(one), "at": ""}
        for one in problems
    ]


def is_told(expected: str | dict[str, str], codes: Iterable[dict[str, str]]) -> bool:
    """Whether a code, at its place or below where one is given, is among those told."""
    if isinstance(expected, str):
        return any(expected in (one["code"], one["code"].partition(":")[0]) for one in codes)
    place = expected["at"]
    return any(
        one["code"] == expected["code"] and (one["at"] == place or one["at"].startswith(f"{place}/"))
        for one in codes
    )


def faults_of_run(expected: dict[str, Any], got: CaseRun) -> list[str]:
    """Return what is wrong with a run, one sentence each."""
    rest = {name: value for name, value in expected.items() if name != "any_of"}
    faults = [*_always_wrong(got), *_faults(rest, got)]
    alternatives = [list(_faults(one, got)) for one in expected.get("any_of", [])]
    if alternatives and all(alternatives):
        faults.append("any_of: " + " | ".join("; ".join(one) for one in alternatives))
    return faults


def _always_wrong(got: CaseRun) -> Iterator[str]:
    if "internal_error" in got.codes:
        yield "internal_error"
    for attempt in got.attempts:
        if (attempt["error"] or {}).get("code") == "internal_error":
            yield f"internal_error at {attempt['path']}"


def _faults(expected: dict[str, Any], got: CaseRun) -> Iterator[str]:
    ended_badly = got.status in ("failed", "refused")
    for name, value in expected.items():
        match name:
            case "status":
                yield from _unless(got.status in value, name, value, got.status)
            case "error_code" if ended_badly:
                yield from _unless(any(code in got.codes for code in value), name, value, got.codes)
            case "error_has" if ended_badly:
                yield from _unless(all(one in got.message for one in value), name, value, got.message)
            case "error_lacks" if ended_badly or got.exit is not None:
                yield from _unless(not any(one in got.message for one in value), name, value, got.message)
            case "exit":
                yield from _unless(got.exit in value, name, value, got.exit)
            case "output" if got.status == "completed":
                wanted = filled(value, {"text": got.text})
                yield from _unless(same(wanted, got.output), name, wanted, got.output)
            case "output_contains" if got.status == "completed":
                whole = got.output if isinstance(got.output, str) else _text(got.output)
                yield from _unless(value in whole, name, value, got.output)
            case "calls" | "served" | "cost_usd":
                yield from _unless(in_range(value, getattr(got, name)), name, value, getattr(got, name))
            case "tool_calls":
                yield from _unless(same(value, got.tool_calls), name, value, got.tool_calls)
            case "steps":
                for path, wanted in value.items():
                    yield from _faults_of_step(path, wanted, got)
            case "rows_running_after":
                yield from _unless(got.rows_running_after == value, name, value, got.rows_running_after)
            case "ends_within_seconds":
                yield from _unless(got.seconds <= value, name, value, round(got.seconds, 1))


def _faults_of_step(path: str, expected: dict[str, Any], got: CaseRun) -> Iterator[str]:
    rows = [attempt for attempt in got.attempts if attempt["path"] == path]
    last: dict[str, Any] = rows[-1] if rows else {"status": None, "seconds": 0.0}
    failed = [row["error"]["code"] for row in rows if row["error"]]
    for name, value in expected.items():
        where = f"{path}.{name}"
        match name:
            case "status":
                yield from _unless(last["status"] in value, where, value, last["status"])
            case "attempts":
                yield from _unless(in_range(value, len(rows)), where, value, len(rows))
            case "failed_with":
                yield from _unless(all(code in value for code in failed), where, value, failed)
            case "input_tokens" | "output_tokens":
                total = sum(row[name] for row in rows)
                yield from _unless(in_range(value, total), where, value, total)
            case "seconds":
                yield from _unless(in_range(value, last["seconds"]), where, value, last["seconds"])
            case "has":
                whole = _text(rows) + got.details.get(path, "")
                yield from _unless(all(one in whole for one in value), where, value, whole)


def faults_of_answers(expected: dict[str, Any], answers: list[CaseResponse]) -> list[str]:
    """Return what is wrong with the answers to a request that was sent once or at once many times."""
    faults = [fault for answer in answers for fault in _faults_of_answer(expected, answer)]
    if tallies := expected.get("statuses"):
        tally: dict[str, int] = {}
        for answer in answers:
            tally[str(answer.status)] = tally.get(str(answer.status), 0) + 1
        faults += _unless(tally in tallies, "statuses", tallies, tally)
    return faults


def _faults_of_answer(expected: dict[str, Any], answer: CaseResponse) -> Iterator[str]:
    refused = answer.status != 0 if answer.is_command else answer.status >= 400
    if not answer.is_command and answer.status == 500:
        yield "an answer of 500"
    for name, value in expected.items():
        match name:
            case "status" | "exit":
                yield from _unless(answer.status in value, name, value, f"{answer.status} {answer.text}")
            case "code" if refused:
                codes = codes_of(answer.document)
                found = any(
                    is_told(one, codes) or (answer.is_command and one in answer.text) for one in value
                )
                yield from _unless(found, name, value, answer.text)
            case "json_has" if not refused:
                yield from _unless(holds_at_least(value, answer.document), name, value, answer.text)
            case "json_size" if not refused:
                for place, bounds in value.items():
                    found = placed(answer.document, place)
                    size = len(found) if isinstance(found, list) else -1
                    yield from _unless(in_range(bounds, size), f"{name}.{place}", bounds, size)
            case "contains" if not refused:
                document = answer.document
                whole = answer.text if document is None else _text(document)
                yield from _unless(all(one in whole for one in value), name, value, answer.text)
            case "within_seconds":
                yield from _unless(answer.seconds <= value, name, value, round(answer.seconds, 2))
            case "lacks":
                yield from _unless(not any(one in answer.text for one in value), name, value, answer.text)


def placed(document: Any, place: str) -> Any:
    """Return what stands at a place such as `items.0.id`; None where there is nothing."""
    for part in place.split("."):
        try:
            document = document[int(part)] if isinstance(document, list) else document[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return document


def filled(value: Any, known: dict[str, str]) -> Any:
    """Put what is known in the place of `${name}`. Raises KeyError where something is not known."""
    if isinstance(value, str):
        first, *rest = value.split("${")
        parts = (one.partition("}") for one in rest)
        return first + "".join(known[name] + after for name, _, after in parts)
    if isinstance(value, dict):
        return {key: filled(one, known) for key, one in value.items()}
    return [filled(one, known) for one in value] if isinstance(value, list) else value


def _unless(holds: bool, name: str, expected: Any, got: Any) -> list[str]:
    return [] if holds else [f"{name}: expected {_text(expected)}, got {_text(got)[:600]}"]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
